"""Gated activations: silu(gate) * up and gelu(gate) * up in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder.casting import rounded
from nanocupy.core.recorder.graph import Node, Op, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.kernels import silu_mul as silu_mul_kernel


def _gated(activation: str) -> Op:
    """activation(gate) * up."""

    def lower(to: Lowering, node: Node) -> None:
        gate, up = to.inputs(node)
        out, size = to.of(node).view, width(node.inputs[0].shape)
        how: dict[str, Any] = {
            "gate_stride": gate.stride,
            "up_stride": up.stride,
            "activation": activation,
        }
        codes = node.attrs.get("codes")
        to.add(
            to.rows(node),
            lambda rows: to.launches.silu_mul.launch(
                to.device, out, gate.view, up.view, rows, size, codes=codes, **how
            ),
        )

    def numpy(gate: np.ndarray, up: np.ndarray, *, dtype: Any = None) -> np.ndarray:
        return silu_mul_kernel.reference(gate, up, activation).astype(dtype or gate.dtype)

    return Op(
        f"{activation}_mul",
        lambda gate, up, *, dtype=None, codes=None: rounded(gate, dtype, codes),
        numpy,
        lower,
        row_wise=True,
    )


SILU_MUL, GELU_MUL = _gated("silu"), _gated("gelu")
