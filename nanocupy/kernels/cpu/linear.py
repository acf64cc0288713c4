"""Linear layers: tiles of MR rows x NV panels, generated for every weight format.

One tile generator serves one row and a thousand. An output has one accumulator, K ascends, and each
step is the same instruction whatever MR and NV are; so a row's result does not depend on the rows
it is computed with, and GEMV = GEMM to the bit.

A kernel's name says its format: `dense_f32`, `dense_f16`, `dense_bf16` with f32 activations;
`q4_g32_f16_f32` (4 bits, groups of 32, f16 scales, f32 activations); `q4_g32_f16_i16` (the same
with int8 activations). Layouts are described in `nanocupy.kernels.linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nanocupy.device.cpu.raw import load_f32, load_i64, store_f32
from nanocupy.device.cpu.simd import (
    VF,
    VH,
    VI,
    A,
    const,
    emit_bf16_to_f32,
    emit_dot_u8s8,
    emit_f16_to_f32,
    emit_fma,
    emit_loop,
    f32,
    fn,
    i32,
    k,
    op,
    pointer,
    splat,
    vload,
    void,
    vstore,
)

PANELS = 4  # panels of 16 outputs that lie interleaved in memory
ROW_BLOCK = 96  # rows whose activations stay in L2 while the weights pass by
WIDE = (12, 4, 2, 1)  # tile heights, f32 accumulators only
NARROW = (6, 4, 2, 1)  # tile heights where integer and float accumulators are both alive


def at(b: Any, base: Any, offset: Any) -> Any:
    return b.add(base, k(offset) if isinstance(offset, int) else offset)


def load(b: Any, address: Any, ty: Any, align: int) -> Any:
    return b.load(pointer(b, address, ty), align=align)


def scalar(b: Any, address: Any, ty: Any) -> Any:
    """The 32-bit value at the address in every lane."""
    return splat(b, load(b, address, ty, 4))


# ---- inner products, one generator per kind of weight
# dot(b, rows, base, panel, NV, K) -> accumulators [row][panel], where `rows` are addresses of
# activation rows, `base` the address of a group of four panels, `panel` the first panel of it to
# use.


def dense_dot(kind: str) -> Callable[..., list[Any]]:
    """Weights f32, f16 or bf16 (pairs along K), activations f32."""
    line = {"f32": 64, "f16": 32, "bf16": 64}[kind]

    def weights(b: Any, address: Any) -> list[Any]:
        if kind == "f32":
            return [load(b, address, VF, 4)]
        if kind == "f16":
            return [emit_f16_to_f32(b, load(b, address, VH, 2))]
        pair = load(b, address, VI, 4)
        low = b.bitcast(b.shl(pair, const(VI, 16)), VF)
        return [low, b.bitcast(b.and_(pair, const(VI, 0xFFFF0000)), VF)]

    def dot(b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any) -> list[Any]:
        first = b.add(base, b.mul(panel, k(line)))
        per = 2 if kind == "bf16" else 1

        def step(i: Any, acc: list[Any]) -> list[Any]:
            here = b.add(first, b.mul(i, k(line * PANELS)))
            w = [weights(b, at(b, here, line * v)) for v in range(nv)]
            for part in range(per):
                offset = at(b, b.mul(i, k(4 * per)), 4 * part)
                for r, row in enumerate(rows):
                    x = scalar(b, b.add(row, offset), f32)
                    for v in range(nv):
                        n = r * nv + v
                        acc[n] = emit_fma(b, w[v][part], x, acc[n])
            return acc

        zero = [const(VF, 0.0)] * (len(rows) * nv)
        return emit_loop(b, b.sdiv(size, k(per)), zero, step)

    return dot


class Affine:
    """Where things lie in a quantised block: 64 rows x one group along K."""

    def __init__(self, bits: int, group: int, scale: str) -> None:
        self.bits, self.group, self.scale = bits, group, scale
        self.lines = group * bits // 32  # lines of 64 bytes per panel
        self.codes = 64 * PANELS * self.lines
        self.width = 64 if scale == "f32" else 32  # bytes of 16 scales
        self.bytes = self.codes + 2 * PANELS * self.width

    def affine(self, b: Any, block: Any, panel: Any, v: int) -> tuple[Any, Any]:
        """(scales, biases) of panel + v, as f32."""
        first = b.add(at(b, block, self.codes + v * self.width), b.mul(panel, k(self.width)))
        return self._read(b, first), self._read(b, at(b, first, PANELS * self.width))

    def _read(self, b: Any, address: Any) -> Any:
        if self.scale == "f32":
            return load(b, address, VF, 4)
        half = load(b, address, VH, 2)
        return (emit_f16_to_f32 if self.scale == "f16" else emit_bf16_to_f32)(b, half)

    def line(self, b: Any, block: Any, panel: Any, v: int, j: Any) -> Any:
        """Line j of panel + v: 16 rows x 4 bytes."""
        row = b.add(b.mul(j, k(64 * PANELS)), b.mul(panel, k(64)))
        return load(b, b.add(at(b, block, 64 * v), row), VI, 4)

    def quads(self, b: Any, raw: Any) -> list[tuple[int, Any]]:
        """(offset along K within the group, four codes a lane) held by one line."""
        if self.bits == 8:
            return [(0, raw)]
        mask = const(VI, 0x0F0F0F0F)
        return [(0, b.and_(raw, mask)), (self.group // 2, b.and_(b.lshr(raw, const(VI, 4)), mask))]


def integer_dot(layout: Affine) -> Callable[..., list[Any]]:
    """Codes times 16-bit activations in two byte planes, exact in a group.

    A group's dot is 128 * (codes . high) + codes . low; then acc += bias*sum, acc += scale*dot.
    """

    def dots(
        b: Any,
        rows: list[Any],
        block: Any,
        panel: Any,
        nv: int,
        planes: list[Any],
        start: list[Any],
    ) -> list[Any]:
        """Add the codes of a block times each plane to the accumulators [plane][row][panel]."""
        ints = list(start)
        for j in range(layout.lines):
            raw = [layout.line(b, block, panel, v, k(j)) for v in range(nv)]
            quads = [layout.quads(b, w) for w in raw]
            for part, (offset, _) in enumerate(quads[0]):
                for p, plane in enumerate(planes):
                    for r, row in enumerate(rows):
                        x = scalar(b, at(b, b.add(row, plane), offset + 4 * j), i32)
                        for v in range(nv):
                            n = (p * len(rows) + r) * nv + v
                            ints[n] = emit_dot_u8s8(b, ints[n], quads[v][part][1], x)
        return ints

    def dot(b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any) -> list[Any]:
        count = len(rows) * nv
        seven = const(VI, 7)

        def group(g: Any, acc: list[Any]) -> list[Any]:
            block = b.add(base, b.mul(g, k(layout.bytes)))
            high = b.mul(g, k(layout.group))
            low = b.add(high, size)
            where = (b, rows, block, panel, nv)
            if count <= 8:  # enough registers to read the codes once
                both = dots(*where, [high, low], [const(VI, 0)] * (2 * count))
                ints = [b.add(b.shl(h, seven), x) for h, x in zip(both, both[count:], strict=False)]
            else:
                ints = dots(*where, [high], [const(VI, 0)] * count)
                ints = dots(*where, [low], [b.shl(h, seven) for h in ints])
            parts = [layout.affine(b, block, panel, v) for v in range(nv)]
            for r, row in enumerate(rows):
                meta = b.add(b.add(row, b.shl(size, k(1))), b.mul(g, k(8)))
                scale, total = scalar(b, meta, f32), scalar(b, at(b, meta, 4), f32)
                for v, (s, bias) in enumerate(parts):
                    n = r * nv + v
                    acc[n] = emit_fma(b, bias, total, acc[n])
                    value = b.fmul(b.sitofp(ints[n], VF), scale)
                    acc[n] = emit_fma(b, s, value, acc[n])
            return acc

        zero = [const(VF, 0.0)] * count
        return emit_loop(b, b.sdiv(size, k(layout.group)), zero, group)

    return dot


def dequantised_dot(layout: Affine) -> Callable[..., list[Any]]:
    """w = code*scale + bias rounded to f32, times f32 activations: weights exactly as stored."""

    def dot(b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any) -> list[Any]:
        def group(g: Any, acc: list[Any]) -> list[Any]:
            block = b.add(base, b.mul(g, k(layout.bytes)))
            start = b.mul(g, k(4 * layout.group))
            parts = [layout.affine(b, block, panel, v) for v in range(nv)]

            def line(j: Any, acc: list[Any]) -> list[Any]:
                quads = [layout.quads(b, layout.line(b, block, panel, v, j)) for v in range(nv)]
                for part, (offset, _) in enumerate(quads[0]):
                    for byte in range(4):
                        column = b.add(start, b.mul(j, k(16)))
                        w = [
                            emit_fma(b, _byte(b, quads[v][part][1], byte), s, bias)
                            for v, (s, bias) in enumerate(parts)
                        ]
                        for r, row in enumerate(rows):
                            x = scalar(b, at(b, b.add(row, column), 4 * (offset + byte)), f32)
                            for v in range(nv):
                                acc[r * nv + v] = emit_fma(b, w[v], x, acc[r * nv + v])
                return acc

            return emit_loop(b, k(layout.lines), acc, line)

        zero = [const(VF, 0.0)] * (len(rows) * nv)
        return emit_loop(b, b.sdiv(size, k(layout.group)), zero, group)

    return dot


def _byte(b: Any, quads: Any, byte: int) -> Any:
    """Byte number `byte` of each lane, as f32."""
    return b.sitofp(b.and_(b.lshr(quads, const(VI, 8 * byte)), const(VI, 255)), VF)


# ---- tiles and kernels


def tile(dot: Callable[..., list[Any]], mr: int, nv: int) -> Any:
    """tile(x, x_stride, base, panel, K, c, c_stride): mr rows x nv panels of outputs at c."""

    def emit(b: Any, x: Any, xs: Any, base: Any, panel: Any, size: Any, c: Any, cs: Any) -> None:
        rows = [b.add(x, b.mul(xs, k(r))) for r in range(mr)]
        acc = dot(b, rows, base, panel, nv, size)
        for r in range(mr):
            for v in range(nv):
                address = at(b, b.add(c, b.mul(cs, k(r))), 64 * v)
                b.store(acc[r * nv + v], pointer(b, address, VF), align=4)

    emit.__name__ = f"tile_{mr}x{nv}"
    return op(void, *[A] * 7)(emit)


@fn
def add_bias(c, stride, rows, bias):
    """Add 32 biases to 32 outputs of each row."""
    low, high = vload(bias), vload(bias + 64)
    for r in range(rows):
        row = c + r * stride
        vstore(row, vload(row) + low)
        vstore(row + 64, vload(row + 64) + high)


@fn
def copy_columns(source, target, stride, rows, columns):
    for r in range(rows):
        for n in range(columns):
            store_f32(target + r * stride + 4 * n, load_f32(source + 128 * r + 4 * n))


def build(
    dot: Callable[..., list[Any]], heights: tuple[int, int, int, int], group_bytes: Any
) -> Any:
    """The kernel of one format. Threads share out pairs of panels: 32 outputs each.

    a: weights, x, out, rows*, K, N, x stride, out stride (bytes), bias* or 0, scratch, scratch
    stride.
    """
    m0, m1, m2, _ = heights
    t0, t1, t2, t3 = (tile(dot, m, 2) for m in heights)
    wide = tile(dot, 1, PANELS)

    @fn
    def rows_of_pair(x, xs, base, panel, size, c, cs, rows):
        r = 0
        while r + m0 <= rows:
            t0(x + r * xs, xs, base, panel, size, c + r * cs, cs)
            r += m0
        while r + m1 <= rows:
            t1(x + r * xs, xs, base, panel, size, c + r * cs, cs)
            r += m1
        while r + m2 <= rows:
            t2(x + r * xs, xs, base, panel, size, c + r * cs, cs)
            r += m2
        while r < rows:
            t3(x + r * xs, xs, base, panel, size, c + r * cs, cs)
            r += 1

    def kernel(a, thread, threads):
        weights, x, out, size, width, xs, cs, bias = a[0], a[1], a[2], a[4], a[5], a[6], a[7], a[8]
        rows = load_i64(a[3])
        scratch = a[9] + thread * a[10]
        pairs = (width + 31) // 32
        first, last = pairs * thread // threads, pairs * (thread + 1) // threads
        for start in range(0, rows, ROW_BLOCK):
            count = min(ROW_BLOCK, rows - start)
            u = first
            while u < last:
                base = weights + (u // 2) * group_bytes(size)
                source, target = x + start * xs, out + start * cs + 128 * u
                if count == 1 and u % 2 == 0 and u + 1 < last and 32 * (u + 2) <= width:
                    wide(source, xs, base, 0, size, target, cs)
                    if bias != 0:
                        add_bias(target, cs, 1, bias + 128 * u)
                        add_bias(target + 128, cs, 1, bias + 128 * (u + 1))
                    u += 2
                    continue
                columns = min(32, width - 32 * u)
                c, stride = target, cs
                if columns < 32:
                    c, stride = scratch, 128
                rows_of_pair(source, xs, base, 2 * (u % 2), size, c, stride, count)
                if bias != 0:
                    add_bias(c, stride, count, bias + 128 * u)
                if columns < 32:
                    copy_columns(scratch, target, cs, count, columns)
                u += 1
        return 0

    return kernel


def _affine_kernel(bits: int, group: int, scale: str, activations: str) -> Any:
    layout = Affine(bits, group, scale)
    block = layout.bytes

    @fn
    def group_bytes(size):
        return size // group * block

    dot = integer_dot(layout) if activations == "i16" else dequantised_dot(layout)
    return build(dot, NARROW, group_bytes)


def _dense_kernel(kind: str) -> Any:
    itemsize = 4 if kind == "f32" else 2

    @fn
    def group_bytes(size):
        return 16 * PANELS * itemsize * size

    return build(dense_dot(kind), WIDE, group_bytes)


def __getattr__(name: str) -> Any:
    """The kernel of the format that the name says."""
    if name in ("dense_f32", "dense_f16", "dense_bf16"):
        return _dense_kernel(name.removeprefix("dense_"))
    if name.startswith("q"):
        bits, group, scale, activations = name.split("_")
        return _affine_kernel(int(bits[1:]), int(group[1:]), scale, activations)
    raise AttributeError(name)
