"""The errors of CUDA's parts, with CUDA's names in their messages."""

from __future__ import annotations


class CUDARuntimeError(RuntimeError):
    """Of the runtime: memory, streams, graphs."""


class CUDADriverError(RuntimeError):
    """Of the driver: modules and launches."""


class NVRTCError(RuntimeError):
    """Of the compiler."""


class OutOfMemoryError(MemoryError):
    """The GPU has no room left."""


def capturing() -> CUDARuntimeError:
    return CUDARuntimeError(
        "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
    )


def illegal_address(address: int, nbytes: int) -> CUDARuntimeError:
    return CUDARuntimeError(
        f"cudaErrorIllegalAddress: {nbytes:,} bytes at {address:#x} are not of the GPU's memory"
    )
