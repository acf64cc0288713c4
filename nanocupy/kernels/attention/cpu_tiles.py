"""The two products of attention, as register tiles: several queries against K or V of the cache.

A tile serves n queries that share a KV head (heads of its group, rows of one sequence). Every query
has its own accumulators and always the same sequence of fma, so n never changes a bit of a result;
it only says how often a loaded K or V serves. Queries lie PITCH bytes apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nanocupy.device.cpu import target
from nanocupy.device.cpu.simd import (
    LANES,
    VF,
    VH,
    VI,
    A,
    F,
    const,
    emit_bf16_to_f32,
    emit_exp_negative,
    emit_f16_to_f32,
    emit_fma,
    emit_loop,
    emit_prefetch,
    f32,
    fn,
    i8,
    i64,
    op,
    pick,
    pointer,
    splat,
    vector,
    void,
)
from nanocupy.kernels.attention.cpu_scratch import PITCH

AHEAD = 3  # how many tiles of V before its use a line is asked for
CACHE_LINE = 64
ITEMSIZE = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1}
SCALE_BYTES = {"f32": 0, "f16": 0, "bf16": 0, "i8": 4}  # of a token
_WIDE = target.level() == "avx512"
WIDTHS = (1, 2, 3, 4, 6, 8, 12) if _WIDE else (1, 2, 3, 4, 6)  # numbers of queries with a tile
MOST = WIDTHS[-1]
_WIDTH_BITS = sum(1 << n for n in WIDTHS)
_REGISTERS = 24 if _WIDE else 6  # accumulators that fit beside the operands


def _vectors(n: int) -> int:
    """How many vectors of K or V a tile of n queries takes at once."""
    return max(v for v in (1, 2, 4) if v == 1 or n * v <= _REGISTERS)


def _load(b: Any, address: Any, kind: str) -> Any:
    """Sixteen values of the cache as f32."""
    if kind == "f32":
        return b.load(pointer(b, address, VF), align=4)
    if kind == "i8":
        codes = b.load(pointer(b, address, vector(i8, LANES)), align=1)
        return b.sitofp(b.sext(codes, VI), VF)
    half = b.load(pointer(b, address, VH), align=2)
    return (emit_f16_to_f32 if kind == "f16" else emit_bf16_to_f32)(b, half)


def _at(b: Any, address: Any, offset: int) -> Any:
    return b.add(address, i64(offset))


def _times(b: Any, index: Any, step: int) -> Any:
    return b.mul(index, i64(step))


def _accumulate(b: Any, acc: list[Any], n: int, x: Any, vectors: list[Any]) -> list[Any]:
    """acc[query][vector] += x of the query * vector; x: address of the first query's."""
    out = []
    for j in range(n):
        value = splat(b, b.load(pointer(b, _at(b, x, PITCH * j), f32), align=4))
        for v, operand in enumerate(vectors):
            out.append(emit_fma(b, operand, value, acc[j * len(vectors) + v]))
    return out


def _score_tile(b: Any, n: int, kind: str, q: Any, table: Any, size: Any, out: Any) -> None:
    """Scores of n queries with the tiles at table[0], table[1], ... to `out`."""
    count, line = _vectors(n), 16 * ITEMSIZE[kind]
    tiles = [b.load(pointer(b, _at(b, table, 8 * t), i64)) for t in range(2 * count)]

    def step(i: Any, acc: list[Any]) -> list[Any]:
        row, x = _times(b, i, 2 * line), b.add(q, _times(b, i, 8))
        for tile in tiles[count:]:
            for offset in range(0, 2 * line, CACHE_LINE):
                emit_prefetch(b, _at(b, b.add(tile, row), offset))
        for d in range(2):
            keys = [_load(b, _at(b, b.add(tile, row), line * d), kind) for tile in tiles[:count]]
            acc = _accumulate(b, acc, n, _at(b, x, 4 * d), keys)
        return acc

    acc = emit_loop(b, b.ashr(size, i64(1)), [const(VF, 0.0)] * (n * count), step)
    if kind == "i8":
        behind = _times(b, size, 16)
        scales = [b.load(pointer(b, b.add(x, behind), VF), align=4) for x in tiles[:count]]
        acc = [b.fmul(a, scales[i % count]) for i, a in enumerate(acc)]
    for j in range(n):
        for t in range(count):
            place = pointer(b, _at(b, out, PITCH * j + 64 * t), VF)
            b.store(acc[j * count + t], place, align=4)


def scores(kind: str) -> Any:
    """scores(n, q, table, size, out, first, last): n queries with tiles first to last of a chunk.

    The table is read, and scores are written, from and up to a multiple of 4 tiles. What the four
    entries after that name is prefetched.
    """

    def emit(
        b: Any, n: Any, q: Any, table: Any, size: Any, out: Any, first: Any, last: Any
    ) -> None:
        def of_width(width: int) -> None:
            count = _vectors(width)
            start = b.and_(first, i64(-count))

            def tiles(i: Any, _: list[Any]) -> list[Any]:
                t = b.add(start, _times(b, i, count))
                place = b.add(out, _times(b, t, 64))
                _score_tile(b, width, kind, q, b.add(table, _times(b, t, 8)), size, place)
                return []

            missing = b.add(b.sub(last, start), i64(count - 1))
            emit_loop(b, b.sdiv(missing, i64(count)), [], tiles)

        _switch(b, n, of_width)

    emit.__name__ = f"scores_{kind}"
    return op(void, *[A] * 7)(emit)


