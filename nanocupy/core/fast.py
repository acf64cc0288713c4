"""Fused operations, as `mlx.core.fast` has them, and the handles that only an engine uses.

Two things are not arrays: a `PagedCache` (keys and values in blocks, in a device's own layout) and
a `PackedWeight`. Operations take them as opaque handles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nanocupy.core.array import array, as_array, float32, int32, record
from nanocupy.core.graph import Node, Op, Rows, Spec, item, width
from nanocupy.core.lowering import Lowering
from nanocupy.kernels import embedding as embedding_kernel
from nanocupy.kernels import linear as linear_kernel
from nanocupy.kernels import paged_attention as attention_kernel
from nanocupy.kernels import rms_norm as rms_norm_kernel
from nanocupy.kernels import rope as rope_kernel
from nanocupy.kernels import sample as sample_kernel
from nanocupy.kernels import silu_mul as silu_mul_kernel
from nanocupy.kernels.linear import PackedWeight, dequantize, pack
from nanocupy.kernels.paged_attention import KVLayout


def _no_leaf(**_: Any) -> Spec:
    raise AssertionError("a leaf is made with its spec")


STATIC = Op("static", _no_leaf)


def static(buffer: Any, shape: tuple[int, ...] | None = None, limit: int | None = None) -> array:
    """A device buffer as an array that a Program reads where it lies, at the contents of each run.

    Args:
        shape: of the array, perhaps with symbolic rows. Default: the buffer's.
        limit: every value will be below it (for positions: how long the tables must be).
    """
    spec = (shape or buffer.shape, buffer.dtype)
    return array(Node(STATIC, (), {"buffer": buffer, "limit": limit}, [spec]))


# ---- norms and activations


def _lower_rms_norm(to: Lowering, node: Node) -> None:
    x, weight = to.inputs(node)
    size = node.inputs[1].shape[0]
    to.add(
        rms_norm_kernel.launch(
            to.device,
            to.of(node).view,
            x.view,
            weight.view,
            node.attrs["eps"],
            to.rows(node),
            vectors=width(node.shape) // size,
            x_stride=x.stride,
        )
    )


RMS_NORM = Op(
    "rms_norm",
    lambda x, w, *, eps: x,
    lambda x, w, *, eps: rms_norm_kernel.reference(x, w, eps),
    _lower_rms_norm,
    row_wise=True,
)


def _lower_add_rms_norm(to: Lowering, node: Node) -> None:
    x, residual, _ = (to.contiguous(n, to.of(n)) for n in node.inputs)
    outs = to.of(node, 0).view, to.of(node, 1).view
    weight = to.of(node.inputs[2]).view
    eps, rows = node.attrs["eps"], to.rows(node)
    to.add(rms_norm_kernel.launch_add(to.device, *outs, x, residual, weight, eps, rows))


ADD_RMS_NORM = Op(
    "add_rms_norm",
    lambda x, r, w, *, eps: [x, x],
    lambda x, r, w, *, eps: rms_norm_kernel.add_reference(x, r, w, eps),
    _lower_add_rms_norm,
    row_wise=True,
)


def rms_norm(x: Any, weight: Any, eps: float) -> array:
    """x / sqrt(mean(x^2, last axis) + eps) * weight; without a weight if it is None."""
    x = as_array(x)
    weight = as_array(np.ones(x.shape[-1], np.float32) if weight is None else weight)
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"[rms_norm] weight of shape {weight.shape} for x of shape {x.shape}")
    return record(RMS_NORM, x, weight, eps=eps)


def _lower_silu_mul(to: Lowering, node: Node) -> None:
    gate, up = to.inputs(node)
    size = width(node.shape)
    strides = {"gate_stride": gate.stride, "up_stride": up.stride}
    to.add(
        silu_mul_kernel.launch(to.of(node).view, gate.view, up.view, to.rows(node), size, **strides)
    )


SILU_MUL = Op(
    "silu_mul",
    lambda gate, up: gate,
    lambda gate, up: silu_mul_kernel.reference(gate, up),
    _lower_silu_mul,
    row_wise=True,
)


# ---- packed weights


def _lower_quantize(to: Lowering, node: Node) -> None:
    (x,) = to.inputs(node)
    size, group = width(node.inputs[0].shape), node.attrs["group"]
    out = to.of(node).view
    to.add(linear_kernel.launch_quantize(x.view, out, to.rows(node), size, group, x.stride_bytes))


QUANTIZE = Op(
    "quantize",
    lambda x, *, group: (
        (x[0][0], linear_kernel.quantized_row_bytes(width(x[0]), group)),
        np.dtype(np.uint8),
    ),
    None,
    _lower_quantize,
    row_wise=True,
)


def _lower_linear(to: Lowering, node: Node) -> None:
    x, weight = to.of(node.inputs[0]), node.attrs["weight"]
    bias = to.of(node.inputs[1]).view if len(node.inputs) > 1 else None
    out = to.of(node)
    to.add(
        linear_kernel.launch(
            to.device,
            weight,
            x.view,
            out.view,
            to.rows(node),
            x_stride=x.stride_bytes,
            out_stride=out.stride_bytes,
            bias=bias,
        )
    )


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
    if weight.activations == "i16":
        x = record(QUANTIZE, x, group=weight.format.group)
    return record(LINEAR, x, *([] if bias is None else [bias]), weight=weight, shape=shape)


def _lower_embedding(to: Lowering, node: Node) -> None:
    (tokens,) = to.inputs(node)
    to.add(
        embedding_kernel.launch(node.attrs["weight"], tokens.view, to.of(node).view, to.rows(node))
    )


EMBEDDING = Op(
    "embedding",
    lambda tokens, *, weight: ((*tokens[0], weight.k), float32),
    None,
    _lower_embedding,
    row_wise=True,
)


def packed_embedding(tokens: array, weight: PackedWeight) -> array:
    """weight[tokens] for a weight in its packed layout; int32 [rows, ...] -> f32 [rows, ..., k]."""
    return record(EMBEDDING, tokens, weight=weight)


# ---- rotary positions and attention over pages


def _lower_rope(to: Lowering, node: Node) -> None:
    x, positions = to.inputs(node)
    limit = node.inputs[1].attrs.get("limit")
    if limit is None:
        raise ValueError("[rope] positions in a Program are static and know their limit")
    table = to.constant(rope_kernel.table(np.array(node.attrs["frequency"]), limit))
    to.add(
        rope_kernel.launch(
            to.of(node).view,
            x.view,
            positions.view,
            table,
            to.rows(node),
            heads=int(np.prod(node.shape[1:-1])),
            head_dim=node.shape[-1],
            traditional=node.attrs["traditional"],
            x_stride=x.stride,
        )
    )


def _rope_numpy(
    x: np.ndarray, positions: np.ndarray, *, frequency: tuple[float, ...], traditional: bool
) -> np.ndarray:
    """x [B, heads, L, head_dim]; token l of row b stands at positions[b] + l."""
    batch, heads, length, head_dim = x.shape
    at = np.broadcast_to(positions.reshape(-1, 1) + np.arange(length), (batch, length)).reshape(-1)
    table = rope_kernel.table(np.array(frequency), int(at.max()) + 1)
    rows = x.transpose(0, 2, 1, 3).reshape(-1, heads, head_dim)
    out = rope_kernel.reference(rows, at, table, traditional)
    return out.reshape(batch, length, heads, head_dim).transpose(0, 2, 1, 3)


ROPE = Op(
    "rope",
    lambda x, positions, *, frequency, traditional: x,
    _rope_numpy,
    _lower_rope,
    row_wise=True,
)


def rope(
    x: Any,
    dims: int,
    *,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: Any,
    freqs: Any = None,
) -> array:
    """Rotary positions on x [B, heads, L, head_dim].

    Args:
        offset: position of the first token: an int, or an int32 array [B], one a row.
        freqs: instead of `base`: what positions are divided by, [dims/2].
    """
    x = as_array(x)
    if (base is None) == (freqs is None):
        raise ValueError("[rope] give exactly one of base and freqs")
    if base is not None:
        frequency = rope_kernel.frequencies(dims, base) * scale
    else:
        frequency = scale / as_array(freqs).numpy().astype(np.float64)
    positions = offset if isinstance(offset, array) else array(np.array([offset], np.int32))
    table = tuple(frequency.tolist())
    return record(ROPE, x, positions, frequency=table, traditional=traditional)


@dataclass(frozen=True, eq=False)
class PagedMeta:
    """Where the rows of a step stand. All arrays are static buffers with symbolic rows.

    Attributes:
        positions: int32 [rows], position of each row's token in its sequence.
        sequences: int32 [rows], the row's line in `block_tables`.
        slots: int32 [rows], where the row's keys and values go; -1: nowhere (padding).
        block_tables: int32 [sequences, blocks], physical blocks in order.
    """

    positions: array
    sequences: array
    slots: array
    block_tables: Any


@dataclass(frozen=True, eq=False)
class PagedCache:
    """Keys and values of one layer in blocks. `offset` and `update_and_fetch` are MLX's cache
    contract.

    In the engine every token of a step is a row of its own (B = rows, L = 1).
    """

    layout: KVLayout
    keys: Any
    values: Any
    meta: PagedMeta

    @property
    def offset(self) -> array:
        return self.meta.positions

    def update_and_fetch(self, keys: array, values: array) -> tuple[PagedView, PagedView]:
        """The pages with these keys and values in them, for attention to recognise."""
        return PagedView(self, keys), PagedView(self, values)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> None:
        """No mask: a row attends to its own sequence up to its own position."""
        context = self.meta.block_tables.shape[1] * self.layout.block_size
        if window_size is not None and window_size < context:
            raise NotImplementedError(
                f"[paged_attention] a sliding window of {window_size} tokens in a context of "
                f"{context}"
            )


@dataclass(frozen=True, eq=False)
class PagedView:
    """Keys or values of one layer: those of this step's rows, and the pages they join."""

    cache: PagedCache
    fresh: array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fresh.shape

    @property
    def dtype(self) -> Any:
        return self.fresh.dtype


