"""Fused operations on rows: RMS norm and LayerNorm, as in `mlx.core.fast`; gated activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype, rounded
from nanocupy.core.recorder.dtypes import common
from nanocupy.core.recorder.graph import Node, Op, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.core.recorder.public import public
from nanocupy.core.recorder.specs import same_spec, upcast
from nanocupy.kernels import rms_norm as rms_norm_kernel
from nanocupy.kernels import silu_mul as silu_mul_kernel

# `dtype` or `codes`: how the result is rounded as it is written; None: not at all (see `rules`)


def _lower_rms_norm(to: Lowering, node: Node) -> None:
    x, weight = to.inputs(node)
    out, eps = to.of(node).view, node.attrs["eps"]
    vectors = width(node.inputs[0].shape) // node.inputs[1].shape[0]
    place = {"vectors": vectors, "x_stride": x.stride}
    codes = node.attrs.get("codes")
    to.add(
        to.rows(node),
        lambda rows: to.launches.rms_norm.launch(
            to.device, out, x.view, weight.view, eps, rows, codes=codes, **place
        ),
    )


RMS_NORM = Op(
    "rms_norm",
    lambda x, w, *, eps, dtype=None, codes=None: rounded(x, dtype, codes),
    lambda x, w, *, eps, dtype=None: rms_norm_kernel.reference(x, w, eps).astype(dtype or x.dtype),
    _lower_rms_norm,
    row_wise=True,
)


def _lower_add_rms_norm(to: Lowering, node: Node) -> None:
    x, residual, _ = (to.contiguous(n, to.of(n)) for n in node.inputs)
    outs = to.of(node, 0).view, to.of(node, 1).view
    weight, eps = to.of(node.inputs[2]).view, node.attrs["eps"]
    arrays, codes = (*outs, x, residual, weight), node.attrs.get("codes")
    to.add(
        to.rows(node),
        lambda rows: to.launches.rms_norm.launch_add(to.device, *arrays, eps, rows, codes=codes),
    )


def _add_rms_norm_numpy(
    x: np.ndarray, residual: np.ndarray, weight: np.ndarray, *, eps: float, dtype: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    h, out = rms_norm_kernel.add_reference(x, residual, weight, eps)
    return h, out.astype(dtype or out.dtype)


ADD_RMS_NORM = Op(
    "add_rms_norm",
    lambda x, r, w, *, eps, dtype=None, codes=None: [x, rounded(x, dtype, codes)],
    _add_rms_norm_numpy,
    _lower_add_rms_norm,
    row_wise=True,
)


@public
def rms_norm(x: Any, weight: Any, eps: float) -> array:
    """x / sqrt(mean(x^2, last axis) + eps) * weight; without a weight if it is None."""
    x, affine = _normed("rms_norm", x, weight)
    return record(RMS_NORM, x, *(affine or [array(np.ones(x.shape[-1], np.float32))]), eps=eps)


def _normed(name: str, x: Any, *vectors: Any) -> tuple[array, list[array]]:
    """Return x in the dtype that it and its weight (the first vector) have, and the vectors."""
    x, affine = as_array(x), [as_array(v) for v in vectors if v is not None]
    if not x.ndim or x.dtype.kind not in "fV":
        raise ValueError(
            f"[{name}] x is {x.dtype} of shape {x.shape}: expected floats of a dimension or more"
        )
    if any(v.shape != x.shape[-1:] for v in affine):
        raise ValueError(f"[{name}] {[v.shape for v in affine]} for x of shape {x.shape}")
    wider = affine if vectors[0] is not None else []
    return astype(x, common(x.dtype, *(v.dtype for v in wider))), affine


def _layer_norm_numpy(x: np.ndarray, *affine: np.ndarray, eps: float) -> np.ndarray:
    """LayerNorm in float32, rounded once."""
    centred = upcast(x) - upcast(x).mean(-1, keepdims=True)
    out = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(eps))
    for apply, vector in zip((np.multiply, np.add), affine, strict=False):
        out = apply(out, upcast(vector))
    return np.asarray(out).astype(x.dtype)


def _lower_layer_norm(to: Lowering, node: Node) -> None:
    if node.dtype != np.float32 or width(node.shape) != node.shape[-1]:
        raise NotImplementedError(f"[layer_norm] of {node.dtype} {node.shape} in a Program")
    x, weight, *bias = to.inputs(node)
    size, out, eps = node.shape[-1], to.of(node).view, node.attrs["eps"]
    shift = bias[0].view if bias else to.constant(np.zeros(size, np.float32))
    to.add(
        to.rows(node),
        lambda rows: to.launches.layer_norm.launch(
            to.device, out, x.view, weight.view, shift, eps, rows, size, x_stride=x.stride
        ),
    )


_LAYER_NORM = Op("layer_norm", same_spec, _layer_norm_numpy, _lower_layer_norm, row_wise=True)


@public
def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> array:
    """(x - mean) / sqrt(variance + eps) * weight + bias along the last axis; None: without it."""
    x, affine = _normed("layer_norm", x, weight, bias)
    if weight is None and bias is not None:
        affine.insert(0, array(np.ones(x.shape[-1], np.float32)))
    return record(_LAYER_NORM, x, *affine, eps=eps)


# ---- gated activations


def _gated(activation: str) -> Op:
    """Return the operation activation(gate) * up."""

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
