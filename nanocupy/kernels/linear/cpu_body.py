"""Linear layers: tiles of MR rows x NV panels, generated for every weight format.

One tile generator serves one row and a thousand. An output has one accumulator, K ascends, and each
step is the same instruction whatever MR and NV are; so a row's result does not depend on the rows
it is computed with, and GEMV = GEMM to the bit.

A kernel's name says its format, then its activations: `dense_f32_f32`, `dense_f16_f32`,
`dense_bf16_f32`, `dense_bf16_bf16`; `q4_g32_f16_f32` (4 bits, groups of 32, f16 scales), and the
same with `_i16` or `_i8`; `s4_...` where no biases are stored. `cpu.py` has the
layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nanocupy.device.cpu import target
from nanocupy.device.cpu.raw import load_f32, load_i64, store_f32
from nanocupy.device.cpu.simd import (
    VF,
    VH,
    VI,
    A,
    const,
    emit_bf16_to_f32,
    emit_dot_bf16,
    emit_dot_i16,
    emit_dot_u8s8,
    emit_f16_to_f32,
    emit_fma,
    emit_loop,
    emit_prefetch,
    emit_widen,
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
from nanocupy.kernels.kernel import indices
from nanocupy.kernels.linear.cpu import ROW_BLOCK, LinearArgs

PANELS = 4  # panels of 16 outputs that lie interleaved in memory
AHEAD = 6144  # bytes from what one row reads to what it prefetches
ARGS = indices(LinearArgs)


class Tiles(NamedTuple):
    """Tiles that fit the registers: heights in rows, tallest first, and a width in panels."""

    heights: tuple[int, int, int, int]
    panels: int  # 1 or 2


def tiles(integers: bool) -> Tiles:
    """The tiles for the SIMD level, with integer accumulators beside those of f32 or without."""
    if target.level() == "avx512":  # 32 registers of one panel each
        return Tiles((6, 4, 2, 1), 2) if integers else Tiles((12, 4, 2, 1), 2)
    return Tiles((4, 2, 1, 1), 1) if integers else Tiles((6, 4, 2, 1), 1)  # 16 of half a panel


def at(b: Any, base: Any, offset: Any) -> Any:
    return b.add(base, k(offset) if isinstance(offset, int) else offset)


def load(b: Any, address: Any, ty: Any, align: int) -> Any:
    return b.load(pointer(b, address, ty), align=align)


def prefetch_lines(b: Any, address: Any, nv: int, ahead: Any) -> None:
    """Ask for what the same panels read `ahead` bytes on.

    One row reads memory as one stream, faster than the hardware looks ahead. Tiles of few panels
    leave gaps, which it does not see through; so the first rows ask for the next group of outputs,
    and the others (0) for nothing.
    """
    for v in range(nv):
        emit_prefetch(b, at(b, b.add(address, ahead), 64 * v))


def scalar(b: Any, address: Any, ty: Any) -> Any:
    """The 32-bit value at the address in every lane."""
    return splat(b, load(b, address, ty, 4))


# ---- inner products, one generator per kind of weight
# dot(b, rows, base, panel, NV, K, ahead) -> accumulators [row][panel], where `rows` are addresses
# of activation rows, `base` the address of a group of four panels, `panel` the first panel of it
# to use. See `prefetch_lines` for `ahead`.


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

    def dot(
        b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any, ahead: Any
    ) -> list[Any]:
        first = b.add(base, b.mul(panel, k(line)))
        per = 2 if kind == "bf16" else 1

        def step(i: Any, acc: list[Any]) -> list[Any]:
            here = b.add(first, b.mul(i, k(line * PANELS)))
            prefetch_lines(b, here, nv, ahead)
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


def bf16_dot(
    b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any, ahead: Any
) -> list[Any]:
    """Weights and activations bf16: a pair along K at a time."""
    first = b.add(base, b.mul(panel, k(64)))

    def step(i: Any, acc: list[Any]) -> list[Any]:
        here = b.add(first, b.mul(i, k(64 * PANELS)))
        prefetch_lines(b, here, nv, ahead)
        w = [load(b, at(b, here, 64 * v), VI, 4) for v in range(nv)]
        for r, row in enumerate(rows):
            x = scalar(b, b.add(row, b.mul(i, k(4))), i32)
            for v in range(nv):
                acc[r * nv + v] = emit_dot_bf16(b, acc[r * nv + v], w[v], x)
        return acc

    return emit_loop(b, b.sdiv(size, k(2)), [const(VF, 0.0)] * (len(rows) * nv), step)


class Affine:
    """Where things lie in a quantised block: 64 rows x one group along K."""

    def __init__(self, bits: int, group: int, scale: str, symmetric: bool) -> None:
        self.bits, self.group, self.scale, self.symmetric = bits, group, scale, symmetric
        self.lines = group * bits // 32  # lines of 64 bytes per panel
        self.codes = 64 * PANELS * self.lines
        self.width = 64 if scale == "f32" else 32  # bytes of 16 scales
        self.bytes = self.codes + (1 if symmetric else 2) * PANELS * self.width

    def scales(self, b: Any, block: Any, panel: Any, v: int) -> Any:
        """Scales of panel + v, as f32."""
        first = b.add(at(b, block, self.codes + v * self.width), b.mul(panel, k(self.width)))
        return self._read(b, first)

    def biases(self, b: Any, block: Any, panel: Any, v: int) -> Any:
        """Biases of panel + v, as f32."""
        if self.symmetric:
            zero = const(VF, -float(1 << (self.bits - 1)))
            return b.fmul(self.scales(b, block, panel, v), zero)
        return self.scales(b, at(b, block, PANELS * self.width), panel, v)

    def _read(self, b: Any, address: Any) -> Any:
        if self.scale == "f32":
            return load(b, address, VF, 4)
        half = load(b, address, VH, 2)
        return (emit_f16_to_f32 if self.scale == "f16" else emit_bf16_to_f32)(b, half)

    def place(self, b: Any, block: Any, panel: Any, j: Any) -> Any:
        """Where line j of a panel lies."""
        return b.add(block, b.add(b.mul(j, k(64 * PANELS)), b.mul(panel, k(64))))

    def line(self, b: Any, block: Any, panel: Any, v: int, j: Any) -> Any:
        """Line j of panel + v: 16 rows x 4 bytes."""
        return load(b, at(b, self.place(b, block, panel, j), 64 * v), VI, 4)

    @property
    def offsets(self) -> list[int]:
        """Where a line's pairs of codes find their activations, in bytes of 16-bit rows."""
        return [4 * odd + self.group * high for odd in (0, 1) for high in range(8 // self.bits)]

    def pair(self, b: Any, raw: Any, part: int) -> Any:
        """Two codes a lane, as i16, of a line: those at `offsets[part]`."""
        odd, high = divmod(part, 8 // self.bits)
        mask = const(VI, (1 << self.bits) - 1 << 16 | (1 << self.bits) - 1)
        return b.and_(b.lshr(raw, const(VI, 8 * odd + 4 * high)), mask)

    def quads(self, b: Any, raw: Any) -> list[tuple[int, Any]]:
        """(offset along K within the group, four codes a lane) held by one line."""
        if self.bits == 8:
            return [(0, raw)]
        mask = const(VI, 0x0F0F0F0F)
        return [(0, b.and_(raw, mask)), (self.group // 2, b.and_(b.lshr(raw, const(VI, 4)), mask))]


def words_dot(layout: Affine) -> Callable[..., list[Any]]:
    """sums(b, rows, block, panel, NV, g, ahead, nothing, start): exact sums [row][panel], on top of
    `start`, of a block's codes times group g of 16-bit activations.

    `nothing` is 0 and LLVM does not know it: a loop that it unrolls it also reorders, until no
    register is left.
    """

    def sums(
        b: Any,
        rows: list[Any],
        block: Any,
        panel: Any,
        nv: int,
        g: Any,
        ahead: Any,
        nothing: Any,
        start: list[Any],
    ) -> list[Any]:
        def line(j: Any, acc: list[Any]) -> list[Any]:
            prefetch_lines(b, layout.place(b, block, panel, j), nv, ahead)
            here = b.add(b.mul(g, k(2 * layout.group)), b.mul(j, k(8)))
            for some in [range(nv)] if len(rows) > 1 else [[v] for v in range(nv)]:
                raw = {v: layout.line(b, block, panel, v, j) for v in some}
                for part, offset in enumerate(layout.offsets):
                    w = {v: layout.pair(b, word, part) for v, word in raw.items()}
                    for r, row in enumerate(rows):
                        x = scalar(b, at(b, b.add(row, here), offset), i32)
                        for v in some:
                            acc[r * nv + v] = emit_dot_i16(b, acc[r * nv + v], w[v], x)
            return acc

        return emit_loop(b, b.add(k(layout.lines), nothing), start, line)

    return sums


def bytes_dot(layout: Affine) -> Callable[..., list[Any]]:
    """As `words_dot`, for 8-bit activations."""
    chunk = layout.bits  # lines that give every byte of a lane 8 products

    def sums(
        b: Any,
        rows: list[Any],
        block: Any,
        panel: Any,
        nv: int,
        g: Any,
        ahead: Any,
        nothing: Any,
        start: list[Any],
    ) -> list[Any]:
        def line(j: Any, acc: list[Any]) -> list[Any]:
            prefetch_lines(b, layout.place(b, block, panel, j), nv, ahead)
            here = b.add(b.mul(g, k(layout.group)), b.mul(j, k(4)))
            quads = [layout.quads(b, layout.line(b, block, panel, v, j)) for v in range(nv)]
            for part, (offset, _) in enumerate(quads[0]):
                for r, row in enumerate(rows):
                    x = scalar(b, at(b, b.add(row, here), offset), i32)
                    for v in range(nv):
                        n = r * nv + v
                        acc[n] = emit_dot_u8s8(b, acc[n], quads[v][part][1], x)
            return acc

        total = start
        for first in range(0, layout.lines, chunk):

            def from_first(j: Any, acc: list[Any], first: int = first) -> list[Any]:
                return line(b.add(j, k(first)), acc)

            zero, count = [const(VI, 0)] * len(total), min(chunk, layout.lines - first)
            part = emit_loop(b, b.add(k(count), nothing), zero, from_first)
            total = [b.add(t, emit_widen(b, p)) for t, p in zip(total, part, strict=True)]
        return total

    return sums


def integer_dot(layout: Affine, activations: str) -> Callable[..., list[Any]]:
    """Codes times integer activations, exact in a group; then acc += bias*sum (if there are
    biases), acc += scale*dot."""
    itemsize, sums_of = {"i16": (2, words_dot), "i8": (1, bytes_dot)}[activations]
    sums = sums_of(layout)

    def dot(
        b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any, ahead: Any
    ) -> list[Any]:
        def group(g: Any, acc: list[Any]) -> list[Any]:
            block = b.add(base, b.mul(g, k(layout.bytes)))
            meta = [b.add(b.add(r, b.mul(size, k(itemsize))), b.mul(g, k(8))) for r in rows]
            start = [const(VI, 0)] * (len(rows) * nv)
            if layout.symmetric:
                start = [scalar(b, at(b, m, 4), i32) for m in meta for _ in range(nv)]
            ints = sums(b, rows, block, panel, nv, g, ahead, b.lshr(size, k(62)), start)
            scales = [layout.scales(b, block, panel, v) for v in range(nv)]
            biases = (
                [] if layout.symmetric else [layout.biases(b, block, panel, v) for v in range(nv)]
            )
            for r, m in enumerate(meta):
                scale = scalar(b, m, f32)
                total = scalar(b, at(b, m, 4), f32) if biases else None
                for v in range(nv):
                    n = r * nv + v
                    if biases:
                        acc[n] = emit_fma(b, biases[v], total, acc[n])
                    value = b.fmul(b.sitofp(ints[n], VF), scale)
                    acc[n] = emit_fma(b, scales[v], value, acc[n])
            return acc

        zero = [const(VF, 0.0)] * (len(rows) * nv)
        return emit_loop(b, b.sdiv(size, k(layout.group)), zero, group)

    return dot


def dequantised_dot(layout: Affine) -> Callable[..., list[Any]]:
    """w = code*scale + bias rounded to f32, times f32 activations: weights exactly as stored."""

    def dot(
        b: Any, rows: list[Any], base: Any, panel: Any, nv: int, size: Any, ahead: Any
    ) -> list[Any]:
        def group(g: Any, acc: list[Any]) -> list[Any]:
            block = b.add(base, b.mul(g, k(layout.bytes)))
            start = b.mul(g, k(4 * layout.group))
            parts = [
                (layout.scales(b, block, panel, v), layout.biases(b, block, panel, v))
                for v in range(nv)
            ]

            def line(j: Any, acc: list[Any]) -> list[Any]:
                quads = [layout.quads(b, layout.line(b, block, panel, v, j)) for v in range(nv)]
                prefetch_lines(b, layout.place(b, block, panel, j), nv, ahead)
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
    """tile(x, x_stride, base, panel, K, c, c_stride, ahead): mr rows x nv panels, to c."""

    def emit(
        b: Any, x: Any, xs: Any, base: Any, panel: Any, size: Any, c: Any, cs: Any, ahead: Any
    ) -> None:
        rows = [b.add(x, b.mul(xs, k(r))) for r in range(mr)]
        acc = dot(b, rows, base, panel, nv, size, ahead)
        for r in range(mr):
            for v in range(nv):
                address = at(b, b.add(c, b.mul(cs, k(r))), 64 * v)
                b.store(acc[r * nv + v], pointer(b, address, VF), align=4)

    emit.__name__ = f"tile_{mr}x{nv}"
    return op(void, *[A] * 8)(emit)


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


def build(dot: Callable[..., list[Any]], shape: Tiles, group_bytes: Any) -> Any:
    """The kernel of one format. Threads share pairs of panels: 32 outputs each."""
    m0, m1, m2, _ = shape.heights
    nv = shape.panels
    t0, t1, t2, t3 = (tile(dot, m, nv) for m in shape.heights)
    one_row = tile(dot, 1, 2)
    one_row_wide = tile(dot, 1, PANELS)

    @fn
    def rows_of_panels(x, xs, base, panel, size, c, cs, rows, ahead):
        r = 0
        while r + m0 <= rows:
            t0(x + r * xs, xs, base, panel, size, c + r * cs, cs, ahead)
            r += m0
            ahead = 0
        while r + m1 <= rows:
            t1(x + r * xs, xs, base, panel, size, c + r * cs, cs, ahead)
            r += m1
            ahead = 0
        while r + m2 <= rows:
            t2(x + r * xs, xs, base, panel, size, c + r * cs, cs, ahead)
            r += m2
            ahead = 0
        while r < rows:
            t3(x + r * xs, xs, base, panel, size, c + r * cs, cs, ahead)
            r += 1
            ahead = 0

    @fn
    def rows_of_pair(x, xs, base, panel, size, c, cs, rows):
        if rows == 1:
            one_row(x, xs, base, panel, size, c, cs, AHEAD)
            return
        for p in range(0, 2, nv):
            ahead = group_bytes(size)
            rows_of_panels(x, xs, base, panel + p, size, c + 64 * p, cs, rows, ahead)

    def kernel(a, thread, threads):
        size, width, xs, cs, bias = (
            a[ARGS.size],
            a[ARGS.n],
            a[ARGS.x_stride],
            a[ARGS.out_stride],
            a[ARGS.bias],
        )
        rows, scratch = load_i64(a[ARGS.rows]), a[ARGS.scratch] + thread * a[ARGS.scratch_bytes]
        pairs = (width + 31) // 32
        first, last = pairs * thread // threads, pairs * (thread + 1) // threads
        for start in range(0, rows, ROW_BLOCK):
            count = min(ROW_BLOCK, rows - start)
            u = first
            while u < last:
                base = a[ARGS.weight] + (u // 2) * group_bytes(size)
                source, target = a[ARGS.x] + start * xs, a[ARGS.out] + start * cs + 128 * u
                if count == 1 and u % 2 == 0 and u + 1 < last and 32 * (u + 2) <= width:
                    one_row_wide(source, xs, base, 0, size, target, cs, AHEAD)
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


def _affine_kernel(layout: Affine, activations: str) -> Any:
    group, block = layout.group, layout.bytes

    @fn
    def group_bytes(size):
        return size // group * block

    exact = activations == "f32"
    dot = dequantised_dot(layout) if exact else integer_dot(layout, activations)
    return build(dot, tiles(integers=not exact), group_bytes)


def _dense_kernel(kind: str, activations: str) -> Any:
    itemsize = 4 if kind == "f32" else 2

    @fn
    def group_bytes(size):
        return 16 * PANELS * itemsize * size

    dot = bf16_dot if activations == "bf16" else dense_dot(kind)
    return build(dot, tiles(integers=False), group_bytes)


def __getattr__(name: str) -> Any:
    """The kernel of the format that the name says."""
    kind, *parts = name.split("_")
    if kind == "dense":
        return _dense_kernel(*parts)
    if kind in ("q4", "q8", "s4", "s8"):
        group, scale, activations = parts
        layout = Affine(int(kind[1:]), int(group[1:]), scale, symmetric=kind[0] == "s")
        return _affine_kernel(layout, activations)
    raise AttributeError(name)