def _lower_attention(to: Lowering, node: Node) -> None:
    q, k, v, positions, sequences, slots = to.inputs(node)
    cache: PagedCache = node.attrs["cache"]
    rows, tables = to.rows(node), cache.meta.block_tables
    pages = (cache.keys, cache.values)
    strides = {"k_stride": k.stride, "v_stride": v.stride}
    to.add(
        attention_kernel.launch_write(
            cache.layout, *pages, k.view, v.view, slots.view, rows, **strides
        )
    )
    context = tables.shape[1] * cache.layout.block_size
    scratch = to.shared(
        ("attention", node.shape[3], context),
        lambda: attention_kernel.scratch(to.device, node.shape[3], context),
    )
    where = (positions.view, sequences.view, tables, rows, scratch)
    to.launches += attention_kernel.launch(
        to.device,
        cache.layout,
        to.of(node).view,
        q.view,
        *pages,
        *where,
        heads=node.shape[1],
        scale=node.attrs["scale"],
        q_stride=q.stride,
    )


PAGED_ATTENTION = Op(
    "paged_attention", lambda q, *_, cache, scale: q, None, _lower_attention, effect=True
)


def paged_attention(q: array, k: array, v: array, cache: PagedCache, scale: float) -> array:
    """Write k, v [rows, kv_heads, 1, d] to the pages; attend with q [rows, heads, 1, d]."""
    meta, layout = cache.meta, cache.layout
    rows, heads, length, head_dim = q.shape
    fresh = (rows, layout.kv_heads, 1, layout.head_dim)
    fits = k.shape == v.shape == fresh and (length, head_dim) == fresh[2:]
    if not fits or heads % layout.kv_heads:
        raise ValueError(
            f"[paged_attention] q {q.shape}, k {k.shape} and v {v.shape}: the pages take one token "
            f"a row, {layout.kv_heads} heads of {layout.head_dim}"
        )
    where = (meta.positions, meta.sequences, meta.slots)
    return record(PAGED_ATTENTION, q, k, v, *where, cache=cache, scale=scale)


