"""Kernels run on one, two and three threads, and must not tell the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.protocols import Launch

Built = tuple[Sequence[Launch], Sequence[Any]]
Build = Callable[[CpuDevice], Built]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal to the bit: NaN equals the same NaN, and -0 is not 0."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture(scope="session")
def run() -> Callable[..., list[np.ndarray]]:
    """`run(build)`: the outputs of the launches that `build(device)` gives, one array each.

    `build` returns (launches, outputs). All numbers of threads must agree to the bit.
    """

    def run(build: Build, threads: Sequence[int] = (1, 2, 3)) -> list[np.ndarray]:
        results = []
        for count in threads:
            device = CpuDevice(count)
            launches, outputs = build(device)
            device.capture(launches).run()
            results.append([np.array(o) for o in outputs])
        for other in results[1:]:
            assert all(same(a, b) for a, b in zip(results[0], other, strict=True))
        return results[0]

    return run
