"""CUDA kernels run on the emulated device in several orders of threads, and on a GPU if there is
one. The orders must not make a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from device.needs import needs_compiler
from nanocupy.device.protocols import Launch

Built = tuple[Sequence[Launch], Sequence[Any]]
Build = Callable[[Any], Built]
ORDERS = {"ascending": 0, "descending": 1, "random": 2}  # of threads and blocks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker(needs_compiler)


def gpus() -> list[str]:
    from nanocupy.device.cuda.toolkit import unavailable

    return [] if unavailable() else ["cuda"]


@pytest.fixture(scope="session", params=["emulated", *gpus()])
def cuda(request: pytest.FixtureRequest) -> Callable[..., list[np.ndarray]]:
    """`cuda(build)`: the outputs of the launches that `build(device)` gives, one array each.

    `build` returns (launches, outputs). All orders of threads must agree to the bit.
    """
    if request.param == "cuda":
        from nanocupy.device.cuda.device import CudaDevice

        devices: list[Any] = [CudaDevice()]
    else:
        from nanocupy.device.emulated import EmulatedDevice

        devices = [EmulatedDevice(order=order) for order in ORDERS.values()]

    def run(build: Build) -> list[np.ndarray]:
        results = []
        for device in devices:
            launches, outputs = build(device)
            device.capture(launches).run()
            results.append([device.read(o).copy() for o in outputs])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert a.tobytes() == b.tobytes(), "the result depends on the order of threads"
        return results[0]

    return run
