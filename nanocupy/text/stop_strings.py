"""StopStrings: text as it arrives, cut before a stop string that is never seen."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts a text before the first stop string in it, however the text is cut into pieces.

    First is the one that is complete first; of those complete at the same character, the longest.
    What might be the beginning of a stop string is held back until the text decides it: no more
    than that, so text without such beginnings is never late.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise ValueError(f"stop must be a list of non-empty strings, got {stops!r}")
        self._stops = tuple(stops)
        self._beginnings = frozenset(stop[:n] for stop in stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""
        self._stopped: str | None = None

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that can be shown now, and the stop string that `text` completes, if any.

        After a stop nothing more is shown.
        """
        if self._stopped is not None:
            return "", self._stopped
        text = self._held + text
        if found := self._first(text):
            start, self._stopped = found
            self._held = ""
            return text[:start], self._stopped
        keep = self._beginning_at_end(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], None

    def finish(self) -> str:
        """The text that was held back, now that it is clear that no stop string follows."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> tuple[int, str] | None:
        starts = ((text.find(stop), stop) for stop in self._stops)
        ends = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
        return min(ends)[1:] if ends else None

    def _beginning_at_end(self, text: str) -> int:
        """The length of the longest end of `text` with which a stop string begins."""
        lengths = range(min(self._longest, len(text)), 0, -1)
        return next((n for n in lengths if text[-n:] in self._beginnings), 0)
