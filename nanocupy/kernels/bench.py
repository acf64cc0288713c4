"""Every kernel's GB/s and GFLOP/s at the shapes of a small model, beside the machine's own limits.

The limits are measured by the same threads in the same run: a streaming read, float32 fma, dot
products of 16-bit integers, of bytes and of bf16. Decode shapes (one row) are held against the
first, prefill shapes against the arithmetic. A linear's weights are named as its kernels are (`s4`:
4 bits without biases); quantised ones meet 16-bit activations, or with `i8` those of 8 bits.
"""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import fixed_rows
from nanocupy.dtypes import DTYPES, bfloat16
from nanocupy.kernels import attention, launches_of, quantize, rope

CPU = launches_of("cpu")
HIDDEN, MLP, HEADS, KV_HEADS, HEAD_DIM = 576, 1536, 9, 3, 64  # SmolLM2-135M
PREFILL, CONTEXT = 256, 1024
REPEAT = 100  # launches of what takes microseconds, to measure it and not the first wake-up
LIMITS = {"f32": "fma", "i16": "dot", "i8": "bytes", "bf16": "bf16"}  # by activations
BITS = {"f32": 32, "bf16": 16, "f16": 16, "q8": 9, "q4": 5, "s8": 8, "s4": 4}  # about, of a weight


class Case(NamedTuple):
    """A graph with what it costs, and which limit it should come near."""

    kernel: str
    rows: int
    graph: Any
    nbytes: int
    operations: int
    limit: str  # "read", "fma", "dot", "bytes" or "bf16"
    repeat: int = 1  # how often the graph does it


def run(json: bool = False, threads: int | None = None, repeats: int = 7) -> int:
    """Measure and print. With `json`, one JSON object."""
    from nanocupy.device.cpu import limits
    from nanocupy.device.cpu.device import CpuDevice

    device = CpuDevice(threads)
    cases = list(_cases(device))
    tops = {"read": (limits.stream(device), limits.STREAM_BYTES)}
    tops |= {name: limits.peak(device, kernel) for name, kernel in limits.arithmetic().items()}
    seconds = _in_turns(
        [*(case.graph for case in cases), *(graph for graph, _ in tops.values())], repeats
    )
    own, other = seconds[: len(cases)], seconds[len(cases) :]
    top = {n: work / s / 1e9 for (n, (_, work)), s in zip(tops.items(), other, strict=True)}
    rows = [_measured(case, s / case.repeat, top) for case, s in zip(cases, own, strict=True)]
    report = {"threads": device.threads, "limits": top, "kernels": rows}
    print(json_module.dumps(report) if json else _text(report))
    return 0


def _in_turns(graphs: list[Any], repeats: int) -> list[float]:
    """Seconds of each graph's fastest run; all take turns, so that the machine's drift hits all."""
    best = [float("inf")] * len(graphs)
    for turn in range(repeats + 1):
        for index, graph in enumerate(graphs):
            start = time.perf_counter()
            graph.run()
            if turn:
                best[index] = min(best[index], time.perf_counter() - start)
    return best


def _measured(case: Case, seconds: float, top: dict[str, float]) -> dict[str, Any]:
    gbs, gflops = case.nbytes / seconds / 1e9, case.operations / seconds / 1e9
    reached = gbs if case.limit == "read" else gflops
    return {
        "kernel": case.kernel,
        "rows": case.rows,
        "microseconds": round(seconds * 1e6, 2),
        "gb_per_s": round(gbs, 2),
        "gflop_per_s": round(gflops, 2),
        "limit": case.limit,
        "of_the_limit": round(reached / top[case.limit], 3),
    }


def _text(report: dict[str, Any]) -> str:
    arithmetic = {"dot": "16-bit dot", "bytes": "8-bit dot", "bf16": "bf16 dot"}
    top = {
        name: f"{arithmetic.get(name, name)} {rate:.0f}" for name, rate in report["limits"].items()
    }
    lines = [
        f"{report['threads']} threads, in GB/s and GFLOP/s: {', '.join(top.values())}",
        f"{'kernel':<22}{'rows':>6}{'us':>11}{'GB/s':>8}{'GFLOP/s':>9}  of the limit",
    ]
    for row in report["kernels"]:
        lines.append(
            f"{row['kernel']:<22}{row['rows']:>6}{row['microseconds']:>11.1f}{row['gb_per_s']:>8.1f}"
            f"{row['gflop_per_s']:>9.1f}  {100 * row['of_the_limit']:>4.0f} % {row['limit']}"
        )
    return "\n".join(lines)


# ---- the cases


def _cases(device: Any) -> Iterator[Case]:
    for form in ("f32", "bf16", "f16", "q8", "q4", "s8", "s4"):
        for rows in (1, PREFILL):
            yield _linear(device, form, rows)
    for form in ("s8", "s4"):
        yield _linear(device, form, PREFILL, "i8")
    for rows in (1, PREFILL):
        yield from _row_wise(device, rows)
        yield _attention(device, rows)


