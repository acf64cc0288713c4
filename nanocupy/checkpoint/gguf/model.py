"""A GGUF file's network as config.json and tensors with Hugging Face's names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint.gguf.architectures import Keys, architecture, refuse_unread
from nanocupy.checkpoint.gguf.blocks import BLOCK_FORMATS, bias_dtype, to_affine
from nanocupy.checkpoint.gguf.file import GgufFile, GgufTensor
from nanocupy.checkpoint.gguf.rope import rope_fields
from nanocupy.checkpoint.writer import Entry

PLAIN = {"F32": 4, "F16": 2, "BF16": 2}
SUPPORTED = (*PLAIN, *BLOCK_FORMATS)


@dataclass(frozen=True)
class _Source:
    """A matrix or vector of a GGUF tensor, and its conversion.

    Attributes:
        heads: above 0 where llama.cpp permuted its rows.
        plus_one: whether the file stores 1 more.
        expert: which matrix of a stack it is.
    """

    gguf: GgufFile
    tensor: GgufTensor
    module: str
    leaf: str
    heads: int
    plus_one: bool
    expert: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape if self.expert is None else self.tensor.shape[1:]

    @property
    def format(self) -> tuple[int, int] | None:
        """(bits, group) if it is quantised."""
        block = BLOCK_FORMATS.get(self.tensor.kind)
        return (block.bits, block.group) if block else None

    def rows(self) -> NDArray[np.uint8]:
        """The bytes in Hugging Face's order, uint8 [rows, bytes of a row]."""
        rows = self.gguf.raw(self.tensor)
        if self.expert is not None:
            rows = rows[self.expert * self.shape[0] : (self.expert + 1) * self.shape[0]]
        if self.heads and len(self.shape) == 1:  # a bias: a row for each value
            rows = rows.reshape(self.shape[0], -1)
        return unpermute(rows, self.heads) if self.heads else rows

    def read(self) -> dict[str, NDArray[Any]]:
        """The converted tensors, by their names in the safetensors file."""
        if self.format:
            try:
                parts = to_affine(self.tensor.kind, self.rows())
            except ValueError as error:
                raise ValueError(f"GGUF tensor {self.tensor.name}: {error}") from error
            return {f"{self.module}.{name}": part for name, part in parts._asdict().items()}
        itemsize = PLAIN[self.tensor.kind]
        plain: NDArray[Any] = np.ascontiguousarray(self.rows()).view(f"<u{itemsize}")
        if self.plus_one:
            plain = plain.view("<f4") - np.float32(1)
        return {f"{self.module}.{self.leaf}": plain.reshape(self.shape)}

    def entries(self) -> dict[str, Entry]:
        """The dtypes and shapes of what `read` returns, without converting the weights."""
        kind, block = self.tensor.kind, BLOCK_FORMATS.get(self.tensor.kind)
        if block is None:
            return {f"{self.module}.{self.leaf}": Entry.of(kind, self.shape)}
        rows, columns = self.shape
        groups = rows, columns // block.group
        bias = "F32" if bias_dtype(kind, self.rows()) == np.float32 else "F16"
        return {
            f"{self.module}.weight": Entry.of("U32", (rows, columns * block.bits // 32)),
            f"{self.module}.scales": Entry.of(block.scales, groups),
            f"{self.module}.biases": Entry.of(bias, groups),
        }


def unpermute(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Undo llama.cpp's order of the rows of q and k, where pairs (i, i + D/2) are neighbours.

    rows is [heads * D, anything]; in the result one half of each head follows the other.
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


class GgufModel:
    """The network in a GGUF file. ValueError names what is not supported."""

    def __init__(self, gguf: GgufFile) -> None:
        self._gguf = gguf
        self.name, self.arch = architecture(gguf)
        self._keys = Keys(gguf, self.name)
        self._sources = list(self._find_sources())

    def _find_sources(self) -> Iterator[_Source]:
        tensors = [t for t in self._gguf.tensors.values() if t.name not in self.arch.ignored]
        kinds = sorted({t.kind for t in tensors} - set(SUPPORTED))
        if kinds:
            raise ValueError(
                f"{self._gguf.path} holds tensors of type {', '.join(kinds)}; "
                f"supported are {', '.join(SUPPORTED)}"
            )
        unknown = [t.name for t in tensors if self.arch.module(t.name) is None]
        if unknown:
            named = f"{', '.join(unknown[:8])}{' and more' if len(unknown) > 8 else ''}"
            raise ValueError(f"{self._gguf.path}: not tensors of a '{self.name}': {named}")
        for tensor in tensors:
            yield from self._sources_of(tensor)

    def _sources_of(self, tensor: GgufTensor) -> Iterator[_Source]:
        module, leaf = self.arch.module(tensor.name), tensor.name.rpartition(".")[2]
        assert module is not None
        stack, dimensions = "{}" in module, len(tensor.shape)
        if dimensions > (3 if stack else 2) or (tensor.kind not in PLAIN and dimensions < 2):
            raise ValueError(
                f"{self._gguf.path}: {tensor.name} is {tensor.kind} {tensor.shape}, which no "
                f"weight of a '{self.name}' is"
            )
        one = self.arch.plus_one and leaf == "weight" and "norm" in module
        if one and tensor.kind != "F32":
            raise ValueError(f"{self._gguf.path}: {tensor.name} should be F32, not {tensor.kind}")
        heads = self._permuted_heads(tensor)
        if not stack:
            yield _Source(self._gguf, tensor, module, leaf, heads, one)
            return
        for expert in range(tensor.shape[0]):
            name = module.format(expert)
            yield _Source(self._gguf, tensor, name, leaf, heads, one, expert)

    def _permuted_heads(self, tensor: GgufTensor) -> int:
        if not self.arch.permuted:
            return 0
        heads = {"attn_q": self._keys.heads, "attn_k": self._keys.kv_heads}
        permuted = heads.get(tensor.name.split(".")[-2], 0) if tensor.name.count(".") > 1 else 0
        if permuted and tensor.shape[0] % (2 * permuted):
            raise ValueError(
                f"{self._gguf.path}: {tensor.name} has {tensor.shape[0]} rows, "
                f"which do not make {permuted} heads"
            )
        return permuted

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(int(np.prod(source.shape)) for source in self._sources)

    @property
    def loaded_nbytes(self) -> int:
        """Bytes of the imported weights in memory, where implied biases are not stored."""
        total = 0.0
        for source in self._sources:
            block, count = BLOCK_FORMATS.get(source.tensor.kind), int(np.prod(source.shape))
            if block is None:
                total += count * PLAIN[source.tensor.kind]
            else:
                numbers = (1 if block.symmetric else 2) * (4 if block.scales == "F32" else 2)
                total += count * (block.bits / 8 + numbers / block.group)
        return int(total)

    def entries(self) -> dict[str, Entry]:
        """The entries of the safetensors file, in the order of `tensors`."""
        return {k: e for source in self._sources for k, e in source.entries().items()}

    def tensors(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Every tensor, converted one at a time."""
        for source in self._sources:
            yield from source.read().items()
            self._gguf.release_pages(source.tensor)

    def config(self) -> dict[str, Any]:
        """The contents of config.json.

        Raises:
            ValueError: it asks for maths that is not supported.
        """
        keys, tensors = self._keys, self._gguf.tensors
        if "token_embd.weight" not in tensors:
            raise ValueError(f"{self._gguf.path} has no tensor token_embd.weight")
        rows = tensors["token_embd.weight"].shape[0]
        if keys.count("vocab_size", rows) != rows:
            raise ValueError(
                f"{self._gguf.path}: {self.name}.vocab_size {keys.count('vocab_size')}, and "
                f"token_embd.weight has {rows} rows"
            )
        config: dict[str, Any] = {
            "architectures": [self.arch.class_name],
            "model_type": self.arch.model_type,
            "hidden_act": "silu",
            "hidden_size": keys.count("embedding_length"),
            "intermediate_size": keys.count("feed_forward_length"),
            "num_hidden_layers": keys.count("block_count"),
            "num_attention_heads": keys.heads,
            "num_key_value_heads": keys.kv_heads,
            "head_dim": keys.head_dim,
            "max_position_embeddings": keys.count("context_length"),
            "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
            "vocab_size": rows,
            "tie_word_embeddings": "output.weight" not in tensors,
            "torch_dtype": self._dtype(),
            **rope_fields(keys),
            **self.arch.fields(keys),
        }
        if keys.count("attention.value_length", keys.head_dim) != keys.head_dim:
            raise ValueError(f"{self._gguf.path}: keys and values of different sizes")
        refuse_unread(self._gguf, self.name)
        if quantization := self.quantization():
            config["quantization"] = quantization
        return config

    def _dtype(self) -> str:
        kinds = [s.tensor.kind for s in self._sources if len(s.shape) == 2]
        names = {"F32": "float32", "BF16": "bfloat16"}
        common = max(sorted(set(kinds)), key=kinds.count) if kinds else ""
        gemma = self.arch.plus_one and common not in PLAIN  # its activations overflow float16
        return "bfloat16" if gemma else names.get(common, "float16")

    def quantization(self) -> dict[str, Any] | None:
        """MLX's config entry: the most common format, and each module with another."""
        formats = {s.module: s.format for s in self._sources if s.format}
        if not formats:
            return None
        common = max(sorted(set(formats.values())), key=list(formats.values()).count)
        others = {
            module: {"group_size": group, "bits": bits}
            for module, (bits, group) in formats.items()
            if (bits, group) != common
        }
        return {"group_size": common[1], "bits": common[0], **others}
