"""Tiny Llamas in the quantised layouts of other programs, and the weights they stand for.

Every packer writes codes as the format's own documentation does, word by word, and gives the
weight by the format's own formula. Nothing is taken from the package that reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from checkpoint import tiny
from nanocupy.checkpoint import convert_gguf
from nanocupy.checkpoint.writer import Entry, write_safetensors

Array = np.ndarray
Tensors = dict[str, Array]
WEIGHTS = "model.safetensors"
HIDDEN, HEADS, KV_HEADS, MLP, LAYERS = 192, 6, 2, 320, 2
BF16, F8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
NAMES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    BF16: "BF16",
    F8: "F8_E4M3",
    np.dtype(np.int8): "I8",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
    np.dtype(np.uint32): "U32",
}


class Kind(NamedTuple):
    """A layout: what config.json says, and `make(n, k, rng)`: one module and its weight [n, k]."""

    config: dict[str, Any]
    make: Callable[[int, int, np.random.Generator], tuple[Tensors, Array]]
    ordered: bool = False


def save(path: Path, tensors: Tensors) -> None:
    entries = {n: Entry(NAMES[t.dtype], t.shape, t.nbytes) for n, t in tensors.items()}
    write_safetensors(path, entries, iter(tensors.items()), {"format": "pt"})


def words(codes: Array, bits: int, order: tuple[int, ...] | None = None) -> Array:
    """Codes [..., C] as int32 [..., C*bits/32]; part i of a word is code order[i], low first."""
    per = 32 // bits
    out = np.zeros((*codes.shape[:-1], codes.shape[-1] // per), np.uint32)
    for i in range(per):
        out |= codes[..., (order or range(per))[i] :: per].astype(np.uint32) << np.uint32(bits * i)
    return out.view(np.int32)


def drawn(shape: tuple[int, ...], bits: int, rng: np.random.Generator) -> Array:
    return rng.integers(0, 1 << bits, shape).astype(np.int64)


def scale(shape: tuple[int, ...], bits: int, rng: np.random.Generator, dtype: Any) -> Array:
    return (rng.uniform(0.5, 1.5, shape) * 0.3 / (1 << bits)).astype(dtype)


def per_input(numbers: Array, k: int) -> Array:
    """[n, groups] -> [n, k]."""
    return np.repeat(numbers, k // numbers.shape[1], axis=1)


# ---- AWQ: (q - z) * s; along N, part i of a word holds column (0, 2, 4, 6, 1, 3, 5, 7)[i]


def awq(group: int, dtype: Any = np.float16, zero: int | None = None) -> Kind:
    order = (0, 2, 4, 6, 1, 3, 5, 7)

    def make(n: int, k: int, rng: np.random.Generator) -> tuple[Tensors, Array]:
        q, s = drawn((k, n), 4, rng), scale((k // group, n), 4, rng, dtype)
        z = drawn((k // group, n), 4, rng) if zero is None else np.full((k // group, n), zero)
        tensors = {"qweight": words(q, 4, order), "qzeros": words(z, 4, order), "scales": s}
        weight = (q - np.repeat(z, group, 0)) * np.repeat(s.astype(np.float64), group, 0)
        return tensors, weight.T

    said = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True}
    return Kind({**said, "version": "gemm", "modules_to_not_convert": None}, make)


# ---- GPTQ: s[g] * (q - z[g]), g = g_idx[k]; qweight along K, qzeros along N; version 1 has words
# of zero points less a word of ones, as GPTQModel writes and reads them


def gptq(
    bits: int,
    group: int,
    version: int = 1,
    *,
    sym: bool = False,
    order: bool = False,
    dtype: Any = np.float16,
    g_idx: bool = True,
) -> Kind:
    def make(n: int, k: int, rng: np.random.Generator) -> tuple[Tensors, Array]:
        each = k if group == -1 else group
        groups = np.arange(k) // each
        if order:
            groups = rng.permutation(groups)
        q, s = drawn((k, n), bits, rng), scale((k // each, n), bits, rng, dtype)
        z = np.full(s.shape, 1 << (bits - 1)) if sym else drawn(s.shape, bits, rng)
        ones = {4: 0x11111111, 8: 0x01010101}[bits] if version == 1 else 0
        tensors = {
            "qweight": np.ascontiguousarray(words(q.T, bits).T),
            "qzeros": (words(z, bits).view(np.uint32) - np.uint32(ones)).view(np.int32),
            "scales": s,
            "bias": np.zeros(n, dtype),  # as AutoGPTQ wrote for every layer
        }
        if g_idx:
            tensors["g_idx"] = groups.astype(np.int32)
        return tensors, (s[groups].astype(np.float64) * (q - z[groups])).T

    said: dict[str, Any] = {"quant_method": "gptq", "bits": bits, "group_size": group}
    said |= {"desc_act": order, "sym": sym}
    if version == 2:
        said["checkpoint_format"] = "gptq_v2"
    return Kind(said, make, order)


# ---- compressed-tensors: (q - z) * s for signed q, z, stored with 2^(bits-1) added


def compressed(
    bits: int,
    group: int | None,
    *,
    asym: bool = False,
    order: bool = False,
    dtype: Any = BF16,
    early: bool = False,
) -> Kind:
    """early: zero points are not packed."""

    def make(n: int, k: int, rng: np.random.Generator) -> tuple[Tensors, Array]:
        each, half = group or k, 1 << (bits - 1)
        groups = rng.permutation(k) // each if order else np.arange(k) // each
        q, s = drawn((n, k), bits, rng) - half, scale((n, k // each), bits, rng, dtype)
        z = drawn(s.shape, bits, rng) - half if asym else np.zeros(s.shape, np.int64)
        tensors = {
            "weight_packed": words(q + half, bits),
            "weight_scale": s,
            "weight_shape": np.array([n, k], np.int64),
        }
        if early:
            tensors["weight_zero_point"] = z.astype(np.int8)
        elif asym:
            tensors["weight_zero_point"] = np.ascontiguousarray(words((z + half).T, bits).T)
        if order:
            tensors["weight_g_idx"] = groups.astype(np.int32)
        return tensors, (q - z[:, groups]) * s[:, groups].astype(np.float64)

    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": not asym,
        "strategy": "group" if group else "channel",
        "group_size": group,
        "actorder": "group" if order else None,
    }
    return Kind(_scheme("pack-quantized", weights, None), make, order)


def _scheme(form: str, weights: dict[str, Any], activations: Any) -> dict[str, Any]:
    group = {"weights": weights, "input_activations": activations, "targets": ["Linear"]}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "sparsity_config": {},
        "transform_config": {},
    }


# ---- 8-bit floats: w * s


def floats(strategy: str, dtype: Any = BF16) -> Kind:
    """compressed-tensors' float-quantized."""

    def make(n: int, k: int, rng: np.random.Generator) -> tuple[Tensors, Array]:
        w = rng.standard_normal((n, k)).astype(F8)
        if strategy == "block":
            s, wide = _blocks(n, k, rng, dtype)
        else:
            s = scale((n, 1) if strategy == "channel" else (1,), 0, rng, dtype)
            wide = np.broadcast_to(s.astype(np.float32).reshape(-1, 1), (n, k))
        tensors = {"weight": w, "weight_scale": s}
        if strategy == "tensor":
            tensors["input_scale"] = np.ones(1, np.float32)
        return tensors, (w.astype(np.float32) * wide).astype(BF16)

    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy}
    weights["block_structure"] = [32, 64] if strategy == "block" else None
    return Kind(_scheme("float-quantized", weights, {"num_bits": 8, "type": "float"}), make)


