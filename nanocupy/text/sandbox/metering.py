"""How much a chat template may compute and hold: templates are programs that come with models.

Every operation is charged to a `Budget` before it is done, so neither one operation nor all of them
together can take long or use much memory. A longer conversation raises the limits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from types import GeneratorType
from typing import Any, NamedTuple

from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

from nanocupy.text.sandbox.provenance import Safe, TemplateText

MAX_SECONDS = 1.5
MAX_TEXT = 1 << 22
"""Characters in any one value that a template makes; or four times the messages, if more."""
MAX_ITEMS = 1 << 17
"""Items in any one value that a template makes, with those of values inside it."""
MAX_DEPTH = 100
MAX_CALLS = 60
"""Depth of macros that call each other: threads may have small stacks."""
MAX_WIDTH = 1000
"""The largest width, count or indent given to a function of strings."""
MAX_PATH = 16
"""Parts of an attribute such as "function.parameters.type"."""
MAX_BITS = 2048
"""Bits of a whole number."""
MAX_KEY = 1 << 60
"""From here on, numbers can be chosen to have the same hash."""
MAX_STEPS = 1 << 27
"""Comparisons of letters in one operation of str that takes more than linear time."""

_TEXT_IN_ALL, _ITEMS_IN_ALL = 1 << 24, 1 << 19
_SECONDS_PER_ITEM, _SECONDS_PER_LETTER = 4e-5, 2e-7
_AT_ONCE = 1 << 10


class LimitError(SecurityError):
    """A template went over a limit."""


class Weight(NamedTuple):
    """The size of a value when written out: items, characters, and depth of nesting."""

    items: int = 1
    letters: int = 0
    depth: int = 0


class MeteredList(list[Any]):
    """A list that knows its weight. It never changes, so it is weighed once."""

    _weight = Weight()  # templates cannot read names that begin with an underscore


class MeteredDict(dict[Any, Any]):
    """A dict that knows its weight. It never changes, so it is weighed once."""

    _weight = Weight()  # templates cannot read names that begin with an underscore


def metered(value: Any) -> Any:
    """A copy of a value of plain JSON types that knows its weight, however large."""
    if isinstance(value, dict):
        fields = MeteredDict((key, metered(inner)) for key, inner in value.items())
        fields._weight = _total(map(_known, (*fields.keys(), *fields.values())))
        return fields
    if isinstance(value, (list, tuple)):
        items = MeteredList(map(metered, value))
        items._weight = _total(map(_known, items))
        return items
    return value


def _known(value: Any) -> Weight:
    """The weight of what `metered` returned."""
    if isinstance(value, str):
        return Weight(1, len(value))
    return value._weight if isinstance(value, (MeteredList, MeteredDict)) else Weight(1, 8)


def _total(weights: Iterable[Weight], budget: Budget | None = None) -> Weight:
    """The weight of a value with these parts; LimitError if that is above the budget's limits."""
    items, letters, depth = 1, 0, 0
    for part in weights:
        items, letters = items + part.items, letters + part.letters
        depth = max(depth, part.depth + 1)
        if budget is not None:
            budget.check_size(items, letters, depth)
    return Weight(items, letters, depth)


