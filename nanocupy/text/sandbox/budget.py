"""Budget: how much a chat template may compute and hold. Templates come with models, as programs.

Every operation of a template is charged before or as it is done, so that none that is allowed can
take long or much by itself, and all of them together cannot either. What a conversation holds
raises the limits, so that long ones render.
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

from nanocupy.text.sandbox.provenance import Safe, Written

MAX_SECONDS = 1.5
MAX_TEXT = 1 << 22
"""Characters in any one value that a template makes; four times the messages, if that is more."""
MAX_ITEMS = 1 << 17
"""Items in any one value that a template makes, those of values inside it counted too."""
MAX_DEPTH = 100
MAX_CALLS = 60
"""Macros that call each other, before threads with small stacks run out of them."""
MAX_WIDTH = 1000
"""The largest width, count or indent that a template may give to a function of strings."""
MAX_PATH = 16
"""Parts of an attribute such as "function.parameters.type"."""
MAX_BITS = 2048
"""Bits of a whole number."""
MAX_KEY = 1 << 60
"""Whole numbers from here on can be made to have one hash."""
MAX_STEPS = 1 << 27
"""Comparisons of letters in one operation of a str that is not linear."""

_TEXT_IN_ALL, _ITEMS_IN_ALL = 1 << 24, 1 << 19
_SECONDS_PER_ITEM, _SECONDS_PER_LETTER = 4e-5, 2e-7
_AT_ONCE = 1 << 10


class TooMuch(SecurityError):
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


def owned(value: Any) -> Any:
    """A copy of a value of plain JSON types that knows its weight, whatever that is."""
    if isinstance(value, dict):
        fields = Fields((key, owned(inner)) for key, inner in value.items())
        fields._weight = _total(map(_known, (*fields.keys(), *fields.values())))
        return fields
    if isinstance(value, (list, tuple)):
        items = Items(map(owned, value))
        items._weight = _total(map(_known, items))
        return items
    return value


def _known(value: Any) -> Weight:
    """The weight of what `owned` made."""
    if isinstance(value, str):
        return Weight(1, len(value))
    return value._weight if isinstance(value, (Items, Fields)) else Weight(1, 8)


def _total(weights: Iterable[Weight]) -> Weight:
    items, letters, depth = 1, 0, 0
    for weight in weights:
        items, letters = items + weight.items, letters + weight.letters
        depth = max(depth, weight.depth + 1)
    return Weight(items, letters, depth)


class Budget:
    """What is left to one run of a template that was given a value of that weight."""

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
        self._look = 0.0  # when to ask for the thread's time again, which some systems are slow at

    def check_time(self) -> None:
        """Called by every turn of a loop, and wherever something is charged."""
        now = time.monotonic()
        if now < self._look:
            return
        left = self._deadline - time.thread_time()
        if left <= 0:
            raise TooMuch(f"it computed for more than {self.seconds:.1f} s")
        self._look = now + left  # no thread computes for longer than that passes

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around each call of a macro or a recursive loop."""
        self._calls += 1
        try:
            if self._calls > MAX_CALLS:
                raise TooMuch("macros call each other too deeply")
            yield
        finally:
            self._calls -= 1

    def check_steps(self, steps: int) -> None:
        """Called before what takes `steps` comparisons of letters."""
        self.check_time()
        if steps > self.most_steps:
            raise TooMuch("a text is too long for this")

    def charge(self, letters: int = 0, items: int = 0) -> None:
        """Take one value that is about to be made off what is left."""
        if letters > self.most_letters or items > self.most_items:
            raise TooMuch("a text or list is too long")
        self.spend(letters, items)

    def spend(self, letters: int = 0, items: int = 0) -> None:
        """Take text and items off what is left."""
        self.check_time()
        self.letters -= letters
        self.items -= items
        if self.letters < 0 or self.items < 0:
            raise TooMuch("it makes too much text or too many lists")

    def weigh(self, value: Any) -> Weight:
        """The weight of a plain value. SecurityError for one that is too large, or not plain: what
        else there is could be written out or compared without an end."""
        kind = type(value)
        if kind is str or kind is Written or kind is Safe:
            return Weight(1, len(value))
        if kind is Items or kind is Fields:
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
        if type(values) is Items:
            return values
        if isinstance(values, str):  # a letter becomes a string of its own
            self.charge(items=len(values))
        left = iter(values)
        found = Items()
        while some := [*islice(left, _AT_ONCE)]:
            found += [self.items_of(v) if isinstance(v, GeneratorType) else v for v in some]
            self.check_time()
            if len(found) > self.most_items:
                raise TooMuch("a list is too long")
        self.charge(items=len(found) + 2)
        found._weight = self._weigh_all(found)
        return found

    def fields_of(self, pairs: Iterable[tuple[Any, Any]]) -> Fields:
        """A dict of keys and values, paid for."""
        found = Fields()
        for index, (key, value) in enumerate(pairs):
            found[checked_key(key)] = value
            if index % _AT_ONCE == 0:
                self.spend(items=min(index, _AT_ONCE))
        self.charge(items=len(found) % _AT_ONCE + 4)
        found._weight = self._weigh_all((*found.keys(), *found.values()))
        return found


def checked_key(key: Any) -> Any:
    """A key of a dict: what cannot be made to have the hash of many others."""
    if isinstance(key, int) and abs(key) >= MAX_KEY:
        raise TooMuch("a number is too large for a key")
    if key is not None and not isinstance(key, (str, int, float)):
        raise SecurityError(f"a {type(key).__name__} cannot be a key")
    return key


_budget: ContextVar[Budget] = ContextVar("budget")


def budget() -> Budget:
    """That of the template which runs in this thread."""
    return _budget.get()


@contextmanager
def budget_for(given: Weight) -> Iterator[Budget]:
    """A new budget for one run of a template."""
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
            raise TooMuch("a number is too large here")
