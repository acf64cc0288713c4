"""A tokenizer of single bytes, so that characters split over tokens, and parts to load it with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from engine.fake import EOS, VOCAB, FakeRunner
from nanocupy.text import TooLongError
from nanocupy.text.chat_template import Prompt

BOS = VOCAB - 2
BYTES = sorted(set("abcdefghijklmnopqrstuvwxyz .,!?:\n中é😀ABCDEFGHIJ".encode()))
assert len(BYTES) <= BOS


class FakeTokenizer:
    """Token i is the byte BYTES[i]; BOS, EOS and the padding ids in between have no text."""

    vocab_size = VOCAB
    bos_id: int | None = BOS
    eos_ids: tuple[int, ...] = (EOS,)
    special_ids = frozenset({BOS, EOS})
    special_texts = {BOS: "<bos>", EOS: "<eos>"}  # noqa: RUF012 (never changed)
    byte_level = True

    def encode(self, text: str, add_special: bool = True, limit: int | None = None) -> list[int]:
        try:
            ids = [BYTES.index(byte) for byte in text.encode()]
        except UnicodeEncodeError:
            raise ValueError("[tokenizer] text must be valid Unicode") from None
        if limit is not None and len(ids) > limit:
            raise TooLongError(len(ids), limit, least=False)
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return b"".join(self.token_bytes(token) for token in ids).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return bytes([BYTES[token]]) if token < len(BYTES) else b""

    def token_text(self, token: int) -> str:
        return self.token_bytes(token).decode(errors="replace")


class FakeTemplate:
    """`role: content` lines, then the role that is to answer."""

    def apply(
        self,
        tokenizer: FakeTokenizer,
        messages: Any,
        add_generation_prompt: bool | None = None,
        limit: int | None = None,
        continue_final_message: bool = False,
        **extra: Any,
    ) -> Prompt:
        json.dumps(extra)
        text = "".join(f"{m['role']}: {m['content']}\n" for m in messages).lower()
        if continue_final_message:
            text = text.removesuffix("\n")
        elif add_generation_prompt is not False:
            text += "assistant: "
        return Prompt(text, tokenizer.encode(text, add_special=False, limit=limit))


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
    ends = (generation_config or {}).get("eos_token_id", [])  # as a Tokenizer reads its folder
    tokenizer.eos_ids = (EOS, *(ends if isinstance(ends, list) else [ends]))
    return SimpleNamespace(
        runner=runner or FakeRunner(),
        tokenizer=tokenizer,
        chat_template=lambda: FakeTemplate() if chat else None,
        config=SimpleNamespace(eos_token_ids=(EOS,)),
        generation_config=dict(generation_config or {}),
    )


def cut(text: str, stops: Sequence[str]) -> str:
    """`text` up to the stop string that is complete first, the longest of those."""
    for end in range(len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)]
    return text
