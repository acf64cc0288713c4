"""A tokenizer of single bytes, so that characters split over tokens, and the text tools for it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from engine.fake import EOS, VOCAB, FakeRunner
from nanocupy.engine.detokenize import TextStream

BOS = VOCAB - 2
BYTES = sorted(set("abcdefghijklmnopqrstuvwxyz .,!?:\n中é😀ABCDEFGHIJ".encode()))
assert len(BYTES) <= BOS


class FakeTokenizer:
    """Token i is the byte BYTES[i]; BOS, EOS and the padding ids in between have no text."""

    vocab_size = VOCAB
    bos_id: int | None = BOS
    eos_ids = (EOS,)

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        try:
            return [BYTES.index(byte) for byte in text.encode()]
        except UnicodeEncodeError:
            raise ValueError("[tokenizer] text must be valid Unicode") from None

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return b"".join(self.token_bytes(token) for token in ids).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return bytes([BYTES[token]]) if token < len(BYTES) else b""

    def token_text(self, token: int) -> str:
        return self.token_bytes(token).decode(errors="replace")


class FakeDetokenizer:
    """Whole characters only; bytes that are no character become U+FFFD, as in `decode`."""

    def __init__(self, tokenizer: FakeTokenizer, prompt_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self.decoder.decode(self.tokenizer.token_bytes(token))

    def finish(self) -> str:
        return self.decoder.decode(b"", final=True)


class FakeStops:
    """Holds back what may become a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held = stops, ""

    def feed(self, text: str) -> tuple[str, str | None]:
        emitted = ""
        for char in text:
            self.held += char
            for stop in self.stops:
                if self.held.endswith(stop):
                    return emitted + self.held[: -len(stop)], stop
            keep = max(
                n
                for n in range(len(self.held) + 1)
                if n == 0 or any(stop.startswith(self.held[-n:]) for stop in self.stops)
            )
            emitted += self.held[: len(self.held) - keep]
            self.held = self.held[len(self.held) - keep :]
        return emitted, None

    def finish(self) -> str:
        held, self.held = self.held, ""
        return held


def fake_text_stream(tokenizer: Any, prompt_ids: Sequence[int], stops: Sequence[str]) -> TextStream:
    """`text_stream` with the fakes above."""
    detokenizer: Any = FakeDetokenizer(tokenizer, prompt_ids)
    held: Any = FakeStops(stops) if stops else None
    return TextStream(detokenizer, held)


class FakeTemplate:
    """`role: content` lines, then the role that is to answer."""

    def render(self, messages: Any, add_generation_prompt: bool = True, **extra: Any) -> str:
        json.dumps(extra)
        text = "".join(f"{m['role']}: {m['content']}\n" for m in messages)
        return text.lower() + ("assistant: " if add_generation_prompt else "")

    def encode(self, tokenizer: FakeTokenizer, messages: Any, **template: Any) -> list[int]:
        return tokenizer.encode(self.render(messages, **template), add_special=False)


def loaded(
    runner: FakeRunner | None = None,
    *,
    generation_config: Mapping[str, Any] | None = None,
    chat: bool = True,
    bos: bool = True,
) -> Any:
    """What `runner.load` returns, made of fakes."""
    tokenizer = FakeTokenizer()
    tokenizer.bos_id = BOS if bos else None
    return SimpleNamespace(
        runner=runner or FakeRunner(),
        tokenizer=tokenizer,
        chat_template=FakeTemplate() if chat else None,
        config=SimpleNamespace(eos_token_ids=(EOS,)),
        generation_config=dict(generation_config or {}),
    )


def cut(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first stop string in it (the earliest to be complete wins)."""
    for end in range(len(text) + 1):
        for stop in stops:
            if text[:end].endswith(stop):
                return text[: end - len(stop)]
    return text