def whole_fp8() -> Kind:
    """fp8 with one scale a matrix, as AutoFP8 wrote it for vLLM."""
    said = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    return Kind(said, floats("tensor", np.float32).make)


def fp8() -> Kind:
    """Hugging Face's fp8, in blocks that the matrices are no multiples of."""

    def make(n: int, k: int, rng: np.random.Generator) -> tuple[Tensors, Array]:
        w = rng.standard_normal((n, k)).astype(F8)
        s, wide = _blocks(n, k, rng, np.float32, (80, 72))
        return {"weight": w, "weight_scale_inv": s}, (w.astype(np.float32) * wide).astype(BF16)

    said = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    return Kind({**said, "weight_block_size": [80, 72]}, make)


def _blocks(
    n: int, k: int, rng: np.random.Generator, dtype: Any, block: tuple[int, int] = (32, 64)
) -> tuple[Array, Array]:
    s = scale((-(-n // block[0]), -(-k // block[1])), 0, rng, dtype)
    wide = s[np.arange(n)[:, None] // block[0], np.arange(k) // block[1]].astype(np.float32)
    return s, wide


KINDS = {
    "awq": awq(32),
    "awq, one zero point": awq(32, zero=8),
    "gptq": gptq(4, 32),
    "gptq, sym": gptq(4, 32, sym=True),
    "gptq, act-order": gptq(4, 32, order=True),
    "gptq, 8 bits": gptq(8, 32, dtype=BF16),
    "gptq, 8 bits, sym, one group, no g_idx": gptq(8, -1, sym=True, g_idx=False, dtype=BF16),
    "gptq_v2": gptq(4, 32, 2),
    "gptq_v2, 8 bits, act-order": gptq(8, 32, 2, order=True),
    "compressed-tensors": compressed(4, 32, dtype=np.float16),
    "compressed-tensors, asymmetric": compressed(4, 32, asym=True),
    "compressed-tensors, early": compressed(4, 32, asym=True, early=True),
    "compressed-tensors, 8 bits, channel": compressed(8, None),
    "compressed-tensors, 8 bits, asymmetric": compressed(8, 32, asym=True),
    "compressed-tensors, actorder": compressed(4, 32, order=True, dtype=np.float16),
    "fp8, tensor": floats("tensor"),
    "fp8, channel": floats("channel"),
    "fp8, block": floats("block"),
    "fp8 of transformers": fp8(),
    "fp8 of AutoFP8": whole_fp8(),
}
"""Few forms of what they are read as, so that few kernels are compiled for them."""

# ---- whole models


def folder(path: Path) -> Path:
    """A model folder with a tokenizer, but neither config.json nor weights."""
    tiny.write_gguf(path.with_suffix(".gguf"))
    convert_gguf(path.with_suffix(".gguf"), path, progress=False)
    (path / WEIGHTS).unlink()
    return path


def config(**changed: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "vocab_size": 263,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **changed,
    }


def shapes() -> dict[str, tuple[int, int]]:
    """(n, k) of every linear layer, by module."""
    kv = HIDDEN // HEADS * KV_HEADS
    attention = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (kv, HIDDEN), "v_proj": (kv, HIDDEN)}
    attention["o_proj"] = HIDDEN, HIDDEN
    mlp = {"gate_proj": (MLP, HIDDEN), "up_proj": (MLP, HIDDEN), "down_proj": (HIDDEN, MLP)}
    layer = {f"self_attn.{n}": s for n, s in attention.items()}
    layer |= {f"mlp.{n}": s for n, s in mlp.items()}
    return {f"model.layers.{i}.{n}": s for i in range(LAYERS) for n, s in layer.items()}


def others(rng: np.random.Generator) -> Tensors:
    """What no format quantises."""
    found = {"model.embed_tokens.weight": rng.standard_normal((263, HIDDEN)).astype(BF16)}
    norms = [
        f"model.layers.{i}.{n}_layernorm"
        for i in range(LAYERS)
        for n in ("input", "post_attention")
    ]
    for name in [*norms, "model.norm"]:
        found[f"{name}.weight"] = rng.uniform(0.5, 1.5, HIDDEN).astype(BF16)
    return found


def write(path: Path, kind: Kind) -> dict[str, Array]:
    """A model in `path`, and beside it (`dense`) the one that it stands for. The latter's weights.

    Modules that take the same inputs are sorted alike, as GPTQ does.
    """
    rng = np.random.default_rng(3)
    packed, dense = others(rng), {}
    for number, (module, (n, k)) in enumerate(shapes().items()):
        part = number % 7
        own = np.random.default_rng([number // 7, (0, 0, 0, 1, 2, 2, 3)[part]])
        tensors, weight = kind.make(n, k, own if kind.ordered else rng)
        packed |= {f"{module}.{leaf}": tensor for leaf, tensor in tensors.items()}
        dense[f"{module}.weight"] = weight
    folder(path)
    (path / "config.json").write_text(json.dumps(config(quantization_config=kind.config)))
    save(path / WEIGHTS, packed)
    plain = folder(path.with_name(path.name + "-dense"))
    (plain / "config.json").write_text(json.dumps(config()))
    wide = {n: w if w.dtype == BF16 else w.astype(np.float32) for n, w in dense.items()}
    rest = {
        n: t
        for n, t in packed.items()
        if n.startswith(("model.embed", "model.norm")) or "layernorm" in n
    }
    save(plain / WEIGHTS, {**rest, **wide})
    return dense
