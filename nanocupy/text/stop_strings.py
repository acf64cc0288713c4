"""StopStrings: text as it arrives, cut before a stop string that is never seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class StopStrings:
    """Cuts a text that arrives in pieces before the first stop string in it.

    The first is the one that ends first; of those that end together, the longest. Only text that
    may be the beginning of a stop string is held back.

    A stop string with `markup` in it (the text of a special token, which is hidden) is searched in
    the text with hidden text included; any other in the visible text.
    """

    def __init__(self, stops: Sequence[str], markup: Iterable[str] = ()) -> None:
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError(f"stop must be a list of non-empty strings, got {stops!r}")
        markup = [text for text in markup if text]
        spelled = tuple(stop for stop in stops if any(text in stop for text in markup))
        self._spelled = _Stops(spelled)
        self._plain = _Stops(tuple(stop for stop in stops if stop not in spelled))
        self._held = ""  # includes hidden text
        self._shown: list[int] = []  # the positions in _held of visible characters
        self._stopped: str | None = None

    def feed(self, text: str, hidden: str = "") -> tuple[str, str | None]:
        """Add `text`, then `hidden` text after it.

        Returns:
            The text that can be shown now, and the stop string that was completed, or None. After
            a stop no more text is shown.
        """
        if self._stopped is not None:
            return "", self._stopped
        self._shown += range(len(self._held), len(self._held) + len(text))
        self._held += text + (hidden if self._spelled.stops else "")
        if found := self._first():
            _, start, self._stopped = found
            shown = self._take(start)
            self._held, self._shown = "", []
            return shown, self._stopped
        return self._take(self._undecided()), None

    def finish(self) -> str:
        """The text held back; call it when no more text follows."""
        return self._take(len(self._held))

    def _visible(self) -> str:
        return "".join(self._held[i] for i in self._shown)

    def _first(self) -> tuple[int, int, str] | None:
        """(end, start, stop string) of the first stop string in `_held`."""
        found = list(self._spelled.find(self._held))
        for end, start, stop in self._plain.find(self._visible()):
            found.append((self._shown[end - 1] + 1, self._shown[start], stop))
        return min(found, default=None)

    def _undecided(self) -> int:
        """Where in `_held` a beginning of a stop string starts."""
        begins = len(self._held) - self._spelled.beginning_at_end(self._held)
        if keep := self._plain.beginning_at_end(self._visible()):
            begins = min(begins, self._shown[-keep])
        return begins

    def _take(self, end: int) -> str:
        """Remove the first `end` characters; return the visible ones."""
        shown = "".join(self._held[i] for i in self._shown if i < end)
        self._shown = [i - end for i in self._shown if i >= end]
        self._held = self._held[end:]
        return shown


class _Stops:
    """Finds stop strings, and beginnings of them, in a text."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self._beginnings = frozenset(stop[:n] for stop in stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._beginnings), default=0)

    def find(self, text: str) -> Iterable[tuple[int, int, str]]:
        """(end, start, stop string) of the first place of each stop string."""
        starts = ((text.find(stop), stop) for stop in self.stops)
        return ((start + len(stop), start, stop) for start, stop in starts if start >= 0)

    def beginning_at_end(self, text: str) -> int:
        """The length of the longest end of `text` that is the beginning of a stop string."""
        lengths = range(min(self._longest, len(text)), 0, -1)
        return next((n for n in lengths if text[-n:] in self._beginnings), 0)
