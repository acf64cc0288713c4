"""Budget: how much a chat template may compute and hold. Templates come with models, as programs.

Every operation of a template is charged before or as it is done, so that none that is allowed can
take long or much by itself, and all of them together cannot either.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, NamedTuple

from nanocupy.text.sandbox.written import Written

MAX_SECONDS = 2.0
MAX_TEXT = 1 << 24
"""Characters in any one value that a template makes; four times the messages, if that is more."""
MAX_ITEMS = 1 << 18
"""Items in any one value that a template makes, those of values inside it counted too."""
MAX_DEPTH = 100
MAX_WIDTH = 1000
"""The largest width, count or indent that a template may give to a function of strings."""
MAX_BITS = 2048
"""Bits of a whole number."""

# Four digits in a field: of `%` and strftime, of `format`; of `%(name)s`.
_WIDE = re.compile(r"%[#\-+ .\d_^]*\d{4}|\{[^{}]*\d{4}")
_WIDE_NAMED = re.compile(r"\)[#\-+ .\d]*\d{4}")

_TEXT_IN_ALL, _ITEMS_IN_ALL = 1 << 25, 1 << 22


class TooMuch(RuntimeError):
    """A template went over a limit."""


class Weight(NamedTuple):
    """What a value would be, written out: items, characters, and how deep it is nested."""

    items: int = 1
    letters: int = 0
    depth: int = 0


class Items(list[Any]):
    """A list that knows its weight: nothing changes it, so that it is weighed once."""

    _weight = Weight()  # templates read no name that begins so


class Fields(dict[Any, Any]):
    """A dict that knows its weight: nothing changes it, so that it is weighed once."""

    _weight = Weight()  # templates read no name that begins so


class Budget:
    """What is left to one run of a template that was given `given` characters."""

    def __init__(self, given: int) -> None:
        self.letters = _TEXT_IN_ALL + 64 * given
        self.items = _ITEMS_IN_ALL
        self.most_letters = max(MAX_TEXT, 4 * given)
        self.most_items = max(MAX_ITEMS, 4 * given)
        self.deadline = time.thread_time() + MAX_SECONDS

    def check_time(self) -> None:
        """Called by every turn of a loop, and wherever something is charged."""
        if time.thread_time() > self.deadline:
            raise TooMuch(f"it computed for more than {MAX_SECONDS} s")

    def charge(self, letters: int = 0, items: int = 0) -> None:
        """Take text and items that are about to be made off what is left."""
        self.check_time()
        self.letters -= letters
        self.items -= items
        if letters > self.most_letters or items > self.most_items:
            raise TooMuch("a text or list is too long")
        if self.letters < 0 or self.items < 0:
            raise TooMuch("it makes too much text or too many lists")

    def weigh(self, value: Any) -> Weight:
        """The weight of a value of plain types. TooMuch for one that is too large."""
        kind = type(value)
        if kind is str or kind is Written:
            return Weight(1, len(value))
        if kind is Items or kind is Fields:
            weight: Weight = value._weight
            return weight
        if isinstance(value, (list, tuple)):
            return self._weigh_all(value)
        if isinstance(value, dict):
            return self._weigh_all((*value.keys(), *value.values()))
        return Weight(1, len(value) if isinstance(value, str) else 8)

    def _weigh_all(self, values: Iterable[Any]) -> Weight:
        items, letters, depth = 1, 0, 0
        for inner in values:
            more = self.weigh(inner)
            items, letters = items + more.items, letters + more.letters
            depth = max(depth, more.depth + 1)
            if items > self.most_items or letters > self.most_letters or depth > MAX_DEPTH:
                raise TooMuch("a value is too large")
        return Weight(items, letters, depth)

    def items_of(self, values: Iterable[Any]) -> Items:
        """A list of what `values` yields, paid for."""
        if isinstance(values, str):  # a letter becomes a string of its own
            self.charge(letters=16 * len(values), items=len(values))
        found = Items(islice(values, self.most_items + 1))
        self.charge(items=len(found))
        found._weight = self._weigh_all(found)
        return found

    def owned(self, value: Any) -> Any:
        """A copy of a value of plain JSON types that knows its weight."""
        if isinstance(value, dict):
            fields = Fields((key, self.owned(inner)) for key, inner in value.items())
            fields._weight = self._weigh_all((*fields.keys(), *fields.values()))
            return fields
        if isinstance(value, (list, tuple)):
            items = Items(map(self.owned, value))
            items._weight = self._weigh_all(items)
            return items
        return value

    def fields_of(self, values: dict[Any, Any]) -> Fields:
        """A dict with the contents of `values`, paid for."""
        self.charge(items=len(values))
        found = Fields(values)
        found._weight = self._weigh_all((*found.keys(), *found.values()))
        return found


_budget: ContextVar[Budget] = ContextVar("budget")


def budget() -> Budget:
    """That of the template which runs in this thread."""
    return _budget.get()


@contextmanager
def budget_for(given: int) -> Iterator[Budget]:
    """A new budget for one run of a template."""
    made = Budget(given)
    token = _budget.set(made)
    try:
        yield made
    finally:
        _budget.reset(token)


def check_widths(*values: Any) -> None:
    """Refuse large numbers, also as widths in formats: '%99999s', '{:>99999}'."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise TooMuch("a number is too large here")
        if isinstance(value, str) and (
            _WIDE.search(value) or ("%(" in value and _WIDE_NAMED.search(value))
        ):
            raise TooMuch("a width in a format is too large")
