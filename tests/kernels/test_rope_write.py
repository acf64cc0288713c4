"""Queries and keys turn and the cache is filled, to the bit as rope and a plain copy would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.paged import KINDS, read, stored, write
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import KernelError, fixed_rows
from nanocupy.kernels import rope
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.rope import cpu as rope_cpu
from nanocupy.kernels.rope_write import cpu

SLOTS = np.array([33, 64, 65, -1, 127, 32, 96], np.int32)
WRITTEN = [0, 1, 2, 4, 5]  # of the first six rows


def values(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape) * 100).astype(np.float32)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_write_rounds_and_skips(kind: str) -> None:
    layout, device = KVLayout(4, 2, 32, 32, KINDS[kind]), CpuDevice(2)
    layers, both = layout.empty(device, 3), values(7, 3, 2, 32)
    pages = layers[1]
    flat = device.asarray(both).reshape(-1)
    where, rows = device.asarray(SLOTS), fixed_rows(device, 6)
    strides = {"k_stride": 192, "v_stride": 192}
    launch = write(device, layout, *pages, flat[64:], flat[128:], where, rows, **strides)
    device.capture([launch]).run()
    k, v = read(layout, *pages, np.arange(4), 128)
    want = np.zeros((128, 3, 2, 32), np.float32)
    want[SLOTS[WRITTEN]] = stored(both, kind)[WRITTEN]
    np.testing.assert_array_equal(k, want[:, 1])
    np.testing.assert_array_equal(v, want[:, 2])
    assert not any(np.asarray(x).any() for x in (*layers[0], *layers[2]))


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize(("dims", "traditional"), [(32, False), (20, False), (20, True)])
def test_turns_as_rope_and_writes(run: Any, kind: str, dims: int, traditional: bool) -> None:
    layout, heads = KVLayout(4, 2, 32, 32, KINDS[kind]), 6
    both = values(7, heads + 4, 32)
    positions = np.array([0, 9, 3, 7, 1, 2, 5], np.int32)
    table = rope.table(rope.frequencies(dims, 1e4), 10)
    stride = 32 * (heads + 4)

    def parts(device: CpuDevice) -> tuple[Any, ...]:
        flat = device.asarray(both).reshape(-1)
        return flat, flat[32 * heads :], flat[32 * (heads + 2) :]

    def fused(device: CpuDevice) -> Any:
        out, [pages] = device.empty((6, heads, 32), np.float32), layout.empty(device)
        numbers = [device.asarray(x) for x in (positions, SLOTS, table)]
        launch = cpu.launch(
            device, layout, out, *pages, *parts(device), *numbers, fixed_rows(device, 6),
            heads=heads, traditional=traditional, q_stride=stride, k_stride=stride, v_stride=stride,
        )  # fmt: skip
        return [launch], [out, *pages]

    def apart(device: CpuDevice) -> Any:
        out, [pages] = device.empty((6, heads, 32), np.float32), layout.empty(device)
        q, k, v = parts(device)
        turned, rows = device.empty((6, 2, 32), np.float32), fixed_rows(device, 6)
        angles = (device.asarray(positions), device.asarray(table), rows)
        how: dict[str, Any] = {"head_dim": 32, "traditional": traditional, "x_stride": stride}
        return [
            rope_cpu.launch(device, out, q, *angles, heads=heads, **how),
            rope_cpu.launch(device, turned, k, *angles, heads=2, **how),
            write(device, layout, *pages, turned, v, device.asarray(SLOTS), rows, v_stride=stride),
        ], [out, *pages]

    for got, want in zip(run(fused), run(apart), strict=True):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    ("slot", "position", "code"), [(-2, 0, 2), (128, 0, 2), (0, -1, 1), (0, 8, 1)]
)
def test_what_is_outside_is_refused(slot: int, position: int, code: int) -> None:
    layout, device = KVLayout(4, 1, 16, 32, np.float32), CpuDevice(1)
    x, out = device.empty((1, 1, 16), np.float32), device.empty((1, 1, 16), np.float32)
    table = device.asarray(rope.table(rope.frequencies(16, 1e4), 8))
    numbers = [device.asarray(np.array([n], np.int32)) for n in (position, slot)]
    launch = cpu.launch(
        device, layout, out, *layout.empty(device)[0], x, x, x, *numbers, table,
        fixed_rows(device, 1), heads=1,
    )  # fmt: skip
    with pytest.raises(KernelError, match=rf"rope_write.*code {code}"):
        device.capture([launch]).run()
