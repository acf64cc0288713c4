"""rope and rope_write on CUDA: to the bit as NumPy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.cuda.sanitize import examples
from nanocupy.device.protocols import Rows
from nanocupy.kernels import rope, rope_write
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.rope import cuda as rope_cuda
from nanocupy.kernels.rope_write import cuda as kernel

POISON = 7.0
POSITIONS = 40
DTYPES = [(np.float32, np.float32), (ml_dtypes.bfloat16, np.float16)]  # of q, of the cache


def table(dims: int) -> np.ndarray:
    return rope.table(rope.frequencies(dims, 1e4), POSITIONS)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def turn(
    cuda: Any, x: np.ndarray, positions: Any, angles: np.ndarray, traditional: bool = False
) -> np.ndarray:
    count = len(x)

    def build(device: Any) -> Any:
        out = device.asarray(np.full((count + 1, *x.shape[1:]), POISON, np.float32))
        padded = np.zeros(count + 1, np.int32)
        padded[:count] = positions
        arrays = [device.asarray(v) for v in (x, padded, angles)]
        rows = Rows(count + 1, device.asarray(np.array([count])))
        how = {"heads": x.shape[1], "head_dim": x.shape[2], "traditional": traditional}
        return [rope_cuda.launch(device, out, *arrays, rows, **how)], [out]

    (out,) = cuda(build)
    assert (out[count:] == POISON).all()
    return np.asarray(out[:count])


@examples(20)
@given(
    rows=st.integers(0, 4),
    heads=st.integers(1, 6),
    half=st.integers(1, 40),
    still=st.integers(0, 40),
    traditional=st.booleans(),
)
def test_rope_equals_numpy(
    cuda: Any, rows: int, heads: int, half: int, still: int, traditional: bool
) -> None:
    x, angles = normal(rows, heads, 2 * half + still), table(2 * half)
    positions = np.arange(rows, dtype=np.int32) * 13 % POSITIONS
    got = turn(cuda, x, positions, angles, traditional)
    assert got.tobytes() == rope.reference(x, positions, angles, traditional).tobytes()


def test_rope_in_place_inside_a_fused_buffer(cuda: Any) -> None:
    x, positions = normal(5, 8, 64), np.array([0, 7, 39, 20, 3], np.int32)
    place = {"x_stride": 512, "out_stride": 512}

    def build(device: Any) -> Any:
        buffer = device.asarray(x)
        arrays = (
            *map(device.asarray, (positions, table(64))),
            Rows(5, device.asarray(np.array([5]))),
        )
        heads = buffer.reshape(-1)[64:]
        launch = rope_cuda.launch(device, heads, heads, *arrays, heads=5, head_dim=64, **place)
        return [launch], [buffer]

    want = x.copy()
    want[:, 1:6] = rope.reference(x[:, 1:6], positions, table(64))
    assert cuda(build)[0].tobytes() == want.tobytes()


@pytest.mark.parametrize("bad", [-1, POSITIONS, 1 << 30, -(1 << 31)])
def test_rope_outside_the_table_ends_its_row_alone(cuda: Any, bad: int) -> None:
    x = normal(3, 2, 16)
    good = turn(cuda, x, [1, 2, 3], table(16))
    got = turn(cuda, x, [1, bad, 3], table(16))
    assert np.isnan(got[1]).all() and got[[0, 2]].tobytes() == good[[0, 2]].tobytes()


# ---- rope_write


class Step:
    """Rows of q, k and v side by side in one buffer, and pages full of POISON."""

    def __init__(self, heads: int, layout: KVLayout, positions: Any, slots: Any) -> None:
        self.layout, self.heads, count = layout, heads, len(positions)
        self.positions, self.slots = (np.array(v, np.int32) for v in (positions, slots))
        self.width = (heads + 2 * layout.kv_heads) * layout.head_dim
        self.wide = normal(count, self.width)
        cuts = [heads * layout.head_dim, (heads + layout.kv_heads) * layout.head_dim]
        self.cuts, size = cuts, layout.head_dim
        parts = np.split(self.wide, cuts, 1)
        self.parts = [part.reshape(count, part.shape[1] // size, size) for part in parts]

    @property
    def pages(self) -> np.ndarray:
        shape = (self.layout.blocks, self.layout.kv_heads, self.layout.block_size)
        return np.full((*shape, self.layout.head_dim), POISON, self.layout.dtype)

    def run(self, cuda: Any, angles: np.ndarray | None, traditional: bool) -> list[np.ndarray]:
        """q, K and V."""
        layout, count = self.layout, len(self.positions)

        def build(device: Any) -> Any:
            shape = (count + 1, self.heads, layout.head_dim)
            q = device.asarray(np.full(shape, POISON, layout.activations))
            pages = [device.asarray(self.pages) for _ in range(2)]
            flat = device.asarray(self.wide).reshape(-1)
            fresh = (flat, flat[self.cuts[0] :], flat[self.cuts[1] :])
            where = [
                device.asarray(np.append(v, np.int32(0))) for v in (self.positions, self.slots)
            ]
            turns = None if angles is None else device.asarray(angles)
            rows = Rows(count + 1, device.asarray(np.array([count])))
            launch = kernel.launch(
                device, layout, q, *pages, *fresh, *where, turns, rows, heads=self.heads,
                traditional=traditional, q_stride=self.width, k_stride=self.width,
                v_stride=self.width,
            )  # fmt: skip
            return [launch], [q, *pages]

        q, *pages = cuda(build)
        assert (q[count:] == POISON).all()
        return [q[:count], *pages]

    def check(self, cuda: Any, angles: np.ndarray | None, traditional: bool = False) -> np.ndarray:
        """All is as NumPy has it; q."""
        want = [self.pages for _ in range(2)]
        where = (self.positions, self.slots, angles, traditional)
        q = rope_write.reference(self.layout, (want[0], want[1]), tuple(self.parts), *where)  # type: ignore[arg-type]
        got = self.run(cuda, angles, traditional)
        for a, b in zip(got, (q, *want), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.astype(np.float32), b.astype(np.float32))
        return got[0]


@examples(20)
@given(data=st.data())
@pytest.mark.parametrize(("dtype", "kv"), DTYPES)
def test_rope_write_equals_numpy(cuda: Any, dtype: Any, kv: Any, data: st.DataObject) -> None:
    kv_heads, repeat = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    size, blocks = 16 * data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    layout = KVLayout(blocks, kv_heads, size, 16, kv, "cuda", dtype)
    limit = blocks * 16
    slots = data.draw(st.lists(st.integers(0, limit - 1), unique=True, max_size=5))
    slots += data.draw(st.lists(st.sampled_from([-1, -2, limit, 1 << 30, -(1 << 31)]), max_size=2))
    position = st.integers(0, POSITIONS - 1) | st.sampled_from([-1, POSITIONS, 1 << 30])
    positions = [data.draw(position) for _ in slots]
    dims = data.draw(st.sampled_from([None, 2, size // 2, size]))
    angles = None if dims is None else table(dims)
    step = Step(repeat * kv_heads, layout, positions, slots)
    step.check(cuda, angles, data.draw(st.booleans()))


def test_a_wrong_row_ends_itself_and_no_other(cuda: Any) -> None:
    layout = KVLayout(2, 2, 32, 16, np.float32, "cuda", np.float32)
    q = Step(4, layout, [3, 4, 5, POSITIONS, 6], [1, 32, 17, 2, -1]).check(cuda, table(32))
    assert np.isnan(q[[1, 3]]).all() and np.isfinite(q[[0, 2, 4]]).all()
