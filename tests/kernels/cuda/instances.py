"""Every instance of every CUDA kernel that a model can ask for, as the launches that would run it.

Launches are made by the package itself, for a device that only writes down what it is asked: so
names, block sizes and shared memory are those of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.device.protocols import Launch, Rows
from nanocupy.kernels import elementwise, launches_of, sample
from nanocupy.kernels.attention import KVLayout, RowSplit, StepRows
from nanocupy.kernels.attention import cuda as attention_cuda
from nanocupy.kernels.experts import cuda as experts_cuda
from nanocupy.kernels.kernel import CudaKernel

LAUNCHES = launches_of("cuda")
F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
SHORT = {F32: "f32", F16: "f16", BF16: "bf16"}
COMPUTE = (F32, F16, BF16)
HEAD_DIMS = (16, 32, 64, 80, 96, 112, 128, 192, 256)
COMMON_HEAD_DIMS = (64, 128)  # with a cache of another dtype than the activations
GROUPS = (1, 2, 3, 4, 6, 7, 8)  # query heads of a KV head, at once
FEW_GROUPS = (1, 4)  # where head size or dtypes are rare


class Paper:
    """A device that has addresses and no memory."""

    kind, name, multiprocessors = "cuda", "paper", 108

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def asarray(self, array: np.ndarray) -> Any:
        return array

    def write(self, to: Any, array: np.ndarray) -> None:
        to[...] = array


def launches() -> Iterator[Launch]:
    """Of kernels of ours; a GEMM is the library's."""
    device = Paper()
    rows = Rows(256, np.array([256]))
    for made in _all(device, rows):
        for launch in made if isinstance(made, list) else [made]:
            if isinstance(launch.kernel, CudaKernel):
                yield launch


def instances() -> dict[str, dict[str, Launch]]:
    """file -> expression -> a launch of it, the one with most dynamic shared memory."""
    found: dict[str, dict[str, Launch]] = {}
    for launch in launches():
        known = found.setdefault(launch.kernel.file, {})
        old = known.get(launch.kernel.expression)
        if old is None or old.shared < launch.shared:
            known[launch.kernel.expression] = launch
    return found


def _all(device: Any, rows: Rows) -> Iterator[Any]:
    yield from _row_wise(device, rows)
    yield from _norms(device, rows)
    yield from _linears(device)
    for dtype in COMPUTE:
        for kv in COMPUTE:
            for head_dim in HEAD_DIMS if kv == dtype else COMMON_HEAD_DIMS:
                yield from _attention(device, rows, KVLayout(4, 2, head_dim, 16, kv, "cuda", dtype))
    yield from _samples(device, rows)
    yield from _experts(device, rows)


def _row_wise(device: Any, rows: Rows) -> Iterator[Any]:
    x = device.empty((256, 64), F32)
    index = device.empty((256,), np.int32)
    for name in elementwise.BINARY:
        yield LAUNCHES.elementwise.launch_binary(device, name, x, x, x, rows, 64)
    yield LAUNCHES.routing.launch_softmax(device, x, x, rows, 1, 64, x_stride=64)
    yield LAUNCHES.routing.launch_argsort(device, index, x, rows, 1, 64, x_stride=64)
    along = {"x_stride": 64, "index_stride": 1}
    yield LAUNCHES.routing.launch_take_along(device, x, x, index, rows, 1, 64, 1, **along)
    yield LAUNCHES.routing.launch_sum(device, x, x, rows, 1, 2, 32, x_stride=64)
    for name in elementwise.UNARY:
        yield LAUNCHES.elementwise.launch_unary(device, name, x, x, rows, 64)
    yield LAUNCHES.columns.launch(device, x, x, index, index, rows, x_stride=64, out_stride=64)
    yield LAUNCHES.elementwise.launch_scale(device, x, x, 2.0, rows, 64)
    yield LAUNCHES.linear.add_bias(x, x, rows, 64, 64)
    table = device.empty((128, 64), F32)
    yield LAUNCHES.rope.launch(device, x, x, index, table, rows, heads=1, head_dim=64)
    for dtype in COMPUTE:
        out = device.empty((256, 64), dtype)
        yield LAUNCHES.silu_mul.launch(device, out, x, x, rows, 64)
        yield LAUNCHES.silu_mul.launch(device, out, x, x, rows, 64, activation="gelu")
        yield LAUNCHES.cast.launch(device, out, x, rows, 64)
        yield LAUNCHES.take_rows.launch(device, out, x, index, rows)
        yield LAUNCHES.take_rows.launch(device, out, out, index, rows)
        (weight,) = LAUNCHES.linear.pack(device, [np.zeros((256, 64), dtype)], SHORT[dtype])
        yield LAUNCHES.embedding.launch(device, weight, index, x, rows)