def _attention_numpy(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *, scale: float, mask: Any
) -> np.ndarray:
    """q [B, heads, L, d], k, v [B, kv_heads, S, d]."""
    repeat = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeat, axis=1), np.repeat(v, repeat, axis=1)
    scores = (q @ k.transpose(0, 1, 3, 2)) * np.float32(scale)
    if isinstance(mask, str):
        past = k.shape[2] - q.shape[2]
        scores = np.where(np.tri(q.shape[2], k.shape[2], past, dtype=bool), scores, -np.inf)
    elif mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


ATTENTION = Op("scaled_dot_product_attention", lambda q, *_, scale, mask: q, _attention_numpy)


def scaled_dot_product_attention(
    q: Any, k: Any, v: Any, *, scale: float, mask: Any = None, sinks: Any = None
) -> array:
    """softmax(q k^T * scale + mask) v; q [B, heads, L, d], k, v [B, kv_heads, S, d].

    With the views that a `PagedCache` hands out, attention over pages.
    """
    if sinks is not None:
        raise NotImplementedError("[scaled_dot_product_attention] sinks")
    if isinstance(k, PagedView):
        if mask is not None:
            raise NotImplementedError(
                "[paged_attention] a mask: rows attend to their own past only"
            )
        return paged_attention(q, k.fresh, v.fresh, k.cache, scale)
    if isinstance(mask, str) and mask != "causal":
        raise ValueError(
            f"[scaled_dot_product_attention] mask={mask!r}: expected 'causal' or an array"
        )
    fixed = mask if mask is None or isinstance(mask, str) else as_array(mask).numpy()
    return record(ATTENTION, q, k, v, scale=scale, mask=fixed)


