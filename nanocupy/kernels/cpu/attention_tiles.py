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
    VF,
    VH,
    A,
    const,
    emit_bf16_to_f32,
    emit_f16_to_f32,
    emit_fma,
    emit_loop,
    f32,
    fn,
    i64,
    op,
    pointer,
    splat,
    void,
)

PITCH = 1024  # bytes from query to query: 256 f32 of q, or of probabilities
ITEMSIZE = {"f32": 4, "f16": 2, "bf16": 2}
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
    half = b.load(pointer(b, address, VH), align=2)
    return (emit_f16_to_f32 if kind == "f16" else emit_bf16_to_f32)(b, half)


def _at(b: Any, address: Any, offset: int) -> Any:
    return b.add(address, i64(offset))


def _scaled(b: Any, index: Any, step: int) -> Any:
    return b.mul(index, i64(step))


def _accumulate(b: Any, acc: list[Any], n: int, x: Any, vectors: list[Any]) -> list[Any]:
    """acc[query][vector] += x of the query * vector; x: address of the first query's."""
    out = []
    for j in range(n):
        value = splat(b, b.load(pointer(b, _at(b, x, PITCH * j), f32), align=4))
        for v, vector in enumerate(vectors):
            out.append(emit_fma(b, vector, value, acc[j * len(vectors) + v]))
    return out


def _score_tile(n: int, kind: str) -> Any:
    """tile(q, table, size, out): scores of n queries with the tiles at table[0], table[1], ..."""
    count, size_of = _vectors(n), ITEMSIZE[kind]

    def emit(b: Any, q: Any, table: Any, size: Any, out: Any) -> None:
        tiles = [b.load(pointer(b, _at(b, table, 8 * t), i64)) for t in range(count)]

        def step(d: Any, acc: list[Any]) -> list[Any]:
            row = _scaled(b, d, 16 * size_of)
            keys = [_load(b, b.add(tile, row), kind) for tile in tiles]
            return _accumulate(b, acc, n, b.add(q, _scaled(b, d, 4)), keys)

        acc = emit_loop(b, size, [const(VF, 0.0)] * (n * count), step)
        for j in range(n):
            for t in range(count):
                address = _at(b, out, PITCH * j + 64 * t)
                b.store(acc[j * count + t], pointer(b, address, VF), align=4)

    emit.__name__ = f"scores_{n}"
    return op(void, *[A] * 4)(emit)


def _value_tile(n: int, count: int, kind: str) -> Any:
    """tile(p, first, last, table, size, column, acc): acc[query][column ...] += p . V, `count` panels.

    Tokens first to last of the table's tiles; `column` is the first panel of 16.
    """
    size_of = ITEMSIZE[kind]

    def emit(
        b: Any, p: Any, first: Any, last: Any, table: Any, size: Any, column: Any, acc: Any
    ) -> None:
        stride = b.mul(size, i64(4))
        acc = b.add(acc, _scaled(b, column, 64))
        places = [
            pointer(b, _at(b, b.add(acc, b.mul(stride, i64(j))), 64 * v), VF)
            for j in range(n)
            for v in range(count)
        ]
        offset = _scaled(b, column, 16 * size_of)

        def step(i: Any, sums: list[Any]) -> list[Any]:
            t = b.add(first, i)
            entry = b.add(table, _scaled(b, b.ashr(t, i64(4)), 8))
            row = b.mul(b.and_(t, i64(15)), _scaled(b, size, size_of))
            start = b.add(b.load(pointer(b, entry, i64)), b.add(row, offset))
            values = [_load(b, _at(b, start, 16 * size_of * v), kind) for v in range(count)]
            return _accumulate(b, sums, n, b.add(p, _scaled(b, t, 4)), values)

        sums = emit_loop(b, b.sub(last, first), [b.load(x, align=4) for x in places], step)
        for value, place in zip(sums, places, strict=True):
            b.store(value, place, align=4)

    emit.__name__ = f"values_{n}x{count}"
    return op(void, *[A] * 7)(emit)


def _scores(n: int, kind: str) -> Any:
    tile, count = _score_tile(n, kind), _vectors(n)

    @fn
    def scores(q, table, size, out, first, last):
        """Scores with tiles first to last of the table, which may be read up to a multiple of 4."""
        for t in range(first // count * count, last, count):
            tile(q, table + 8 * t, size, out + 64 * t)

    return scores


def _values(n: int, kind: str) -> Any:
    count = _vectors(n)
    wide, narrow = _value_tile(n, count, kind), _value_tile(n, 1, kind)

    @fn
    def values(p, first, last, table, size, acc):
        """acc [n, size] += p . V over tokens first to last, at least one."""
        column = 0
        while column + count <= size // 16:
            wide(p, first, last, table, size, column, acc)
            column += count
        while column < size // 16:
            narrow(p, first, last, table, size, column, acc)
            column += 1

    return values


def _by_width(make: Callable[[int, str], Any], kind: str, widths: tuple[int, ...]) -> Any:
    """f(n, *args): make(n, kind)(*args) for n in widths."""
    width, function = widths[0], make(widths[0], kind)
    if len(widths) == 1:

        @fn
        def only(n, *args):
            function(*args)

        return only
    others = _by_width(make, kind, widths[1:])

    @fn
    def choose(n, *args):
        if n == width:
            function(*args)
        else:
            others(n, *args)

    return choose


def scores(kind: str) -> Any:
    """scores(n, q, table, size, out, first, last) for n in WIDTHS; see `_scores`."""
    return _by_width(_scores, kind, WIDTHS)


def values(kind: str) -> Any:
    """values(n, p, first, last, table, size, acc) for n in WIDTHS; see `_values`."""
    return _by_width(_values, kind, WIDTHS)


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