def _norms(device: Any, rows: Rows) -> Iterator[Any]:
    for size in (64, 576, 2048, 8192):
        x, weight = device.empty((256, size), F32), device.empty((size,), F32)
        yield LAUNCHES.layer_norm.launch(device, x, x, weight, weight, 1e-5, rows, size)
        for dtype in COMPUTE:
            out = device.empty((256, size), dtype)
            yield LAUNCHES.rms_norm.launch(device, out, x, weight, 1e-5, rows)
            yield LAUNCHES.rms_norm.launch_add(device, x, out, x, x, weight, 1e-5, rows)


def _linears(device: Any) -> Iterator[Any]:
    n, k, group = 96, 128, 32
    index, wide = device.empty((256,), np.int32), device.empty((256, k), F32)
    for bits in (4, 8):
        for scales in COMPUTE:
            codes = np.zeros((n, k * bits // 32), np.uint32)
            parts = np.zeros((n, k // group), scales)
            for dtype in COMPUTE:
                raw = (codes, parts, parts, bits)
                (weight,) = LAUNCHES.linear.pack(device, [raw], SHORT[dtype])
                x, out = device.empty((256, k), dtype), device.empty((256, n), F32)
                for capacity in (1, 2, 4, 16, 32, 64):
                    rows = Rows(capacity, index)
                    yield LAUNCHES.linear.launch(
                        device, weight, x, out, rows,
                        x_stride=k * dtype.itemsize, out_stride=4 * n,
                    )  # fmt: skip
                yield LAUNCHES.embedding.launch(device, weight, index, wide, Rows(256, index))


def _attention(device: Any, rows: Rows, layout: KVLayout) -> Iterator[Any]:
    index, tables = device.empty((256,), np.int32), device.empty((4, 8), np.int32)
    [pages], table = layout.empty(device), device.empty((128, layout.head_dim), F32)
    split = RowSplit(index, rows, device.empty((256, 4), np.int32), rows)
    step = StepRows(rows, index, index, tables, split)
    usual = layout.head_dim in COMMON_HEAD_DIMS and F32 != layout.activations == layout.dtype
    for group in GROUPS if usual else FEW_GROUPS:
        heads = group * layout.kv_heads
        q = device.empty((256, heads, layout.head_dim), layout.activations)
        read, how = (q, q, *pages, step), {"heads": heads, "scale": 0.1}
        size = (256, heads, layout.kv_heads, layout.head_dim)
        scratch = attention_cuda.scratch(device, *size)
        yield attention_cuda.attend_decode(device, layout, *read, rows, scratch, **how)
    if layout.activations != F32:
        yield attention_cuda.attend_prefill(layout, *read, rows, **how)
    fresh = [device.empty((256, n, layout.head_dim), F32) for n in (heads, 2, 2)]
    yield LAUNCHES.rope_write.launch(
        device, layout, q, *pages, *fresh, index, index, table, rows, heads=heads
    )


def _samples(device: Any, rows: Rows) -> Iterator[Any]:
    for vocabulary in (4096, 151_936, sample.MOST):
        logits = np.broadcast_to(np.float32(0), (256, vocabulary))
        token, lse = device.empty((256,), np.int32), device.empty((256,), F32)
        buffers = SimpleNamespace(
            floats=token, top_k=token, target=token, edit_start=token, edits=token
        )
        yield LAUNCHES.sample.launch(
            device, token, lse, logits, buffers, rows, vocabulary=vocabulary, scratch=lse
        )


def _experts(device: Any, rows: Rows) -> Iterator[Any]:
    count, chosen, n, k = 8, 2, 64, 128
    picks, numbers = device.empty((256, chosen), np.int32), device.empty((256, chosen), F32)
    places = experts_cuda.Places(
        device.empty((count, 256), np.int32), device.empty((count + 1,), np.int64)
    )
    how = {"experts": count, "normalised": True, "logits_stride": count}
    yield experts_cuda.choose_experts(picks, numbers, numbers, rows, **how)
    yield experts_cuda.list_pairs(places, picks, rows, chosen=chosen, picks_stride=chosen)
    y = device.empty((256 * chosen, n), F32)
    for dtype in COMPUTE:
        x = device.empty((256, k), dtype)
        raw: list[Any] = [np.zeros((n, k), dtype)]
        for bits in (4, 8):
            for values in COMPUTE:
                scales = np.zeros((n, k // 64), values)
                raw.append((np.zeros((n, k * bits // 32), np.uint32), scales, scales, bits))
        for each in raw:
            (one,) = LAUNCHES.linear.pack(device, [each], SHORT[dtype])
            weights = experts_cuda.ExpertWeights(
                one, device.empty((count,), np.int64), [one] * count
            )
            for few in (1, 256):
                size, place = Rows(few, rows.count), {"share": chosen, "out_stride": n}
                yield experts_cuda.expert_linear(y, x, weights, places, size, **place)
    yield experts_cuda.sum_experts(y, y, numbers, rows)
