"""Attention over the paged cache: right, and to the bit the same however it is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.paged import KINDS, stored, write
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import KernelError, fixed_rows
from nanocupy.kernels import attention as pa
from nanocupy.kernels import launches_of, quantize
from nanocupy.kernels.attention import cpu

CPU = launches_of("cpu")


@dataclass
class Case:
    """Sequences of some lengths, of which the rows from `starts` on are computed."""

    lengths: list[int]
    starts: list[int]
    heads: int = 6
    kv_heads: int = 2
    size: int = 32
    kind: str = "f16"
    block_size: int = 16
    window: int = 0
    softcap: float = 0.0
    stale: float = np.nan  # what the cache holds where nothing was written
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)  # the same values, whatever the blocks
        shape = (self.kv_heads, self.size)
        self.q, self.k, self.v = (
            [rng.standard_normal((n, *s)).astype(np.float32) for n in self.lengths]
            for s in ((self.heads, self.size), shape, shape)
        )
        self.places = [
            (seq, position)
            for seq, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True))
            for position in range(start, length)
        ]
        per_seq = -(-max(self.lengths) // self.block_size)
        blocks = rng.permutation(np.arange(1, 1 + per_seq * len(self.lengths)))
        self.tables = blocks.reshape(-1, per_seq).astype(np.int32)
        self.layout = pa.KVLayout(
            len(blocks) + 1, self.kv_heads, self.size, self.block_size, KINDS[self.kind]
        )

    def slot(self, seq: int, position: int) -> int:
        block = self.tables[seq, position // self.block_size]
        return int(block * self.block_size + position % self.block_size)

    def fill(self, device: CpuDevice) -> tuple[Any, Any]:
        """A cache with every token of every sequence."""
        _, (k_cache, v_cache), _ = self.layout.empty(device, 3)
        for cache in (k_cache, v_cache):
            cache[...] = -1 if self.kind == "i8" else self.stale  # as a scale -1 is a NaN
        slots = [self.slot(s, p) for s, n in enumerate(self.lengths) for p in range(n)]
        arrays = [np.concatenate(self.k), np.concatenate(self.v), np.array(slots, np.int32)]
        k, v, where = (device.asarray(x) for x in arrays)
        rows = fixed_rows(device, len(slots))
        pages = (k_cache, v_cache)
        device.capture([write(device, self.layout, *pages, k, v, where, rows)]).run()
        return k_cache, v_cache

    def attend(
        self, device: CpuDevice, rows: slice, cache: tuple[Any, Any], form: Any = None
    ) -> Any:
        """Build the launches for some of the rows; (launches, [out])."""
        places = self.places[rows]
        q = np.array([self.q[s][p] for s, p in places], np.float32)
        codes = form if isinstance(form, quantize.Codes) else None
        out = device.empty(q.shape, ml_dtypes.bfloat16 if form == "bf16" else np.float32)
        if codes:
            out = device.empty((len(q), codes.row_bytes(self.heads * self.size)), np.uint8)
        arrays = (
            np.array([p for _, p in places], np.int32),
            np.array([s for s, _ in places], np.int32),
            self.tables,
        )
        positions, sequences, tables = (device.asarray(x) for x in arrays)
        launches = cpu.attend(
            device,
            self.layout,
            out,
            device.asarray(q),
            *cache,
            pa.StepRows(fixed_rows(device, len(places)), positions, sequences, tables),
            cpu.scratch(device, self.size, self.tables.shape[1] * self.block_size),
            heads=self.heads,
            scale=self.size**-0.5,
            window=self.window,
            softcap=self.softcap,
            codes=codes,
        )
        return launches, [out]

    def run(self, run: Any, rows: slice = slice(None), threads: Any = (1, 2, 3)) -> np.ndarray:
        out: np.ndarray = run(lambda d: self.attend(d, rows, self.fill(d)), threads=threads)[0]
        return out

    def expected(self) -> np.ndarray:
        k, v = ([stored(x, self.kind) for x in y] for y in (self.k, self.v))
        how = {"scale": self.size**-0.5, "window": self.window, "softcap": self.softcap}
        rows = [
            pa.reference(self.q[s][p], k[s][: p + 1], v[s][: p + 1], **how) for s, p in self.places
        ]
        return np.array(rows)

    def check(self, run: Any) -> np.ndarray:
        got = self.run(run)
        np.testing.assert_allclose(got, self.expected(), rtol=0, atol=4e-6)
        return got


LENGTHS = st.lists(st.tuples(st.integers(1, 600), st.integers(1, 20)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(
    spans=LENGTHS,
    heads=st.sampled_from(
        [(1, 1), (2, 1), (3, 1), (5, 1), (7, 1), (9, 3), (8, 2), (14, 1), (13, 1)]
    ),
    size=st.sampled_from([16, 32, 48, 64, 80, 128]),
    kind=st.sampled_from(sorted(KINDS)),
    block_size=st.sampled_from([16, 32, 64]),
    window=st.sampled_from([0, 0, 1, 5, 100, 300]),
    softcap=st.sampled_from([0.0, 0.0, 3.0]),
)
def test_agrees_with_numpy(
    run: Any,
    spans: list[tuple[int, int]],
    heads: tuple[int, int],
    size: int,
    kind: str,
    block_size: int,
    window: int,
    softcap: float,
) -> None:
    lengths = [n for n, _ in spans]
    starts = [max(0, n - rows) for n, rows in spans]
    shape = (*heads, size, kind, block_size)
    Case(lengths, starts, *shape, window=window, softcap=softcap).check(run)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_layers_share_memory_block_by_block(kind: str, layers: int) -> None:
    layout, device = pa.KVLayout(6, 2, 32, 32, KINDS[kind]), CpuDevice(1)
    caches = [cache for pair in layout.empty(device, layers) for cache in pair]
    for n, cache in enumerate(caches):
        cache.view(np.uint8)[...] = n
    for n, cache in enumerate(caches):
        assert (cache.view(np.uint8) == n).all()
    first = [cache[2].ctypes.data for cache in caches]
    assert first == sorted(first) and first[-1] < caches[0][3].ctypes.data
    assert (
        layers * layout.nbytes <= device.memory_active() <= layers * layout.nbytes + 6 * cpu.LINES
    )


@pytest.mark.parametrize("window", [0, 70])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_a_row_does_not_depend_on_its_company(run: Any, window: int, kv_heads: int) -> None:
    case = Case([600, 17, 260, 258], [585, 0, 250, 257], kv_heads=kv_heads, window=window)
    whole = case.check(run)
    for i in range(len(case.places)):
        assert case.run(run, slice(i, i + 1), threads=(2,)).tobytes() == whole[i : i + 1].tobytes()
    for step in (2, 5, 7):
        parts = [
            case.run(run, slice(i, i + step), threads=(1,)) for i in range(0, len(whole), step)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_block_sizes_and_tables_do_not_matter(run: Any) -> None:
    results = [
        Case([520, 33], [500, 0], block_size=size, stale=stale).check(run)
        for size in (16, 32, 64)
        for stale in (np.nan, np.inf, 0.0)
    ]
    assert len({r.tobytes() for r in results}) == 1


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_many_threads_share_one_row(run: Any, kind: str) -> None:
    case = Case([1500], [1499], kind=kind)
    np.testing.assert_allclose(case.run(run, threads=(1, 2, 3, 7)), case.expected(), atol=4e-6)


def test_a_row_that_is_not_finite_stays_alone(run: Any) -> None:
    case = Case([40, 40], [34, 34])
    want = case.run(run)
    case.v[0][39] = np.nan
    case.q[0][37] = np.inf
    got = case.run(run)
    spoilt = np.isnan(got).all((1, 2))
    assert spoilt.tolist() == [p in ((0, 37), (0, 39)) for p in case.places]
    assert got[~spoilt].tobytes() == want[~spoilt].tobytes()


@pytest.mark.parametrize("form", [quantize.Codes("i16", 32), quantize.Codes("i8", 32), "bf16"])
@pytest.mark.parametrize("lengths", [[300, 40], [1500]])
def test_rows_are_rounded_as_if_alone(run: Any, form: Any, lengths: list[int]) -> None:
    """With many rows, and where threads share one."""
    case = Case(lengths, [n - 5 if n < 1000 else n - 1 for n in lengths], heads=6, size=64)
    plain = case.run(run)
    rows, width = len(plain), 6 * 64
    if form == "bf16":
        want = plain.astype(ml_dtypes.bfloat16)
    else:

        def alone(device: CpuDevice) -> Any:
            out = device.empty((rows, form.row_bytes(width)), np.uint8)
            x = device.asarray(plain.reshape(rows, width))
            count = fixed_rows(device, rows)
            return [CPU.quantize.launch(device, out, x, count, width, form, x_stride=width)], [out]

        want = run(alone)[0]

    def fused(device: CpuDevice) -> Any:
        return case.attend(device, slice(None), case.fill(device), form)

    got = run(fused)[0]
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("fault", ["position", "sequence", "block"])
def test_what_is_outside_its_table_is_refused(run: Any, fault: str) -> None:
    case = Case([20, 20], [19, 19])
    device = CpuDevice(2)
    cache = case.fill(device)
    if fault == "position":
        case.tables = case.tables[:, :1].copy()
    elif fault == "sequence":
        case.tables = case.tables[:1].copy()
    else:
        case.tables[1, 1] = 99
    launches, _ = case.attend(device, slice(None), cache)
    with pytest.raises(KernelError, match="attend"):
        device.capture(launches).run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": 24}, "block_size=24"),
        ({"head_dim": 40}, "head_dim=40"),
        ({"head_dim": 512}, "head_dim=512"),
        ({"dtype": np.int16}, "cache of int16"),
        ({"dtype": np.int8, "device": "cuda"}, "on a CPU int8"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    good = {"blocks": 2, "kv_heads": 1, "head_dim": 64, "block_size": 16, "dtype": np.float32}
    with pytest.raises(ValueError, match=message):
        pa.KVLayout(**{**good, **change})
