"""SentencePiece's BPE in GGUF (`tokenizer.ggml.model` "llama") as the parts of a tokenizer.json.

GGUF has pieces with scores: of all neighbours that make a piece, those of the highest score are
merged first. A tokenizer.json has an ordered list of merges instead: every split of a piece into
two pieces, the best piece's first. Bytes that no piece has become `<0xNN>`.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanocupy.checkpoint.gguf.pre_tokenizers import Json, bpe_model

SPACE = "▁"
NORMAL, UNKNOWN, BYTE = 1, 2, 6  # llama.cpp's types of tokens


def spm_parts(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], *, space_prefix: bool
) -> Json:
    """Make the normalizer, decoder and model. ValueError: the scores do not fit the tokens.

    Args:
        space_prefix: whether a space is put before a text, and after a special token.
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
        "model": bpe_model(
            {token: i for i, token in enumerate(tokens)},
            merges(tokens, types, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=BYTE in types,
        ),
    }


def merges(tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]) -> list[str]:
    """The merges "left right", in order. (Texts are read faster than lists of two.)"""
    rows = zip(tokens, types, scores, strict=True)
    # A piece with a space is never merged: texts have SPACE for it.
    pieces = {token: s for token, kind, s in rows if kind == NORMAL and " " not in token}
    found: list[tuple[float, int, str, str]] = []
    for piece, score in pieces.items():
        for end in range(1, len(piece)):
            left, right = piece[:end], piece[end:]
            if left in pieces and right in pieces:
                found.append((-score, -end, left, right))
    found.sort(key=lambda pair: pair[:2])
    return [f"{left} {right}" for _, _, left, right in found]
