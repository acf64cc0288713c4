"""StopStrings: text as it arrives, cut before a stop string that is never seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class StopStrings:
    """Cuts a text before the first stop string in it, however the text is cut into pieces.

    First is the one that is complete first; of those complete at the same character, the longest.
    What might be the beginning of a stop string is held back until the text decides it: no more
    than that, so text without such beginnings is never late.

    A stop string with `markup` in it (the text of a special token, which is hidden) is looked for
    in the text with hidden text in its place, any other in what is shown.
    """

    def __init__(self, stops: Sequence[str], markup: Iterable[str] = ()) -> None:
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError(f"stop must be a list of non-empty strings, got {stops!r}")
        markup = [text for text in markup if text]
        spelled = tuple(stop for stop in stops if any(text in stop for text in markup))
        self._spelled = _Stops(spelled)
        self._plain = _Stops(tuple(stop for stop in stops if stop not in spelled))
        self._held = ""  # with what is hidden in it
        self._shown: list[int] = []  # where in _held the characters are that are not
        self._stopped: str | None = None

    def feed(self, text: str, hidden: str = "") -> tuple[str, str | None]:
        """The text that can be shown now, and the stop string that is complete, if any.

        `hidden` is behind `text`. After a stop nothing more is shown.
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
        """The text that was held back, now that it is clear that no stop string follows."""
        return self._take(len(self._held))

    def _visible(self) -> str:
        return "".join(self._held[i] for i in self._shown)

    def _first(self) -> tuple[int, int, str] | None:
        """End and start in `_held` of the first stop string, and itself."""
        found = list(self._spelled.find(self._held))
        for end, start, stop in self._plain.find(self._visible()):
            found.append((self._shown[end - 1] + 1, self._shown[start], stop))
        return min(found, default=None)

    def _undecided(self) -> int:
        """Where in `_held` what may be the beginning of a stop string begins."""
        begins = len(self._held) - self._spelled.beginning_at_end(self._held)
        if keep := self._plain.beginning_at_end(self._visible()):
            begins = min(begins, self._shown[-keep])
        return begins

    def _take(self, end: int) -> str:
        """What is shown of the first `end` characters, which are not held any more."""
        shown = "".join(self._held[i] for i in self._shown if i < end)
        self._shown = [i - end for i in self._shown if i >= end]
        self._held = self._held[end:]
        return shown


class _Stops:
    """Finds some stop strings, and their beginnings, in one text."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = stops
        self._beginnings = frozenset(stop[:n] for stop in stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._beginnings), default=0)

    def find(self, text: str) -> Iterable[tuple[int, int, str]]:
        """The first end, and start, of each stop string in `text`."""
        starts = ((text.find(stop), stop) for stop in self.stops)
        return ((start + len(stop), start, stop) for start, stop in starts if start >= 0)

    def beginning_at_end(self, text: str) -> int:
        """The length of the longest end of `text` with which a stop string begins."""
        lengths = range(min(self._longest, len(text)), 0, -1)
        return next((n for n in lengths if text[-n:] in self._beginnings), 0)
