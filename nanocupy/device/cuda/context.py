"""A GPU with the stream that its work runs on, and the ways to wait for that work."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nanocupy.device.cuda.launch import as_kernel_error
from nanocupy.device.cuda.nccl import NcclLink
from nanocupy.device.cuda.toolkit import Toolkit, check_capability
from nanocupy.device.protocols import KernelError


class Context:
    """One GPU of this process.

    Args:
        toolkit: CuPy and CUDA's libraries, or what stands in for them.
        index: which GPU.

    Attributes:
        capability: 80 for 8.0.
        max_shared: bytes of shared memory that a block can have.
        stream: a CuPy stream, on which everything runs in order.
        link: the connection with the GPUs of other ranks, or None.
        counters: how many "graphs", "uploads" and "downloads" (of staging buffers) and "launches"
            (outside graphs) reached the driver.
    """

    def __init__(self, toolkit: Toolkit, index: int) -> None:
        self.name, self.cupy = toolkit.name, toolkit.cupy
        self.link: NcclLink | None = None
        self.counters: Counter[str] = Counter()
        self._gpu = self.cupy.cuda.Device(index)
        with self.current(), as_kernel_error(self.name):
            self.capability = check_capability(self._gpu.compute_capability)
            attributes = self._gpu.attributes
            self.multiprocessors = int(attributes["MultiProcessorCount"])
            self.max_shared = int(attributes["MaxSharedMemoryPerBlockOptin"])
            # Apart from the default stream, whose every use elsewhere would break a capture.
            self.stream = self.cupy.cuda.Stream(non_blocking=True)

    def current(self) -> Any:
        """A context manager in which this GPU is the thread's current one."""
        return self._gpu

    def memory_info(self) -> tuple[int, int]:
        """(free, total) bytes of the GPU's memory."""
        free, total = self._gpu.mem_info
        return int(free), int(total)

    def copy(self, to: int, source: int, nbytes: int, kind: int) -> None:
        """Put a copy between two addresses on the stream."""
        self.cupy.cuda.runtime.memcpyAsync(to, source, nbytes, kind, self.stream.ptr)

    def wait(self) -> None:
        """Wait until everything launched is done.

        Raises:
            KernelError: some of it failed.
            RankError: another rank of the group failed.
        """
        self.wait_for_ranks()
        try:
            with self.current():
                self.cupy.cuda.runtime.streamSynchronize(self.stream.ptr)
        except KernelError:
            raise
        except RuntimeError as error:
            raise KernelError(
                f"[{self.name}] something that was launched failed: {error}; to learn what, run "
                "again with capture=False and CUDA_LAUNCH_BLOCKING=1 in the environment"
            ) from error

    def wait_for_ranks(self) -> None:
        """Wait until no other rank is needed: CUDA's own waits never notice that one has died."""
        if self.link is not None:
            self.link.wait()
