"""Tiny models on disk, made on the fly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

HIDDEN, HEADS, KV_HEADS, MLP, LAYERS = 64, 4, 2, 96, 2
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def byte_letters() -> list[str]:
    """GPT-2's visible character for each byte."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    letters = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    return [letters[b] for b in range(256)]


MERGES = ("h e", "l l", "Ġ he")


def vocabulary(merges: Sequence[str] = MERGES) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their llama.cpp types, and merges: control tokens, bytes, what merges make."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *byte_letters(), *(m.replace(" ", "") for m in merges), "<think>"]
    return tokens, [3] * 3 + [1] * (256 + len(merges)) + [4], list(merges)


def spm_vocabulary() -> tuple[list[str], list[int], list[float]]:
    """Pieces, types and scores: control tokens, bytes, runs of spaces, and pieces of 1-4 letters
    of which some can be made in several ways."""
    rng = random.Random(5)
    letters = "▁abcABC12'!.é中你ПAa\n"
    some = {"".join(rng.choices("▁abA1é中", k=rng.randint(2, 4))) for _ in range(150)}
    made = sorted(some | {"▁▁", "aa", "aaa", "aaaa"})
    rng.shuffle(made)
    order = [*made, *sorted(set(letters))]  # single letters have the lowest scores
    control = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    user = ["  ", "   ", "<think>", "\n\n"]
    tokens = [*control, *data, *user, *order]
    types = [2, 3, 3, 3, 3, *[6] * 256, *[4] * 4, *[1] * len(order)]
    scores = [0.0] * (len(tokens) - len(order)) + [-float(i) for i in range(len(order))]
    return tokens, types, scores


def weights(rng: np.random.Generator, vocab_size: int = 263) -> dict[str, NDArray[np.float32]]:
    """Random float32 weights of a tied Llama, in GGUF's names (q and k rows permuted)."""
    kv = HIDDEN * KV_HEADS // HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (vocab_size, HIDDEN)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm": (HIDDEN,),
            f"blk.{i}.attn_q": (HIDDEN, HIDDEN),
            f"blk.{i}.attn_k": (kv, HIDDEN),
            f"blk.{i}.attn_v": (kv, HIDDEN),
            f"blk.{i}.attn_output": (HIDDEN, HIDDEN),
            f"blk.{i}.ffn_norm": (HIDDEN,),
            f"blk.{i}.ffn_gate": (MLP, HIDDEN),
            f"blk.{i}.ffn_up": (MLP, HIDDEN),
            f"blk.{i}.ffn_down": (HIDDEN, MLP),
        }
    shapes["output_norm"] = (HIDDEN,)
    return {
        f"{name}.weight": rng.standard_normal(shape, dtype=np.float32)
        for name, shape in shapes.items()
    }


def write_gguf(
    path: Path,
    kind: str = "Q4_1",
    *,
    arch: str = "llama",
    pre: str = "smollm",
    tokenizer: str = "gpt2",
    tensors: dict[str, NDArray[np.float32]] | None = None,
    extra: Sequence[tuple[str, object]] = (),
    merges: Sequence[str] = MERGES,
) -> dict[str, NDArray[np.float32]]:
    """Write a tiny Llama; matrices as `kind`, vectors as F32. Returns what it holds, float32."""
    if tensors is None:
        count = len((spm_vocabulary() if tokenizer == "llama" else vocabulary(merges))[0])
        tensors = weights(np.random.default_rng(0), count)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    for key, value in extra:
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    _write_tokenizer(writer, tokenizer, pre, merges)
    held = {name: _add(writer, name, array, kind) for name, array in tensors.items()}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def _write_tokenizer(writer: gguf.GGUFWriter, model: str, pre: str, merges: Sequence[str]) -> None:
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    if model == "llama":
        tokens, types, scores = spm_vocabulary()
        writer.add_token_scores(scores)
    else:
        tokens, types, _ = vocabulary(merges)
        writer.add_token_merges(list(merges))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _add(
    writer: gguf.GGUFWriter, name: str, array: NDArray[np.float32], kind: str
) -> NDArray[np.float32]:
    of = gguf.GGMLQuantizationType[kind if array.ndim == 2 else "F32"]
    raw = gguf.quants.quantize(array, of)
    writer.add_tensor(name, raw, raw_dtype=of)
    return gguf.quants.dequantize(raw, of)
