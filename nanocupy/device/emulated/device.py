"""The emulated device: the CUDA device's own code, where CUDA is played by this package."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from nanocupy.device.cuda.device import CudaDevice
from nanocupy.device.cuda.toolkit import Toolkit
from nanocupy.device.emulated import build, memory, module, runtime, stream
from nanocupy.device.emulated.cublas import Cublas
from nanocupy.device.emulated.gpu import Gpu
from nanocupy.device.emulated.nccl import Nccl
from nanocupy.device.emulated.nvrtc import Nvrtc
from nanocupy.device.protocols import Tick

MEMORY = 4 << 30  # bytes; pages that nobody asks for cost nothing


class EmulatedDevice(CudaDevice):
    """Runs CUDA kernels on the CPU, a thread of theirs at a time. To learn and to test.

    Args:
        order: in which a kernel's threads run: 0 ascending, 1 descending, 2 at random. It must not
            matter; it can be changed between runs.
        seed: of the random order.
        memory: bytes of the GPU's.
        late: whether work waits until somebody waits for it. It must not matter.
        tick: as for `CudaDevice`.

    Raises:
        RuntimeError: there is no C++ compiler.
    """

    def __init__(
        self,
        order: int = 0,
        seed: int = 1,
        memory: int = MEMORY,
        late: bool = False,
        tick: Tick | None = None,
    ) -> None:
        if problem := build.unavailable():
            raise RuntimeError(f"[emulated] {problem}")
        self.gpu = Gpu(memory, order, seed, late)
        super().__init__(toolkit(self.gpu), tick=tick)

    @property
    def order(self) -> int:
        return self.gpu.order

    @order.setter
    def order(self, order: int) -> None:
        self.gpu.order = order

    @property
    def seed(self) -> int:
        return self.gpu.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.gpu.seed = seed

    def progress(self) -> int:
        return super().progress() + self.gpu.done


def toolkit(gpu: Gpu) -> Toolkit:
    """CuPy, cuBLAS, NVRTC and NCCL on an emulated GPU."""
    nccl = Nccl(gpu)
    return Toolkit(
        "emulated", cupy(gpu), Cublas(gpu), stamp=build.compiler_version(), nccl=lambda: nccl
    )


def cupy(gpu: Gpu) -> SimpleNamespace:
    """As much of the module `cupy` as the CUDA device uses."""
    classes = (
        memory.MemoryPool, stream.Stream, stream.Event, stream.Graph, runtime.Device,
    )  # fmt: skip
    cuda = SimpleNamespace(
        **{made.__name__: _of(gpu, made) for made in classes},
        alloc_pinned_memory=partial(memory.alloc_pinned_memory, gpu),
        runtime=runtime.Runtime(gpu),
        nvrtc=Nvrtc(gpu),
    )
    return SimpleNamespace(
        ndarray=_of(gpu, memory.ndarray), RawModule=_of(gpu, module.RawModule), cuda=cuda
    )


def _of(gpu: Gpu, made: type) -> Any:
    """The class, on this GPU."""
    return type(made.__name__, (made,), {"_gpu": gpu})
