"""The pre-tokenizers that GGUF names in `tokenizer.ggml.pre`, and models, as in tokenizer.json.

GGUF stores only a name; the rules are in llama.cpp's source. A wrong rule gives wrong tokens and no
error, so other names are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT2: Json = {**_BYTES, "use_regex": True}
_DIGITS: Json = {"type": "Digits", "individual_digits": True}

_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = (_ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|") + _SPACES
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_ENDINGS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)


def bpe_model(vocab: dict[str, int], merges: list[str], **options: Any) -> Json:
    """The "model" of a tokenizer.json."""
    defaults = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False,
    }  # fmt: skip
    return {**defaults, **options, "vocab": vocab, "merges": merges}


def _split(regex: str) -> Json:
    """Split by a regex, then map bytes to characters, as tiktoken."""
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**_BYTES, "use_regex": False}]}


_DIGITS_GPT2: Json = {"type": "Sequence", "pretokenizers": [_DIGITS, _GPT2]}


@dataclass(frozen=True)
class PreTokenizer:
    """The rule of a name: the split, whether whole words skip the merges, and BOS."""

    rule: Json
    ignore_merges: bool = False
    add_bos: bool = False
    normalizer: Json | None = None


_LLAMA3 = PreTokenizer(_split(_WORDS % r"\p{N}{1,3}"), ignore_merges=True, add_bos=True)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(_GPT2),
    "smollm": PreTokenizer(_DIGITS_GPT2),
    "starcoder": PreTokenizer(_DIGITS_GPT2),
    "refact": PreTokenizer(_DIGITS_GPT2),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": PreTokenizer(_split(_WORDS % r"\p{N}{1,3}")),
    "dbrx": PreTokenizer(_split(_WORDS % r"\p{N}{1,3}")),
    "olmo": PreTokenizer(_GPT2),
    "phi-2": PreTokenizer(_GPT2),
    "gpt-4o": PreTokenizer(_split(_O200K)),
    "qwen2": PreTokenizer(_split(_WORDS % r"\p{N}"), normalizer={"type": "NFC"}),
    "deepseek-r1-qwen": PreTokenizer(_split(_WORDS % r"\p{N}")),
    "tekken": PreTokenizer(_split(_TEKKEN), ignore_merges=True, add_bos=True),
}


def pre_tokenizer(name: str) -> PreTokenizer:
    """The rule of a `tokenizer.ggml.pre`; ValueError names those that are known."""
    if name not in PRE_TOKENIZERS:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise ValueError(
            f"tokenizer.ggml.pre is '{name}', whose splitting rules are not known here. "
            f"Known: {known}. Use the model's Hugging Face folder, which has its tokenizer.json."
        )
    return PRE_TOKENIZERS[name]
