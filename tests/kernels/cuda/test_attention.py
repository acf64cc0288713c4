"""Attention over pages on CUDA, by row and by tile: against NumPy, and against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows, fixed_rows
from nanocupy.kernels import attention as pa
from nanocupy.kernels.attention import cuda as pac

F32, F16, BF16 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
HALF_STEP = {F32: 2.0**-24, F16: 2.0**-11, BF16: 2.0**-8}  # how far rounding goes, relatively
POISON = 7.0


@dataclass
class Case:
    """Sequences of some lengths; `places` are the rows of a step, (sequence, position) each."""

    lengths: list[int]
    places: list[tuple[int, int]]
    activations: Any = BF16
    cache: Any = BF16
    size: int = 64
    kv_heads: int = 2
    group: int = 2
    block_size: int = 16
    window: int = 0
    softcap: float = 0.0
    seed: int = 0
    edits: dict[str, tuple[int, int]] = field(default_factory=dict)  # array: (index, value)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.heads = self.kv_heads * self.group
        per_seq = -(-max(self.lengths) // self.block_size)
        used = [-(-n // self.block_size) for n in self.lengths]
        blocks = 2 + sum(used)
        self.layout = pa.KVLayout(
            blocks, self.kv_heads, self.size, self.block_size, self.cache, "cuda", self.activations
        )
        ids = iter(rng.permutation(np.arange(1, blocks)))
        self.tables = np.full((len(self.lengths), per_seq), 2**30, np.int32)
        shape = (blocks, self.kv_heads, self.block_size, self.size)
        # what no token was written to holds NaN; what lies past a sequence is no block at all
        self.pages = [np.full(shape, np.nan, self.cache) for _ in "kv"]
        self.past: list[list[np.ndarray]] = []
        for table, length, count in zip(self.tables, self.lengths, used, strict=True):
            table[:count] = [next(ids) for _ in range(count)]
            shape = (length, self.kv_heads, self.size)
            past = [(2 * rng.standard_normal(shape)).astype(self.cache) for _ in "kv"]
            block, place = np.divmod(np.arange(length), self.block_size)
            for page, values in zip(self.pages, past, strict=True):
                page[table[block], :, place] = values
            self.past.append(past)
        q = rng.standard_normal((len(self.places), self.heads, self.size))
        self.q = (2 * q).astype(self.activations)
        self.sequences, self.positions = np.array(self.places, np.int32).reshape(-1, 2).T.copy()
        for name, (index, value) in self.edits.items():
            getattr(self, name).reshape(-1)[index] = value

    def arrays(self, device: Any) -> tuple[Any, ...]:
        out = np.full(self.q.shape, POISON, np.float32).astype(self.activations)
        return tuple(device.asarray(x) for x in (out, self.q, *self.pages))

    def step(self, device: Any, split: pa.RowSplit) -> pa.StepRows:
        host = (self.positions, self.sequences, self.tables)
        return pa.StepRows(fixed_rows(device, len(self.q)), *map(device.asarray, host), split)

    @property
    def how(self) -> dict[str, Any]:
        scale = self.size**-0.5
        return {"heads": self.heads, "scale": scale, "window": self.window, "softcap": self.softcap}

    def decode(
        self, device: Any, chosen: list[int], capacity: int = 0, scratch: Any = None
    ) -> tuple[Any, Any]:
        """(launch, out) for the rows in `chosen`."""
        capacity = max(capacity, len(chosen), 1)
        padded = np.full(capacity, 2**30, np.int32)
        padded[: len(chosen)] = chosen
        rows = Rows(capacity, device.asarray(np.array([len(chosen)])))
        if scratch is None:
            scratch = pac.scratch(device, capacity, self.heads, self.kv_heads, self.size)
        arrays, nothing = self.arrays(device), Rows(0, rows.count)
        step = self.step(device, pa.RowSplit(device.asarray(padded), rows, None, nothing))
        launch = pac.attend_decode(device, self.layout, *arrays, step, rows, scratch, **self.how)
        return launch, arrays[0]

    def prefill(self, device: Any, tiles: list[tuple[int, int, int]]) -> tuple[Any, Any]:
        """(launch, out) for (first row, rows, sequence) each."""
        padded = np.full((len(tiles) + 1, 4), 2**30, np.int32)
        padded[: len(tiles)] = [(*tile, 0) for tile in tiles]
        rows = Rows(len(padded), device.asarray(np.array([len(tiles)])))
        arrays, nothing = self.arrays(device), Rows(0, rows.count)
        step = self.step(device, pa.RowSplit(None, nothing, device.asarray(padded), rows))
        return pac.attend_prefill(self.layout, *arrays, step, rows, **self.how), arrays[0]

    def expected(self, row: int, through: Any = F32) -> tuple[np.ndarray, np.ndarray]:
        """(out, the same with |V|) in f64; K and V are rounded to `through` first."""
        seq, position = self.places[row]
        k, v = (x[: position + 1].astype(through).astype(np.float32) for x in self.past[seq])
        q, how = self.q[row].astype(np.float32), (self.size**-0.5, self.window, self.softcap)
        return pa.reference(q, k, v, *how), pa.reference(q, k, np.abs(v), *how)

    def check(self, got: np.ndarray, rows: Any, tiled: bool = False) -> None:
        """Within what f32 sums can be wrong by, and roundings of the result and of weights."""
        for row in rows:
            want, reach = self.expected(row, self.activations if tiled else F32)
            step = HALF_STEP[self.activations]
            bound = step * np.abs(want) + (2 * step * tiled + 2.0**-16) * reach + 1e-7
            assert (np.abs(got[row].astype(np.float64) - want) <= bound).all()

    def untouched(self, got: np.ndarray, rows: Any) -> None:
        assert all((got[row].astype(np.float32) == POISON).all() for row in rows)


class Sized:
    """A device that says it has another number of multiprocessors."""

    def __init__(self, device: Any, multiprocessors: int) -> None:
        self.empty, self.asarray, self.kind = device.empty, device.asarray, device.kind
        self.multiprocessors = multiprocessors


def run_decode(
    cuda: Any, case: Case, chosen: list[int], processors: int, **more: Any
) -> np.ndarray:
    """Run twice on one scratch: the bits are the same, the counters are back at zero."""

    def build(device: Any) -> Any:
        device = Sized(device, processors)
        scratch = pac.scratch(
            device, max(len(chosen), more.get("capacity", 1)), case.heads, case.kv_heads, case.size
        )
        pairs = [case.decode(device, chosen, scratch=scratch, **more) for _ in range(2)]
        return [launch for launch, _ in pairs], [out for _, out in pairs] + [scratch.arrived]

    first, second, arrived = cuda(build)
    assert first.tobytes() == second.tobytes() and not arrived.any()
    return np.array(first)


def run_prefill(cuda: Any, case: Case, tiles: list[tuple[int, int, int]]) -> np.ndarray:
    def build(device: Any) -> Any:
        launch, out = case.prefill(device, tiles)
        return [launch], [out]

    return np.array(cuda(build)[0])


some = examples(6)
masks = {
    "block_size": st.sampled_from([16, 32, 64]),
    "window": st.sampled_from([0, 0, 1, 7, 40]),
    "softcap": st.sampled_from([0.0, 0.0, 3.0]),
    "seed": st.integers(0, 2**32 - 1),
}


@pytest.mark.parametrize(
    ("activations", "cache", "size", "groups"),
    [
        (BF16, BF16, 64, (4,)),
        (F32, F32, 32, (5, 9, 10)),  # five heads at once; the second four or five of a group
        (F16, F32, 16, (1,)),
        (F16, BF16, 80, (7, 13)),  # lanes that idle
    ],
)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    pick=st.integers(0, 2),
    kv_heads=st.integers(1, 2),
    spare=st.integers(0, 3),
    processors=st.sampled_from([1, 4, 12, 108]),
    **masks,
)
@example(lengths=[300, 17], pick=1, kv_heads=2, spare=1, processors=12, block_size=16, window=0,
         softcap=0.0, seed=0)  # fmt: skip
@some
def test_by_row(
    cuda: Any, activations: Any, cache: Any, size: int, groups: tuple[int, ...],
    lengths: list[int], pick: int, kv_heads: int, spare: int, processors: int, **mask: Any,
) -> None:  # fmt: skip
    """Rows 0, 2, 4 ... of a step, in any order; the others are left alone."""
    places = [(s, p) for s, n in enumerate(lengths) for p in (n - 1, n // 2)]
    case = Case(lengths, places, activations, cache, size, kv_heads, groups[pick % len(groups)],
                **mask)  # fmt: skip
    chosen = list(range(0, len(places), 2))[::-1]
    got = run_decode(cuda, case, chosen, processors, capacity=len(chosen) + spare)
    case.check(got, chosen)
    case.untouched(got, set(range(len(places))) - set(chosen))


@pytest.mark.unsanitized
@pytest.mark.parametrize("processors", [1, 2, 3, 5, 8, 13, 100])
def test_any_number_of_parts(cuda: Any, processors: int) -> None:
    """From 1 to 32, with lengths that fill parts exactly, or leave some with nothing."""
    lengths = [1, 3, 64, 65, 128, 129, 640]
    case = Case(lengths, [(s, n - 1) for s, n in enumerate(lengths)], kv_heads=1, group=4)
    for row in (5, 6):
        case.check(run_decode(cuda, case, [row], processors), [row])
    case.check(run_decode(cuda, case, list(range(7)), processors), range(7))


def test_a_row_is_the_same_whatever_is_beside_it(cuda: Any) -> None:
    case = Case([200, 90, 33], [(0, 199), (1, 89), (2, 32)], group=4)
    together = run_decode(cuda, case, [0, 1, 2], 8)
    for row in range(3):
        alone = run_decode(cuda, case, [row], 8, capacity=3)
        assert alone[row].tobytes() == together[row].tobytes()


def test_a_large_head_by_row(cuda: Any) -> None:
    case = Case([70], [(0, 69)], size=256, kv_heads=1, group=2, block_size=32)
    case.check(run_decode(cuda, case, [0], 4), [0])


BAD = {
    "position": {"positions": (1, -1)},
    "position past the table": {"positions": (1, 112)},
    "sequence": {"sequences": (1, -1)},
    "sequence past the table": {"sequences": (1, 3)},
    "block": {"tables": (7 + 2, -1)},
    "block past the cache": {"tables": (7 + 2, 23)},
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("processors", [1, 40])
def test_a_bad_row_is_nan(cuda: Any, bad: str, processors: int) -> None:
    places = [(0, 99), (1, 99), (2, 50)]
    good = run_decode(cuda, Case([100] * 3, places, group=4), [0, 1, 2], processors)
    case = Case([100] * 3, places, group=4, edits=BAD[bad])
    got = run_decode(cuda, case, [0, 1, 2], processors)
    assert np.isnan(got[1].astype(np.float32)).all()
    assert got[[0, 2]].tobytes() == good[[0, 2]].tobytes()


def test_a_bad_block_that_no_token_needs(cuda: Any) -> None:
    """Past the position, or before the window."""
    case = Case([100], [(0, 60)], group=4, window=20, edits={"tables": (2 - 1, -1)})
    case.tables[0, 4:] = -1
    case.check(run_decode(cuda, case, [0], 4), [0])
    case.check(run_prefill(cuda, case, [(0, 1, 0)]), [0], tiled=True)


@pytest.mark.parametrize("row", [-1, 3, 2**31 - 1])
def test_a_row_outside_the_step(cuda: Any, row: int) -> None:
    case = Case([100] * 3, [(0, 99), (1, 99), (2, 50)], group=4)
    got = run_decode(cuda, case, [2, row, 0], 8)
    case.check(got, [0, 2])
    case.untouched(got, [1])


def test_scratch_is_enough_for_every_smaller_capacity() -> None:
    class Counter:
        multiprocessors = 108

        def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
            return shape[0]

    device = Counter()
    for heads, kv_heads, size in ((32, 8, 128), (7, 1, 64), (40, 2, 80), (9, 9, 16)):
        width, slices = pac.heads_at_once(heads // kv_heads)
        assert width <= pac.MAX_HEADS and 0 <= width * slices - heads // kv_heads < width
        for capacity in (1, 2, 17, 256, 2000):
            scratch = pac.scratch(device, capacity, heads, kv_heads, size)
            for n in range(1, capacity + 1):
                units = n * kv_heads * slices
                count = pac.parts(device.multiprocessors, units)
                assert 1 <= count <= pac.MAX_PARTS and units <= scratch.arrived
                assert count == 1 or units * count * width * (size + 2) <= scratch.parts


# ---- tiles


def chunks(step: list[tuple[int, int]]) -> tuple[list[int], list[Any], list[Any]]:
    """(start, count) of neighbours in each sequence: lengths, rows of a step, tiles.

    A row that is in no tile lies between one chunk and the next.
    """
    lengths, places, tiles = [], [], []
    for sequence, (start, count) in enumerate(step):
        lengths.append(start + count)
        for first in range(0, count, pac.TILE):
            tiles.append((len(places) + first, min(pac.TILE, count - first), sequence))
        places += [(sequence, start + i) for i in range(count)] + [(sequence, 0)]
    return lengths, places, tiles


def in_tiles(tiles: list[tuple[int, int, int]]) -> list[int]:
    return [row for first, count, _ in tiles for row in range(first, first + count)]


@pytest.mark.parametrize(
    ("activations", "cache", "size", "group"),
    [(BF16, BF16, 64, 2), (F16, F32, 16, 3), (BF16, F16, 128, 1), (F16, BF16, 80, 1)],
)
@given(
    step=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 70)), min_size=1, max_size=2),
    **masks,
)
@example(step=[(0, 64), (61, 66)], block_size=16, window=0, softcap=0.0, seed=0)
@some
def test_by_tile(
    cuda: Any, activations: Any, cache: Any, size: int, group: int, step: list[tuple[int, int]],
    **mask: Any,
) -> None:  # fmt: skip
    lengths, places, tiles = chunks(step)
    case = Case(lengths, places, activations, cache, size, 2, group, **mask)
    got, rows = run_prefill(cuda, case, tiles), in_tiles(tiles)
    case.check(got, rows, tiled=True)
    case.untouched(got, set(range(len(places))) - set(rows))


def test_a_large_head_by_tile(cuda: Any) -> None:
    lengths, places, tiles = chunks([(20, 40)])
    case = Case(lengths, places, size=256, kv_heads=1, group=1, block_size=32)
    case.check(run_prefill(cuda, case, tiles), in_tiles(tiles), tiled=True)


@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (50, 5.0)])
def test_a_tile_is_its_rows(cuda: Any, window: int, softcap: float) -> None:
    lengths, places, tiles = chunks([(30, 80)])
    case = Case(lengths, places, F16, F16, window=window, softcap=softcap)
    rows = in_tiles(tiles)
    tiled, single = run_prefill(cuda, case, tiles), run_decode(cuda, case, rows, 4)
    for row in rows:
        _, reach = case.expected(row)
        gap = np.abs(tiled[row].astype(np.float32) - single[row].astype(np.float32))
        assert (gap <= 4 * 2.0**-11 * reach).all()


def test_a_tile_is_the_same_whatever_is_beside_it(cuda: Any) -> None:
    lengths, places, tiles = chunks([(30, 40), (3, 20), (0, 64)])
    case = Case(lengths, places)
    together = run_prefill(cuda, case, tiles)
    for tile in tiles:
        rows = in_tiles([tile])
        alone = run_prefill(cuda, case, [tile])
        assert alone[rows].tobytes() == together[rows].tobytes()


@pytest.mark.parametrize(
    ("tile", "edits", "lost"),
    [
        ((41, 20, -1), {}, range(20)),
        ((41, 20, 2), {}, range(20)),
        ((41, 20, 1), {"positions": (41, -1)}, range(20)),
        ((41, 20, 1), {"positions": (41, 80)}, range(20)),
        ((41, 20, 1), {"tables": (5 + 0, -1)}, range(20)),
        ((41, 20, 1), {"tables": (5 + 2, 1000)}, range(12, 20)),  # from position 32 on
        ((41, 0, 1), {}, ()),
        ((41, 65, 1), {}, ()),
        ((-1, 20, 1), {}, ()),
        ((43, 20, 1), {}, ()),  # there are 62 rows
    ],
)
def test_a_bad_tile(cuda: Any, tile: Any, edits: dict[str, Any], lost: Any) -> None:
    """Its rows are NaN, those that need what is bad; or, if it has no rows, nothing happens."""
    lengths, places, tiles = chunks([(30, 40), (20, 20)])
    lengths[0] = 80  # a table of five blocks
    good = run_prefill(cuda, Case(lengths, places), tiles)
    got = run_prefill(cuda, Case(lengths, places, edits=edits), [tiles[0], tile])
    assert got[:40].tobytes() == good[:40].tobytes()
    for i in range(20):
        if i in lost:
            assert np.isnan(got[41 + i].astype(np.float32)).all()
        else:
            want = good[41 + i] if lost else np.full_like(good[0], POISON)
            assert got[41 + i].tobytes() == want.tobytes()


def test_a_position_that_leaves_the_table_within_a_tile(cuda: Any) -> None:
    """Two blocks, and a tile that begins at position 20: what is past 31 is NaN."""
    case = Case([32], [(0, 20 + min(i, 11)) for i in range(20)])
    got = run_prefill(cuda, case, [(0, 20, 0)])
    case.check(got, range(12), tiled=True)
    assert np.isnan(got[12:].astype(np.float32)).all()


def test_tiles_of_floats_are_refused(cuda: Any) -> None:
    def build(device: Any) -> Any:
        case = Case([20], [(0, 19)], activations=F32)
        with pytest.raises(TypeError, match="tensor cores"):
            case.prefill(device, [(0, 1, 0)])
        return [], []

    cuda(build)
