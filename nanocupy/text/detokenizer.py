"""From tokens to text that can be shown: never half a character, never part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence

from nanocupy.text.stop_strings import StopStrings
from nanocupy.text.tokenizer import Tokenizer

_HALF = "\ufffd"
_CONTEXT = 6  # tokens of the prompt on which the first token's spacing may depend
_LONGEST = 16  # tokens to wait for a whole character, which has at most 4 bytes


class Detokenizer:
    """The text of an answer while its tokens arrive. Special tokens have no text.

    For byte-level vocabularies, what `feed` and `finish` return is `tokenizer.decode(ids)`, in
    parts. For others (sentencepiece) it is what `ids` add to the decoded prompt, if their bytes
    make whole characters. An id below 0 is a ValueError.

    Attributes:
        feed: returns the whole characters that a token completes; often "" or a word.
        finish: returns the rest, when no token follows; half a character becomes U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()) -> None:
        decoder = _Bytes(tokenizer) if tokenizer.byte_level else _Window(tokenizer, prompt_ids)
        self.feed: Callable[[int], str] = decoder.feed
        self.finish: Callable[[], str] = decoder.finish


class TextStream:
    """The text of one answer, token by token, cut before its stop strings.

    Without a detokenizer the text is empty and nothing stops. `hidden` is the text of each token
    that is not shown: stop strings may spell it.
    """

    def __init__(
        self,
        detokenizer: Detokenizer | None = None,
        stops: StopStrings | None = None,
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
        """Return the text that `token` makes visible, and the stop string it completes, if any."""
        if self._detokenizer is None:
            return "", None
        text = self._detokenizer.feed(token)
        if self._stops is not None and may_stop:
            return self._cut(self._stops, text, self._hidden.get(token, ""))
        self._parts.append(text)
        return text, None

    def end(self, token: int) -> tuple[str, str | None]:
        """Do as `feed` for a token that ends the answer and is not shown, whatever its text."""
        if self._stops is None:
            return "", None
        return self._cut(self._stops, "", self._hidden.get(token, ""))

    def finish(self) -> tuple[str, str | None]:
        """Return what was held back, now that no token follows."""
        if self._detokenizer is None:
            return "", None
        text, stopped = self._detokenizer.finish(), None
        if self._stops is not None:
            text, stopped = self._cut(self._stops, text, "")
            if stopped is None:
                self._parts.append(held := self._stops.finish())
                return text + held, None
        else:
            self._parts.append(text)
        return text, stopped

    def _cut(self, stops: StopStrings, text: str, hidden: str) -> tuple[str, str | None]:
        text, stopped = stops.feed(text, hidden)
        self._parts.append(text)
        return text, stopped


def text_stream(
    tokenizer: Tokenizer | None, prompt_ids: Sequence[int], stops: Sequence[str]
) -> TextStream:
    """Make the TextStream of an answer to `prompt_ids`."""
    if tokenizer is None:
        return TextStream()
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    if not stops:
        return TextStream(detokenizer)
    hidden = tokenizer.special_texts
    return TextStream(detokenizer, StopStrings(stops, hidden.values()), hidden)


class _Bytes:
    """Byte-level tokens are bytes: decode UTF-8 as it arrives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        if token_id in self._tokenizer.special_ids:
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _Window:
    """Other tokens depend on those before them: decode a window, and return what is new."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt_ids[-_CONTEXT:])
        self._given = len(self._ids)  # tokens whose text was returned

    def feed(self, token_id: int) -> str:
        if token_id in self._tokenizer.special_ids:
            return ""
        self._ids.append(token_id)
        text = self._new()
        if text.endswith(_HALF) and len(self._ids) - self._given < _LONGEST:
            return ""
        return self._give(text)

    def finish(self) -> str:
        return self._give(self._new())

    def _new(self) -> str:
        before = self._tokenizer.decode(self._ids[: self._given])
        return self._tokenizer.decode(self._ids)[len(before) :]

    def _give(self, text: str) -> str:
        if text:  # it has whole characters only: the window can begin with it
            self._ids = self._ids[self._given :]
            self._given = len(self._ids)
        return text
