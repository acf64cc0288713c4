"""LowerBound: how many tokens a text has at least, computed without tokenising it.

A token stands for at most as many characters as its name has, unless the tokenizer drops some. If
one of its parts may drop or fold characters, or is not known here, the bound is 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_COMPOSED = ("NFC", "NFKC")  # three characters may become one of two bytes: U+01D5
_KEEPING = ("NFD", "NFKD", "Lowercase", "Prepend", "ByteLevel", *_COMPOSED)
_SPLITTING = ("ByteLevel", "Digits", "Metaspace", "UnicodeScripts")
_CHUNK = 1 << 20  # characters that are looked at in a few milliseconds
_GAPS = 1 << 16  # ids without a token that a vocabulary may have
_NEEDED = {*range(0x80, 0xF1)} - {0xC0, 0xC1}  # bytes of UTF-8; others begin rare characters


class LowerBound:
    """The bound for one tokenizer. Making it reads the whole vocabulary once.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        byte_letters: the letters that stand for bytes in byte-level vocabularies.
    """

    def __init__(self, tokenizer: Any, byte_letters: Mapping[str, int]) -> None:
        normalizers, splits = parts(tokenizer.normalizer), parts(tokenizer.pre_tokenizer)
        longest = _longest(tokenizer)
        self._longest = longest or 1
        self._shrinking = any(kind.get("type") in _COMPOSED for kind in normalizers)
        self._lost: list[str] | None = None
        if longest and all(map(_keeps, normalizers)) and all(map(_splits, splits)):
            byte_level = any(kind.get("type") == "ByteLevel" for kind in (*normalizers, *splits))
            self._lost = _lost(tokenizer, byte_letters if byte_level else None)
        added = tokenizer.get_added_tokens_decoder().values()
        self._swallowing = [t.content for t in added if t.lstrip or t.rstrip]  # spaces around them

    def __call__(self, text: str, enough: int | None = None) -> int:
        """The least number of tokens of `text`, without special tokens around it.

        Args:
            enough: stop counting above this.
        """
        if self._lost is None or any(_holds(text, token) for token in self._swallowing):
            return 0
        kept = tokens = 0
        for start in range(0, len(text), _CHUNK):
            part = text[start : start + _CHUNK]
            kept += len(part) - sum(part.count(letter) for letter in self._lost)
            tokens = -(-(kept * 2 // 3 if self._shrinking else kept) // self._longest)
            if enough is not None and tokens > enough:
                break
        return tokens


def _holds(text: str, token: str) -> bool:
    """`token in text`, in parts, so that other threads get their turn."""
    size = _CHUNK + len(token)
    return any(token in text[start : start + size] for start in range(0, len(text), _CHUNK))


def parts(component: Any) -> list[dict[str, Any]]:
    """The parts of a normalizer, pre-tokenizer or decoder, as in tokenizer.json."""
    return list(_flat(json.loads(component.__getstate__()))) if component is not None else []


def max_growth(components: Iterable[Mapping[str, Any]]) -> float:
    """How many times longer a text may become. Eight replacements by 16 letters fill any memory."""
    times = 1.0
    for part in components:
        if part.get("type") == "Replace":
            times *= max(1.0, len(part["content"]) / len(part["pattern"].get("String") or "a"))
        elif part.get("type") == "Prepend":
            times += len(part["prepend"])
    return times


def _flat(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if said.get("type") != "Sequence":
        yield said
        return
    kinds = ("normalizers", "pretokenizers", "decoders")
    for inner in next((said[kind] for kind in kinds if kind in said), ()):
        yield from _flat(inner)


def _longest(tokenizer: Any) -> int | None:
    """Characters of the longest name, read one by one so that other threads get their turn. None
    if ids are so far apart that this would take too long."""
    size, seen, longest = tokenizer.get_vocab_size(with_added_tokens=True), 0, 1
    for index in range(2 * size + _GAPS):
        if seen == size:
            return longest
        if (name := tokenizer.id_to_token(index)) is not None:
            seen, longest = seen + 1, max(longest, len(name))
    return None


def _keeps(normalizer: Mapping[str, Any]) -> bool:
    """Whether it keeps all characters."""
    if normalizer.get("type") == "Replace":
        pattern = normalizer["pattern"].get("String")
        return pattern is not None and len(normalizer["content"]) >= len(pattern)
    return normalizer.get("type") in _KEEPING


def _splits(pre_tokenizer: Mapping[str, Any]) -> bool:
    """Whether it splits without removing characters."""
    if pre_tokenizer.get("type") in ("Split", "Punctuation"):
        return pre_tokenizer.get("behavior") != "Removed"
    return pre_tokenizer.get("type") in _SPLITTING


def _lost(tokenizer: Any, byte_letters: Mapping[str, int] | None) -> list[str] | None:
    """The characters that may have no token of their own; None if there are many."""
    if type(tokenizer.model).__name__ != "BPE":
        return None
    if byte_letters is None:
        names = (f"<0x{byte:02X}>" for byte in range(256))
        falls_back = tokenizer.model.byte_fallback
        return [] if falls_back and None not in map(tokenizer.token_to_id, names) else None
    missing = [b for letter, b in byte_letters.items() if tokenizer.token_to_id(letter) is None]
    if any(byte in _NEEDED for byte in missing):
        return None
    return [chr(byte) for byte in missing if byte < 0x80]
