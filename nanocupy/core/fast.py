"""Fused operations, as `mlx.core.fast` has them, and the handles that only an engine uses.

Two things are not arrays: a `PagedCache` (keys and values in blocks, in a device's own layout, see
`core.paged`) and a `PackedWeight`. Operations take them as opaque handles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocupy.core.compiling.custom import custom_kernel
from nanocupy.core.recorder.arrays import (
    array,
    as_array,
    bfloat16,
    float16,
    float32,
    int32,
    record,
)
from nanocupy.core.recorder.attention import scaled_dot_product_attention
from nanocupy.core.recorder.casting import astype, common, rounded
from nanocupy.core.recorder.graph import Node, Op, item, leaf, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.core.recorder.paged import (
    PagedCache,
    PagedMeta,
    Work,
    paged_attention,
    tile_rows,
)
from nanocupy.core.recorder.public import public
from nanocupy.core.recorder.rotary import longest, rope
from nanocupy.core.recorder.specs import same, wide
from nanocupy.core.unsupported import refuse
from nanocupy.device.protocols import Rows
from nanocupy.kernels import embedding as embedding_kernel
from nanocupy.kernels import launches_of
from nanocupy.kernels import rms_norm as rms_norm_kernel
from nanocupy.kernels import sample as sample_kernel
from nanocupy.kernels import silu_mul as silu_mul_kernel
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.linear import PackedWeight, dequantize

STATIC = Op("static", leaf)


def static(
    buffer: Any,
    shape: tuple[int, ...] | None = None,
    limit: int | None = None,
    fixed: bool = False,
) -> array:
    """A device buffer as an array that a Program reads where it lies, at the contents of each run.

    Args:
        shape: of the array, perhaps with symbolic rows. Default: the buffer's.
        limit: every value will be below it (for positions: how long the tables must be).
        fixed: its contents never change.
    """
    spec = (shape or buffer.shape, buffer.dtype)
    return array(Node(STATIC, (), {"buffer": buffer, "limit": limit, "fixed": fixed}, [spec]))


PACKED = Op("packed weight", leaf)


def packed_matrix(weight: PackedWeight) -> array:
    """A packed weight as the array [n, k] that it was: good for `x @ array.T`, and nothing else."""
    return array(Node(PACKED, (), {"weight": weight}, [((weight.n, weight.k), float32)]))


def packed_stack(weights: Sequence[PackedWeight]) -> array:
    """Packed weights as the array [count, n, k] that they were, good for `gather_mm`."""
    shape = (len(weights), weights[0].n, weights[0].k)
    return array(Node(PACKED, (), {"weights": tuple(weights)}, [(shape, float32)]))


# ---- norms and activations
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
    """x in the dtype that it and its weight, the first vector, have together; and the vectors that
    are there."""
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
    """In float32, rounded once."""
    centred = wide(x) - wide(x).mean(-1, keepdims=True)
    out = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(eps))
    for apply, vector in zip((np.multiply, np.add), affine, strict=False):
        out = apply(out, wide(vector))
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


_LAYER_NORM = Op("layer_norm", same, _layer_norm_numpy, _lower_layer_norm, row_wise=True)


@public
def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> array:
    """(x - mean) / sqrt(variance + eps) * weight + bias along the last axis; None: without it."""
    x, affine = _normed("layer_norm", x, weight, bias)
    if weight is None and bias is not None:
        affine.insert(0, array(np.ones(x.shape[-1], np.float32)))
    return record(_LAYER_NORM, x, *affine, eps=eps)


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


# ---- packed weights


def pack(device: Any, weights: list[Any], activations: str = "f32") -> list[PackedWeight]:
    """Pack weights that share inputs and format side by side, as the device's linear wants them.

    See `kernels.linear.cpu.pack` and `kernels.linear.cuda.pack`.
    """
    packed: list[PackedWeight] = launches_of(device.kind).linear.pack(device, weights, activations)
    return packed


def _lower_quantize(to: Lowering, node: Node) -> None:
    (x,) = to.inputs(node)
    size, codes, out = width(node.inputs[0].shape), node.attrs["codes"], to.of(node).view
    to.add(
        to.rows(node),
        lambda rows: to.launches.quantize.launch(
            to.device, out, x.view, rows, size, codes, x_stride=x.stride
        ),
    )


QUANTIZE = Op(
    "quantize",
    lambda x, *, codes: rounded(x, None, codes),
    None,
    _lower_quantize,
    row_wise=True,
)


def _lower_linear(to: Lowering, node: Node) -> None:
    x, out, weight = to.of(node.inputs[0]), to.of(node), node.attrs["weight"]
    if width(node.shape) != weight.n:
        raise NotImplementedError(f"[linear] to {node.shape}: one vector a row in a Program")
    bias = to.of(node.inputs[1]).view if len(node.inputs) > 1 else None
    place: dict[str, Any] = {"x_stride": x.stride_bytes, "out_stride": out.stride_bytes}
    to.add(
        to.rows(node),
        lambda rows: to.launches.linear.launch(
            to.device, weight, x.view, out.view, rows, bias=bias, **place
        ),
    )


ACTIVATIONS = {"f32": float32, "f16": float16, "bf16": bfloat16}
LINEAR = Op(
    "linear",
    lambda x, *bias, weight, shape: ((*shape[:-1], weight.n), float32),
    None,
    _lower_linear,
    row_wise=True,
)


def packed_linear(x: array, weight: PackedWeight, bias: array | None = None) -> array:
    """x . weight^T (+ bias) for a weight in its packed layout; x f32 [..., k] -> f32 [..., n]."""
    if x.shape[-1] != weight.k:
        raise ValueError(f"[linear] x of shape {x.shape}: the weight takes {weight.k} inputs")
    shape = x.shape
    if weight.codes:
        x = record(QUANTIZE, x, codes=weight.codes)
    else:
        x = astype(x, ACTIVATIONS[weight.activations])
    return record(LINEAR, x, *([] if bias is None else [bias]), weight=weight, shape=shape)


def _lower_embedding(to: Lowering, node: Node) -> None:
    (tokens,) = to.inputs(node)
    attrs, out = node.attrs, to.of(node).view
    if width(node.inputs[0].shape) != 1:
        raise NotImplementedError(f"[embedding] to {node.shape}: one token a row in a Program")
    table = {"first": attrs["first"], "vocabulary": attrs["vocabulary"]}
    to.add(
        to.rows(node),
        lambda rows: to.launches.embedding.launch(
            to.device, attrs["weight"], tokens.view, out, rows, **table
        ),
    )


EMBEDDING = Op(
    "embedding",
    lambda tokens, *, weight, **_: ((*tokens[0], weight.k), float32),
    None,
    _lower_embedding,
    row_wise=True,
)
EMBEDDING_PART = Op(
    "embedding_part",
    lambda tokens, weight, **_: ((*tokens[0], weight[0][1]), weight[1]),
    embedding_kernel.reference,
)


def packed_embedding(
    tokens: array, weight: PackedWeight, first: int = 0, vocabulary: int | None = None
) -> array:
    """weight[tokens] for a weight in its packed layout; int32 [rows, ...] -> f32 [rows, ..., k].

    Args:
        first, vocabulary: see `embedding_part`. Default: the weight is the whole table.
    """
    return record(EMBEDDING, tokens, weight=weight, first=first, vocabulary=vocabulary)


def embedding_part(tokens: array, weight: array, first: int, vocabulary: int) -> array:
    """table[tokens], where weight [n, k] is the table's rows from `first` on.

    Other tokens of the vocabulary give zeros.
    """
    return record(EMBEDDING_PART, tokens, weight, first=first, vocabulary=vocabulary)


# ---- sampling


@dataclass(frozen=True, eq=False)
class SamplingBuffers:
    """Static inputs and outputs of `sample`, one line a sampled row; see `kernels.sample`."""

    floats: Any  # f32 [samples, 4]: temperature, top_p, min_p, uniform
    top_k: Any  # int32 [samples]
    target: Any  # int32 [samples]
    edit_start: Any  # int32 [samples + 1]
    edits: Any  # int32 [edits, 3]: id, then mul and add as the bits of an f32
    token: Any  # int32 [samples]: what was drawn
    lse: Any  # f32 [samples]: the logsumexp of the row


def _lower_sample(to: Lowering, node: Node) -> None:
    (logits,) = to.inputs(node)
    size, rows = width(node.inputs[0].shape), to.rows(node)
    scratch = to.shared(
        ("sample", int(rows), size), lambda: sample_kernel.scratch(to.device, int(rows), size)
    )
    outs = to.of(node, 0).view, to.of(node, 1).view
    how = {"vocabulary": size, "scratch": scratch}
    to.add(
        rows,
        lambda rows: sample_kernel.launch(
            to.device, *outs, logits.view, node.attrs["buffers"], rows, **how
        ),
    )


SAMPLE = Op(
    "sample",
    lambda logits, **_: [((logits[0][0],), int32), ((logits[0][0],), float32)],
    None,
    _lower_sample,
)


def sample(logits: array, buffers: SamplingBuffers) -> tuple[array, array]:
    """(token int32 [rows], logsumexp f32 [rows]) of f32 logits [rows, ..., vocabulary].

    Both lie in the buffers, so that one copy brings them to the host.
    """
    into = (buffers.token, buffers.lse)
    node = record(SAMPLE, logits, buffers=buffers, into=into).node
    return array(item(node, 0)), array(item(node, 1))


__all__ = [
    "KVLayout",
    "PackedWeight",
    "PagedCache",
    "PagedMeta",
    "Rows",
    "SamplingBuffers",
    "Work",
    "custom_kernel",
    "dequantize",
    "embedding_part",
    "layer_norm",
    "longest",
    "pack",
    "packed_embedding",
    "packed_linear",
    "paged_attention",
    "rms_norm",
    "rope",
    "sample",
    "scaled_dot_product_attention",
    "static",
    "tile_rows",
]
__getattr__ = refuse(__name__, "fast")
