"""TextStream: the tokens of one answer as text that can be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanocupy.text import Detokenizer, StopStrings, Tokenizer


class TextStream:
    """Only whole characters, and never any part of a stop string.

    Without a detokenizer the text is empty and nothing stops. `hidden` is the text of each token
    that is not shown: stop strings may spell it.
    """

    def __init__(
        self,
        detokenizer: Detokenizer | None,
        stops: StopStrings | None,
        hidden: Mapping[int, str] | None = None,
    ) -> None:
        self._detokenizer = detokenizer
        self._stops = stops
        self._hidden = hidden or {}
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """All text given out so far."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def feed(self, token: int, *, may_stop: bool = True) -> tuple[str, str | None]:
        """The text that `token` makes visible, and the stop string it completes, if any."""
        if self._detokenizer is None:
            return "", None
        return self._show(self._detokenizer.feed(token), may_stop, self._hidden.get(token, ""))

    def end(self, token: int) -> tuple[str, str | None]:
        """`feed` for a token that ends the answer and is not shown, whatever its text."""
        return self._show("", True, self._hidden.get(token, ""))

    def finish(self) -> tuple[str, str | None]:
        """What was held back, now that no token follows."""
        if self._detokenizer is None:
            return "", None
        text, stopped = self._show(self._detokenizer.finish(), True)
        if self._stops is not None and stopped is None:
            held = self._stops.finish()
            self._parts.append(held)
            text += held
        return text, stopped

    def _show(self, text: str, may_stop: bool, hidden: str = "") -> tuple[str, str | None]:
        stopped = None
        if self._stops is not None and may_stop:
            text, stopped = self._stops.feed(text, hidden)
        self._parts.append(text)
        return text, stopped


def text_stream(
    tokenizer: Tokenizer | None, prompt_ids: Sequence[int], stops: Sequence[str]
) -> TextStream:
    """The TextStream of an answer to `prompt_ids`."""
    if tokenizer is None:
        return TextStream(None, None)
    from nanocupy.text import Detokenizer, StopStrings

    detokenizer = Detokenizer(tokenizer, prompt_ids)
    if not stops:
        return TextStream(detokenizer, None)
    hidden = tokenizer.special_texts
    return TextStream(detokenizer, StopStrings(stops, hidden.values()), hidden)
