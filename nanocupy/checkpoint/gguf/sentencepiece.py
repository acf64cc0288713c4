"""SentencePiece's BPE in GGUF (`tokenizer.ggml.model` "llama") as the parts of a tokenizer.json.

GGUF has pieces with scores: of all neighbours that make a piece, those that make the one of the
highest score are joined first. A tokenizer.json has pairs in order instead. So every way to split a
piece into two others is a pair, the best piece's first. Bytes that no piece has become `<0xNN>`.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanocupy.checkpoint.gguf.pre_tokenizers import Json

SPACE = "▁"
NORMAL, UNKNOWN, BYTE = 1, 2, 6  # llama.cpp's types of tokens


def spm_parts(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], *, space_prefix: bool
) -> Json:
    """normalizer, decoder and model. ValueError where the scores do not fit the tokens.

    Args:
        space_prefix: whether a text, and what follows a special token, begins with a space.
    """
    if len(scores) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens but {len(scores)} scores")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    decoders: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if space_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = next((t for t, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [prepend, replace] if space_prefix else [replace],
        },
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": BYTE in types,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges(tokens, types, scores),
        },
    }


def merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[str]:
    """Every pair of pieces that makes a piece, "left right", in the order they are joined in.

    (As texts, not as lists of two, they are read in two thirds of the time.)
    """
    rows = zip(tokens, types, scores, strict=True)
    # A piece with a space is never made: texts have SPACE for it.
    pieces = {token: s for token, kind, s in rows if kind == NORMAL and " " not in token}
    found: list[tuple[float, int, str, str]] = []
    for piece, score in pieces.items():
        for end in range(1, len(piece)):
            left, right = piece[:end], piece[end:]
            if left in pieces and right in pieces:
                found.append((-score, -end, left, right))
    found.sort(key=lambda pair: pair[:2])
    return [f"{left} {right}" for _, _, left, right in found]