def _weight(form: str) -> Any:
    rng = np.random.default_rng(0)
    copies = -(-(128 << 20) * 8 // (BITS[form] * MLP * HIDDEN))  # more than a cache holds
    shape = (copies * MLP, HIDDEN)
    if form[0] not in "qs":
        return rng.standard_normal(shape, dtype=np.float32).astype(DTYPES[form])
    bits = int(form[1:])
    codes = rng.integers(0, 2**32, (shape[0], HIDDEN * bits // 32), dtype=np.uint32)
    scales = rng.random((shape[0], HIDDEN // 32)).astype(np.float16)
    biases = scales * np.float16(-(1 << (bits - 1))) if form[0] == "s" else scales
    return codes, scales, biases, bits


def _linear(device: Any, form: str, rows: int, activations: str = "i16") -> Case:
    (whole,) = CPU.linear.pack(device, [_weight(form)], activations)
    weight = whole if rows == 1 else replace(whole, n=MLP)
    count = fixed_rows(device, rows)
    x, stride = device.empty((rows, HIDDEN), np.float32), 4 * HIDDEN
    x[:] = np.random.default_rng(1).standard_normal(x.shape)
    if codes := weight.codes:
        source, stride = x, codes.row_bytes(HIDDEN)
        x = device.empty((rows, stride), np.uint8)
        how = (source, count, HIDDEN, codes)
        device.capture([CPU.quantize.launch(device, x, *how, x_stride=HIDDEN)]).run()
    elif weight.activations == "bf16":
        source, stride = x, 2 * HIDDEN
        x = device.empty(x.shape, bfloat16)
        device.capture([CPU.cast.launch(device, x, source, count, HIDDEN)]).run()
    out = device.empty((rows, weight.n), np.float32)
    strides = {"x_stride": stride, "out_stride": 4 * weight.n}
    graph = device.capture(CPU.linear.launch(device, weight, x, out, count, **strides))
    work = 2 * rows * weight.n * HIDDEN
    limit = "read" if rows == 1 else LIMITS[weight.activations]
    name = f"linear {form}" if activations == "i16" else f"linear {form} {activations}"
    return Case(name, rows, graph, weight.nbytes, work, limit)


def _row_wise(device: Any, rows: int) -> Iterator[Case]:
    count = fixed_rows(device, rows)

    def floats(*shape: int) -> Any:
        out = device.empty(shape, np.float32)
        out[:] = np.random.default_rng(2).standard_normal(shape)
        return out

    x, out, weight = floats(rows, MLP), floats(rows, MLP), floats(HIDDEN)
    codes = quantize.Codes("i16", 32)
    record = device.empty((rows, codes.row_bytes(MLP)), np.uint8)
    table = device.asarray(rope.table(rope.frequencies(HEAD_DIM, 1e4), 64))
    positions = device.empty((rows,), np.int32)
    heads = {"heads": HEADS, "head_dim": HEAD_DIM}
    norm = CPU.rms_norm.launch(device, out, x, weight, 1e-5, count)
    add = CPU.elementwise.launch_binary(device, "add", out, x, x, count, HIDDEN)
    gated = CPU.silu_mul.launch(device, out, x, x, count, MLP)
    rounding = CPU.quantize.launch(device, record, x, count, MLP, codes, x_stride=MLP)
    turn = CPU.rope.launch(device, out, x, positions, table, count, **heads)
    launches = {  # launch, width, passes over memory, operations of an element
        "rms_norm": (norm, HIDDEN, 2, 4),
        "add": (add, HIDDEN, 3, 1),
        "silu_mul": (gated, MLP, 3, 20),
        "quantize": (rounding, MLP, 2, 6),
        "rope": (turn, HIDDEN, 2, 3),
    }
    for name, (launch, width, passes, work) in launches.items():
        nbytes, operations = 4 * passes * rows * width, work * rows * width
        graph = device.capture([launch] * REPEAT)
        yield Case(name, rows, graph, nbytes, operations, "read", REPEAT)


def _attention(device: Any, rows: int) -> Case:
    """Decode: one row after CONTEXT tokens. Prefill: the last rows of CONTEXT tokens."""
    blocks = CONTEXT // 16
    layout = attention.KVLayout(blocks + 1, KV_HEADS, HEAD_DIM, 16, np.float16)
    [pages] = layout.empty(device)
    q = device.empty((rows, HEADS, HEAD_DIM), np.float32)
    q[:] = np.random.default_rng(3).standard_normal(q.shape)
    positions = device.asarray(np.arange(CONTEXT - rows, CONTEXT, dtype=np.int32))
    tables = device.asarray(np.arange(1, blocks + 1, dtype=np.int32)[None])
    sequences = device.empty((rows,), np.int32)
    step = attention.StepRows(fixed_rows(device, rows), positions, sequences, tables)
    out, scratch = (
        device.empty(q.shape, np.float32),
        CPU.attention.scratch(device, HEAD_DIM, CONTEXT),
    )
    shape = {"heads": HEADS, "scale": HEAD_DIM**-0.5}
    launches = CPU.attention.attend(device, layout, out, q, *pages, step, scratch, **shape)
    operations = 4 * HEADS * HEAD_DIM * int((positions + 1).sum())
    limit = "read" if rows == 1 else "fma"
    repeat = REPEAT if rows == 1 else 1
    graph = device.capture(launches * repeat)
    return Case("paged_attention", rows, graph, layout.nbytes, operations, limit, repeat)
