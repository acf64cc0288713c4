"""Kernels that do nothing but reach the machine's limits. Source; see `limits.py`."""

from __future__ import annotations

from typing import Any

from nanocupy.device.cpu.limits import chains
from nanocupy.device.cpu.simd import (
    VF,
    VI,
    A,
    const,
    emit_dot_bf16,
    emit_dot_i16,
    emit_fma,
    emit_loop,
    emit_prefetch,
    i4,
    iadd,
    iload,
    isplat,
    istore,
    op,
    pointer,
    void,
)

AHEAD = 6144  # bytes; memory is read faster than the hardware looks ahead


@op(void, A)
def prefetch(b: Any, p: Any) -> None:
    emit_prefetch(b, p)


def read(a, thread, threads):
    """Add up a stretch of memory, in lines of 64 bytes. a: memory, bytes, out (a line a thread)."""
    lines = a[1] // 512
    first, last = lines * thread // threads, lines * (thread + 1) // threads
    p = a[0] + 512 * first
    s0 = s1 = s2 = s3 = isplat(i4(0))
    for _ in range(last - first):
        for line in range(0, 512, 64):
            prefetch(p + AHEAD + line)
        s0 = iadd(s0, iload(p))
        s1 = iadd(s1, iload(p + 64))
        s2 = iadd(s2, iload(p + 128))
        s3 = iadd(s3, iload(p + 192))
        s0 = iadd(s0, iload(p + 256))
        s1 = iadd(s1, iload(p + 320))
        s2 = iadd(s2, iload(p + 384))
        s3 = iadd(s3, iload(p + 448))
        p += 512
    istore(a[2] + 64 * thread, iadd(iadd(s0, s1), iadd(s2, s3)))
    return 0


def _chains(name: str, step: Any) -> Any:
    """chains(steps, out): as many independent chains of step(c) as hide its latency."""

    def emit(b: Any, steps: Any, out: Any) -> None:
        place = pointer(b, out, VI)
        start = [b.load(place, align=4)] * chains()
        total, *others = emit_loop(b, steps, start, lambda _, values: [step(b, c) for c in values])
        for other in others:
            total = b.add(total, other)
        b.store(total, place, align=4)

    emit.__name__ = name
    return op(void, A, A)(emit)


def _fma(b: Any, c: Any) -> Any:
    x, y = const(VF, 0.999), const(VF, 0.001)
    return b.bitcast(emit_fma(b, b.bitcast(c, VF), x, y), VI)


def _dot(b: Any, c: Any) -> Any:
    return emit_dot_i16(b, c, c, const(VI, 0x00030002))


def _bf16(b: Any, c: Any) -> Any:
    ones = const(VI, 0x3F803F80)
    return b.bitcast(emit_dot_bf16(b, b.bitcast(c, VF), ones, ones), VI)


fma_chains, dot_chains = _chains("fma_chains", _fma), _chains("dot_chains", _dot)
bf16_chains = _chains("bf16_chains", _bf16)


def fma(a, thread, threads):
    """Independent chains of fma. a: steps, out (a line a thread)."""
    fma_chains(a[0], a[1] + 64 * thread)
    return 0


def dot(a, thread, threads):
    """Independent chains of 16-bit dot products. a: steps, out (a line a thread)."""
    dot_chains(a[0], a[1] + 64 * thread)
    return 0


def bf16(a, thread, threads):
    """Independent chains of dot products of pairs of bf16. a: steps, out (a line a thread)."""
    bf16_chains(a[0], a[1] + 64 * thread)
    return 0
