"""Tokenizers made on the fly: GPT-2's byte-level kind, and Llama 2's with byte fallback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

MARKUP = ["<|im_start|>", "<|im_end|>", "<|end|>"]
OWN = ["<think>", "</think>", "<tool_call>"]


def save(tokenizer: Tokenizer, folder: Path, template: str = "", **config: Any) -> Path:
    """A folder with everything about text that a model folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": MARKUP[0], "eos_token": {"content": MARKUP[1]}, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    if template:
        (folder / "chat_template.jinja").write_bytes(template.encode())
    return folder


def byte_level() -> Tokenizer:
    """All 256 bytes, some merges, three special tokens, three that are not, and a run of spaces."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("Ġ", "he"), ("he", "ll"), ("i", "m"), ("<", "|"), ("|", ">")]
    merges += [("ä", "½"), ("ä½", "ł")]  # 你 is a token, other Chinese is bytes
    vocab = {token: i for i, token in enumerate([*letters, *("".join(m) for m in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in MARKUP])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in [*OWN, "    "]])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """Llama 2's kind: `▁` for spaces, `<0x..>` for bytes that no token spells."""
    words = ["▁", "▁he", "he", "l", "o", "h", "e", "▁l", "é", "中", "<", ">", "|"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("h", "e"), ("▁", "he"), ("▁", "l")]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    return tokenizer
