"""Operations on packed weights: quantised rows, linear and embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanocupy.core.recorder.arrays import array, record
from nanocupy.core.recorder.casting import astype, rounded
from nanocupy.core.recorder.graph import Node, Op, leaf, width
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.dtypes import DTYPES, float32
from nanocupy.kernels import embedding as embedding_kernel
from nanocupy.kernels.linear import PackedWeight

PACKED = Op("packed weight", leaf)


def packed_matrix(weight: PackedWeight) -> array:
    """Return a packed weight as an array [n, k] whose only use is `x @ array.T`."""
    return array(Node(PACKED, (), {"weight": weight}, [((weight.n, weight.k), float32)]))


def packed_stack(weights: Sequence[PackedWeight]) -> array:
    """Return packed weights as an array [count, n, k] whose only use is `gather_mm`."""
    shape = (len(weights), weights[0].n, weights[0].k)
    return array(Node(PACKED, (), {"weights": tuple(weights)}, [(shape, float32)]))


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
        x = astype(x, DTYPES[weight.activations])
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