def _value_tile(
    b: Any,
    n: int,
    count: int,
    kind: str,
    p: Any,
    first: Any,
    last: Any,
    table: Any,
    layout: Any,
    acc: Any,
) -> None:
    """acc[query][16 * count] += p . V over tokens first to last of the table's tiles.

    layout: (bytes from token to token, bytes before the columns, bytes from query to query of acc).
    """
    stride, offset, acc_stride = layout
    places = [
        pointer(b, _at(b, b.add(acc, b.mul(acc_stride, i64(j))), 64 * v), VF)
        for j in range(n)
        for v in range(count)
    ]

    def step(i: Any, sums: list[Any]) -> list[Any]:
        t = b.add(first, i)
        entry = b.add(table, _times(b, b.ashr(t, i64(4)), 8))
        row = b.add(b.mul(b.and_(t, i64(15)), stride), offset)
        ahead = b.add(b.load(pointer(b, _at(b, entry, 8 * AHEAD), i64)), row)
        for line in range(0, 16 * ITEMSIZE[kind] * count, CACHE_LINE):
            emit_prefetch(b, _at(b, ahead, line))
        place = b.add(b.load(pointer(b, entry, i64)), row)
        values = [_load(b, _at(b, place, 16 * ITEMSIZE[kind] * v), kind) for v in range(count)]
        return _accumulate(b, sums, n, b.add(p, _times(b, t, 4)), values)

    sums = emit_loop(b, b.sub(last, first), [b.load(x, align=4) for x in places], step)
    for value, place in zip(sums, places, strict=True):
        b.store(value, place, align=4)


def values(kind: str) -> Any:
    """values(n, p, first, last, table, size, acc): acc [n, size] += p . V, tokens first to last.

    At least one token. What the table names AHEAD of each tile is prefetched.
    """

    def emit(
        b: Any, n: Any, p: Any, first: Any, last: Any, table: Any, size: Any, acc: Any
    ) -> None:
        panels, itemsize = b.sdiv(size, i64(16)), ITEMSIZE[kind]

        def columns(width: int, count: int, start: Any, repeat: Any) -> None:
            def body(i: Any, _: list[Any]) -> list[Any]:
                panel = b.add(start, _times(b, i, count))
                row = (
                    _times(b, size, itemsize),
                    _times(b, panel, 16 * itemsize),
                    _times(b, size, 4),
                )
                sums = b.add(acc, _times(b, panel, 64))
                _value_tile(b, width, count, kind, p, first, last, table, row, sums)
                return []

            with b.if_then(b.icmp_signed(">", repeat, i64(0))):
                emit_loop(b, repeat, [], body)

        def of_width(width: int) -> None:
            count = _vectors(width)
            whole = b.sdiv(panels, i64(count))
            columns(width, count, i64(0), whole)
            if count > 1:
                done = _times(b, whole, count)
                columns(width, 1, done, b.sub(panels, done))

        _switch(b, n, of_width)

    emit.__name__ = f"values_{kind}"
    return op(void, *[A] * 7)(emit)


def _switch(b: Any, n: Any, body: Callable[[int], None]) -> None:
    """body(n), for n in WIDTHS."""
    done = b.append_basic_block("done")
    cases = b.switch(n, done)
    for width in WIDTHS:
        block = b.append_basic_block(f"width_{width}")
        cases.add_case(i64(width), block)
        b.position_at_end(block)
        body(width)
        b.branch(done)
    b.position_at_end(done)


def _exp_tiles(count: int) -> Any:
    """exp_tiles(p, largest, total): `count` tiles of scores at p -> exp(score - largest).

    Returns the total plus each tile in turn. Four at once hide the latency of one.
    """
    wide = vector(f32, LANES * count)

    def emit(b: Any, p: Any, largest: Any, total: Any) -> Any:
        place = pointer(b, p, wide)
        spread = largest if count == 1 else pick(b, largest, [*range(LANES)] * count)
        p = emit_exp_negative(b, b.fsub(b.load(place, align=4), spread))
        b.store(p, place, align=4)
        for t in range(count):
            part = p if count == 1 else pick(b, p, list(range(LANES * t, LANES * (t + 1))))
            total = b.fadd(total, part)
        return total

    emit.__name__ = f"exp_tiles_{count}"
    return op(F, A, F, F)(emit)


exp_tile, exp_four_tiles = _exp_tiles(1), _exp_tiles(4)


@fn
def width_above(n):
    """The smallest width that holds n queries, n <= MOST."""
    while not (_WIDTH_BITS >> n) & 1:
        n += 1
    return n


@fn
def width_below(n):
    """The largest width of at most n queries."""
    n = min(n, MOST)
    while not (_WIDTH_BITS >> n) & 1:
        n -= 1
    return n