class Budget:
    """What one run of a template may still use; `given` is the weight of its variables."""

    def __init__(self, given: Weight) -> None:
        self.letters = _TEXT_IN_ALL + 64 * given.letters
        self.items = _ITEMS_IN_ALL + 64 * given.items
        self.most_letters = max(MAX_TEXT, 4 * given.letters)
        self.most_items = max(MAX_ITEMS, 4 * given.items)
        self.most_steps = max(MAX_STEPS, 64 * given.letters)
        self.seconds = (
            MAX_SECONDS + _SECONDS_PER_ITEM * given.items + _SECONDS_PER_LETTER * given.letters
        )
        self._deadline = time.thread_time() + self.seconds
        self._calls = 0
        self._look = 0.0  # when to read the thread's time again, which is slow on some systems

    def check_time(self) -> None:
        """Raise LimitError after too much CPU time. Called in every turn of a loop."""
        now = time.monotonic()
        if now < self._look:
            return
        left = self._deadline - time.thread_time()
        if left <= 0:
            raise LimitError(f"it computed for more than {self.seconds:.1f} s")
        self._look = now + left  # CPU time never passes faster than this

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around each call of a macro or a recursive loop."""
        self._calls += 1
        try:
            if self._calls > MAX_CALLS:
                raise LimitError("macros call each other too deeply")
            yield
        finally:
            self._calls -= 1

    def check_steps(self, steps: int) -> None:
        """Check an operation that takes `steps` comparisons of letters."""
        self.check_time()
        if steps > self.most_steps:
            raise LimitError("a text is too long for this")

    def check_size(self, items: int, letters: int, depth: int) -> None:
        """Check the weight of one value."""
        if items > self.most_items or letters > self.most_letters or depth > MAX_DEPTH:
            raise LimitError("a value is too large")

    def charge(self, letters: int = 0, items: int = 0) -> None:
        """Pay for one value before it is made."""
        if letters > self.most_letters or items > self.most_items:
            raise LimitError("a text or list is too long")
        self.spend(letters, items)

    def spend(self, letters: int = 0, items: int = 0) -> None:
        """Pay for text and items."""
        self.check_time()
        self.letters -= letters
        self.items -= items
        if self.letters < 0 or self.items < 0:
            raise LimitError("it makes too much text or too many lists")

    def weigh(self, value: Any) -> Weight:
        """The weight of a plain value. SecurityError for any other, which might take forever to
        write out or compare, and for one that is too large."""
        kind = type(value)
        if kind is str or kind is TemplateText or kind is Safe:
            return Weight(1, len(value))
        if kind is MeteredList or kind is MeteredDict:
            weight: Weight = value._weight
            return weight
        if isinstance(value, (list, tuple)):
            return self._weigh_all(value)
        if isinstance(value, dict):
            return self._weigh_all((*value.keys(), *value.values()))
        if isinstance(value, int):
            return Weight(1, 8 + value.bit_length() // 3)
        if value is None or isinstance(value, (float, Undefined)):
            return Weight(1, 8)
        raise SecurityError(f"a {kind.__name__} cannot be part of a value")

    def _weigh_all(self, values: Iterable[Any]) -> Weight:
        self.check_time()
        return _total(map(self.weigh, values), self)

    def make_list(self, values: Iterable[Any]) -> MeteredList:
        """Make a list of what `values` yields, and pay for it."""
        if type(values) is MeteredList:
            return values
        if isinstance(values, str):  # a letter becomes a string of its own
            self.charge(items=len(values))
        left = iter(values)
        found = MeteredList()
        while some := [*islice(left, _AT_ONCE)]:
            found += [self.make_list(v) if isinstance(v, GeneratorType) else v for v in some]
            self.check_time()
            if len(found) > self.most_items:
                raise LimitError("a list is too long")
        self.charge(items=len(found) + 2)
        found._weight = self._weigh_all(found)
        return found

    def make_dict(self, pairs: Iterable[tuple[Any, Any]]) -> MeteredDict:
        """Make a dict, and pay for it."""
        found = MeteredDict()
        for index, (key, value) in enumerate(pairs):
            found[checked_key(key)] = value
            if index % _AT_ONCE == 0:
                self.spend(items=min(index, _AT_ONCE))
        self.charge(items=len(found) % _AT_ONCE + 4)
        found._weight = self._weigh_all((*found.keys(), *found.values()))
        return found


def checked_key(key: Any) -> Any:
    """`key`, if it can be a key of a dict: many keys with one hash would take too long."""
    if isinstance(key, int) and abs(key) >= MAX_KEY:
        raise LimitError("a number is too large for a key")
    if key is not None and not isinstance(key, (str, int, float)):
        raise SecurityError(f"a {type(key).__name__} cannot be a key")
    return key


_budget: ContextVar[Budget] = ContextVar("budget")


def budget() -> Budget:
    """The budget of the template that this thread runs."""
    return _budget.get()


@contextmanager
def budget_for(given: Weight) -> Iterator[Budget]:
    """Set a new budget for one run of a template."""
    made = Budget(given)
    token = _budget.set(made)
    try:
        yield made
    finally:
        _budget.reset(token)


def check_widths(*values: Any) -> None:
    """Refuse large numbers."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise LimitError("a number is too large here")
