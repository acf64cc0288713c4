"""A Llama-family GGUF file's network: config.json and tensors under Hugging Face's names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint import affine
from nanocupy.checkpoint.gguf_file import GgufFile, GgufTensor
from nanocupy.checkpoint.writer import Entry

PLAIN = {"F32": 4, "F16": 2, "BF16": 2}
SUPPORTED = (*PLAIN, *affine.BLOCK_FORMATS)

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def module_of(name: str) -> str | None:
    """Hugging Face's name for a GGUF tensor, without `.weight`; None if it is unknown."""
    stem = name.rpartition(".")[0]
    if stem in _TOP:
        return _TOP[stem]
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if block is None or block[2] not in _BLOCK:
        return None
    return f"model.layers.{block[1]}.{_BLOCK[block[2]]}"


@dataclass(frozen=True)
class _Source:
    """A GGUF tensor and what becomes of it; `heads` > 0 where llama.cpp permuted its rows."""

    tensor: GgufTensor
    module: str
    leaf: str
    heads: int

    @property
    def quantised(self) -> affine.BlockFormat | None:
        return affine.BLOCK_FORMATS.get(self.tensor.kind)

    def read(self) -> dict[str, NDArray[Any]]:
        """The tensors it becomes, by their names in the safetensors file."""
        rows = self.tensor.rows
        if self.heads and len(self.tensor.shape) == 1:  # a bias: one value is one row
            rows = rows.reshape(self.tensor.shape[0], -1)
        if self.heads:
            rows = unpermute(rows, self.heads)
        if self.quantised is None:
            itemsize = PLAIN[self.tensor.kind]
            plain = np.ascontiguousarray(rows).view(f"<u{itemsize}")
            return {f"{self.module}.{self.leaf}": plain.reshape(self.tensor.shape)}
        return self._affine(rows)

    def _affine(self, rows: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        kind, scales = self.tensor.kind, affine.block_scales(self.tensor.kind, rows)
        biases = affine.block_biases(kind, rows)
        if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
            raise ValueError(f"GGUF tensor {self.tensor.name} holds a scale that is not finite")
        return {
            f"{self.module}.weight": affine.block_weight(kind, rows),
            f"{self.module}.scales": scales,
            f"{self.module}.biases": biases,
        }

    def entries(self) -> dict[str, Entry]:
        """What `read` will give, without converting the weights."""
        tensor, block = self.tensor, self.quantised
        if block is None:
            return {
                f"{self.module}.{self.leaf}": Entry(tensor.kind, tensor.shape, tensor.raw.nbytes)
            }
        rows, columns = tensor.shape
        words, groups = columns * block.bits // 32, columns // affine.GROUP
        bias = affine.block_biases(tensor.kind, tensor.rows).dtype
        return {
            f"{self.module}.weight": Entry("U32", (rows, words), rows * words * 4),
            f"{self.module}.scales": Entry("F16", (rows, groups), rows * groups * 2),
            f"{self.module}.biases": Entry(
                "F16" if bias == np.float16 else "F32",
                (rows, groups),
                rows * groups * bias.itemsize,
            ),
        }


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo llama.cpp's order of the rows of q and k: pairs (i, i + D/2) stand side by side there.

    rows is [heads * D, anything]; the result has Hugging Face's order, halves after one another.
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


class GgufModel:
    """The network in a GGUF file. ValueError names whatever is not supported."""

    def __init__(self, gguf: GgufFile) -> None:
        self._gguf = gguf
        arch = gguf.get("general.architecture", str)
        if arch != "llama":
            raise ValueError(f"{gguf.path}: architecture '{arch}' is not supported; 'llama' is")
        if gguf.get("llama.expert_count", int, 0):
            raise ValueError(f"{gguf.path}: mixtures of experts are not supported")
        self._sources = self._map()

    def _map(self) -> list[_Source]:
        tensors = [t for t in self._gguf.tensors.values() if t.name != "rope_freqs.weight"]
        kinds = sorted({t.kind for t in tensors} - set(SUPPORTED))
        if kinds:
            raise ValueError(
                f"{self._gguf.path} holds tensors of type {', '.join(kinds)}; "
                f"supported are {', '.join(SUPPORTED)}"
            )
        unknown = [t.name for t in tensors if module_of(t.name) is None]
        if unknown:
            raise ValueError(f"{self._gguf.path}: not tensors of a Llama: {', '.join(unknown)}")
        odd = [t.name for t in tensors if t.kind not in PLAIN and len(t.shape) != 2]
        if odd:
            raise ValueError(f"{self._gguf.path}: quantised, yet no matrices: {', '.join(odd)}")
        return [self._source(t) for t in tensors]

    def _source(self, tensor: GgufTensor) -> _Source:
        module = module_of(tensor.name)
        assert module is not None
        heads = {"attn_q": self._key("attention.head_count"), "attn_k": self.kv_heads}
        permuted = heads.get(tensor.name.split(".")[-2], 0)
        if permuted and tensor.shape[0] % (2 * permuted):
            raise ValueError(
                f"{self._gguf.path}: {tensor.name} has {tensor.shape[0]} rows, "
                f"which do not make {permuted} heads"
            )
        return _Source(tensor, module, tensor.name.rpartition(".")[2], permuted)

    def _key(self, name: str, default: int | None = None) -> int:
        return self._gguf.get(f"llama.{name}", int, default)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self._key("attention.head_count_kv", self._key("attention.head_count"))

    def entries(self) -> dict[str, Entry]:
        """Every tensor of the safetensors file, in the order `tensors` gives them."""
        return {k: e for source in self._sources for k, e in source.entries().items()}

    def tensors(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Every tensor, converted one at a time."""
        for source in self._sources:
            yield from source.read().items()

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        heads, hidden = self._key("attention.head_count"), self._key("embedding_length")
        config: dict[str, Any] = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": hidden,
            "intermediate_size": self._key("feed_forward_length"),
            "num_hidden_layers": self._key("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self._key("attention.key_length", hidden // heads),
            "max_position_embeddings": self._key("context_length"),
            "rms_norm_eps": self._float("attention.layer_norm_rms_epsilon"),
            "rope_theta": self._float("rope.freq_base", 10000.0),
            "rope_scaling": self._rope_scaling(),
            "vocab_size": self._gguf.tensors["token_embd.weight"].shape[0],
            "tie_word_embeddings": "output.weight" not in self._gguf.tensors,
            "attention_bias": "blk.0.attn_q.bias" in self._gguf.tensors,
            "mlp_bias": "blk.0.ffn_gate.bias" in self._gguf.tensors,
            "torch_dtype": self._dtype(),
        }
        self._check_head_dim(config["head_dim"])
        if quantization := self._quantization():
            config["quantization"] = quantization
        return config

    def _float(self, name: str, default: float | None = None) -> float:
        # GGUF holds float32; its shortest text is the number that was meant (1e-05).
        return float(str(np.float32(self._gguf.get(f"llama.{name}", float, default))))

    def _check_head_dim(self, head_dim: int) -> None:
        rotated = self._key("rope.dimension_count", head_dim)
        value = self._key("attention.value_length", head_dim)
        if rotated != head_dim or value != head_dim:
            raise ValueError(
                f"{self._gguf.path}: heads of {head_dim} with {rotated} rotated dimensions and "
                f"values of {value} are not supported: the three must be equal"
            )

    def _dtype(self) -> str:
        kinds = [s.tensor.kind for s in self._sources if len(s.tensor.shape) == 2]
        names = {"F32": "float32", "BF16": "bfloat16"}
        return names.get(max(set(kinds), key=kinds.count), "float16")

    def _quantization(self) -> dict[str, Any] | None:
        """MLX's config entry: the commonest format, and each module that differs from it."""
        bits = {s.module: s.quantised.bits for s in self._sources if s.quantised}
        if not bits:
            return None
        common = max(sorted(set(bits.values())), key=list(bits.values()).count)
        others = {
            m: {"group_size": affine.GROUP, "bits": b} for m, b in bits.items() if b != common
        }
        return {"group_size": affine.GROUP, "bits": common, **others}

    def _rope_scaling(self) -> dict[str, Any] | None:
        if "rope_freqs.weight" in self._gguf.tensors:
            return self._llama3_rope(self._gguf.tensors["rope_freqs.weight"])
        kind = self._gguf.get("llama.rope.scaling.type", str, "none")
        if kind == "none":
            return None
        if kind != "linear":
            raise ValueError(
                f"{self._gguf.path}: rope scaling '{kind}' is not supported; "
                f"'none', 'linear' and Llama 3's factors are"
            )
        return {"rope_type": "linear", "factor": self._float("rope.scaling.factor")}

    def _llama3_rope(self, factors: GgufTensor) -> dict[str, Any]:
        """GGUF keeps Llama 3's scaling as one factor per frequency; find the rule that gives it."""
        given = factors.raw.view("<f4") if factors.kind == "F32" else np.zeros(0, np.float32)
        theta = self._float("rope.freq_base", 10000.0)
        rule = {
            "rope_type": "llama3",
            "factor": float(given.max(initial=1.0)),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        expected = llama3_factors(theta, 2 * given.size, rule)
        if not given.size or not np.allclose(given, expected, rtol=1e-4):
            raise ValueError(
                f"{self._gguf.path}: rope_freqs.weight is not Llama 3's scaling from 8192 tokens"
            )
        return rule


def llama3_factors(theta: float, head_dim: int, rule: dict[str, Any]) -> NDArray[np.float64]:
    """What Llama 3's rope scaling divides each of the head_dim / 2 frequencies by."""
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / max(head_dim, 1))
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    original = rule["original_max_position_embeddings"]
    smooth = (original / wavelength - low) / (high - low)
    middle = 1 / ((1 - smooth) / rule["factor"] + smooth)
    factors = np.where(wavelength > original / low, rule["factor"], middle)
    return np.where(wavelength < original / high, 1.0, factors)
