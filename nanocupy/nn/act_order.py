"""A quantised linear layer whose inputs come in the order of their groups (GPTQ's act-order)."""

from __future__ import annotations

from typing import Any

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.layers import QuantizedLinear


class ActOrderLinear(QuantizedLinear):
    """y = x[..., order] W^T (+ b): column c of the weight is for input order[c], int32 [k]."""

    def __init__(
        self, input_dims: int, output_dims: int, bias: bool, group_size: int, bits: int
    ) -> None:
        super().__init__(input_dims, output_dims, bias, group_size, bits)
        self.order = core.zeros((input_dims,), core.int32)

    def __call__(self, x: array) -> array:
        return super().__call__(core.take(x, self.order, axis=-1))

    def buffer_key(self) -> tuple[Any, ...]:
        """Layers of one order read the same rows, and may share a buffer."""
        return (*super().buffer_key(), self.order.numpy().tobytes())