# ---- sampling


@dataclass(frozen=True, eq=False)
class SamplingBuffers:
    """Static inputs of `sample`, one line a sampled row; see `kernels.sample`."""

    floats: Any  # f32 [samples, 4]: temperature, top_p, min_p, uniform
    top_k: Any  # int32 [samples]
    target: Any  # int32 [samples]
    edit_start: Any  # int32 [samples + 1]
    edit_ids: Any  # int32 [edits]
    edit_mul: Any  # f32 [edits]
    edit_add: Any  # f32 [edits]


def _lower_sample(to: Lowering, node: Node) -> None:
    (logits,) = to.inputs(node)
    to.add(
        sample_kernel.launch(
            to.device,
            to.of(node, 0).view,
            to.of(node, 1).view,
            logits.view,
            node.attrs["buffers"],
            to.rows(node),
            vocabulary=width(node.inputs[0].shape),
        )
    )


SAMPLE = Op(
    "sample",
    lambda logits, *, buffers: [((logits[0][0],), int32), ((logits[0][0],), float32)],
    None,
    _lower_sample,
)


def sample(logits: array, buffers: SamplingBuffers) -> tuple[array, array]:
    """(token int32 [rows], logsumexp f32 [rows]) of f32 logits [rows, ..., vocabulary]."""
    node = record(SAMPLE, logits, buffers=buffers).node
    return array(item(node, 0)), array(item(node, 1))


__all__ = [
    "KVLayout",
    "PackedWeight",
    "PagedCache",
    "PagedMeta",
    "Rows",
    "SamplingBuffers",
    "dequantize",
    "pack",
    "packed_embedding",
    "packed_linear",
    "paged_attention",
    "rms_norm",
    "rope",
    "sample",
    "scaled_dot_product_attention",
    "static",
]
