"""What a model on disk holds: parameters, bytes by how they are stored, bytes one token needs."""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanocupy.checkpoint import Checkpoint, ModelConfig, TensorInfo

EMBEDDING = "model.embed_tokens."


class ModelFacts:
    """Facts about a known name, a folder or a hub id; only headers are read.

    Args:
        quantize: bits, where floats are quantised on loading: `bytes_per_step` is of the codes.
    """

    def __init__(self, model: str, quantize: int | None = None) -> None:
        from nanocupy import checkpoint

        self.name = model
        self.folder: Path = checkpoint.resolve(model)
        with checkpoint.Checkpoint(self.folder) as weights:
            self.config: ModelConfig = weights.config
            self.tensors: dict[str, TensorInfo] = {n: weights.info(n) for n in weights.names()}
            if quantize:
                self._quantise(weights, quantize)

    def _quantise(self, weights: Checkpoint, bits: int) -> None:
        from nanocupy.engine.load import GROUP
        from nanocupy.models.load import match, to_quantize

        model, wanted = match(weights)
        for path in to_quantize(weights, model, (bits, GROUP)):
            info = self.tensors[wanted[f"{path}.weight"]]
            values = math.prod(info.shape)
            numbers = 2 * info.nbytes // GROUP  # scales and biases have the weight's dtype
            self.tensors[info.name] = info._replace(nbytes=values * bits // 8 + numbers)

    def bits(self, name: str) -> int | None:
        """Bits per element of an affine-quantised weight, its scales and its biases; else None."""
        module, _, leaf = name.rpartition(".")
        if (
            leaf not in ("weight", "scales", "biases", "order")
            or f"{module}.scales" not in self.tensors
        ):
            return None
        assert self.config.quantization is not None
        how = self.config.quantization.for_module(module)
        return how[0] if how else None

    @cached_property
    def nbytes(self) -> dict[str, int]:
        """Bytes by storage: `4-bit` (scales and biases included), `F16`, ..."""
        total: Counter[str] = Counter()
        for name, tensor in self.tensors.items():
            bits = self.bits(name)
            total[f"{bits}-bit" if bits else tensor.dtype] += tensor.nbytes
        return dict(total)

    @cached_property
    def parameters(self) -> int:
        """Numbers the model was trained with; a packed word counts each of its elements."""
        count = 0
        for name, tensor in self.tensors.items():
            bits = self.bits(name)
            if bits is None:
                count += math.prod(tensor.shape)
            elif name.endswith(".weight"):
                count += math.prod(tensor.shape) * 32 // bits
        return count

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights one token reads: all but an embedding that is not the head as well."""
        return sum(
            tensor.nbytes
            for name, tensor in self.tensors.items()
            if self.config.tie_word_embeddings or not name.startswith(EMBEDDING)
        )

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of keys and values of one token of context."""
        from nanocupy.engine.memory import bytes_per_token

        config = self.config
        shape = (config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
        return bytes_per_token(*shape, dtype)

    def report(self) -> dict[str, Any]:
        """For `nanocupy info MODEL`."""
        config = self.config
        return {
            "model": self.name,
            "folder": str(self.folder),
            "architecture": config.model_type,
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "attention_heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "vocabulary": config.vocab_size,
            "context": config.max_position_embeddings,
            "parameters": self.parameters,
            "bytes": self.nbytes | {"all": sum(self.nbytes.values())},
            "kv_bytes_per_token": {
                dtype: self.kv_bytes_per_token(dtype) for dtype in ("int8", "float16", "float32")
            },
        }
