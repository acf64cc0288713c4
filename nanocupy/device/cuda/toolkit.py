"""The libraries of the CUDA device, or stand-ins: CuPy, cuBLAS, NCCL and CUDA's headers."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401 (CuPy knows bfloat16 only if it finds this first)
import numpy as np

MIN_CAPABILITY = 80  # bfloat16, in arithmetic and on tensor cores
INSTALL = "pip install 'nanocupy[cuda13]' (for CUDA 12 drivers: 'nanocupy[cuda12]')"
NO_DRIVER = "no NVIDIA driver was found (libcuda); install one, or use device='cpu'"


class Toolkit(NamedTuple):
    """The libraries of one device.

    Args:
        name: of the device: "cuda" or "emulated".
        cupy: the module, or its stand-in.
        cublas: libcublas's functions, typed. See `blas`.
        include: folders with CUDA's headers.
        stamp: identifies what compiled kernels depend on besides NVRTC's version.
        nccl: returns the module `cupy.cuda.nccl`, or its stand-in. For several ranks only.
    """

    name: str
    cupy: Any
    cublas: Any
    include: tuple[str, ...] = ()
    stamp: str = ""
    nccl: Callable[[], Any] = lambda: import_nccl()


def unavailable() -> str | None:
    """Why no GPU can be used, or None if one can. Imports CuPy only where there is a driver."""
    if problem := _driver_problem():
        return problem
    try:
        real_toolkit()
    except RuntimeError as error:
        return str(error)
    return None


@cache
def real_toolkit() -> Toolkit:
    """CuPy and the libraries that go with it.

    Raises:
        RuntimeError: something is missing or too old; the message says what to do.
    """
    from nanocupy.device.cuda import blas

    if problem := _driver_problem():
        raise RuntimeError(f"[cuda] {problem}")
    cupy = import_cupy()
    _check_gpus(cupy)
    include = cuda_headers()
    try:
        cublas = blas.library(_cublas_path())
    except (OSError, AttributeError) as error:  # no such file, no such function in it
        raise RuntimeError(f"[cuda] libcublas cannot be used ({error}): {INSTALL}") from error
    return Toolkit("cuda", cupy, cublas, include, _stamp(include))


def count_gpus() -> int:
    """How many GPUs this process may use."""
    return int(real_toolkit().cupy.cuda.runtime.getDeviceCount())


def import_cupy() -> Any:
    """The `cupy` module. Raises RuntimeError that says what to install; needs no driver."""
    if np.lib.NumpyVersion(np.__version__) < "2.1.2":
        raise RuntimeError(
            f"[cuda] NumPy {np.__version__} is too old for bfloat16 in CuPy: "
            "pip install 'numpy>=2.1.2'"
        )
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError(f"[cuda] CuPy cannot be imported ({error}): {INSTALL}") from error


def import_nccl() -> Any:
    """The module `cupy.cuda.nccl`. Raises RuntimeError that says what to install."""
    import_cupy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # raised below
        nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        raise RuntimeError(
            "[cuda] several GPUs need NCCL, and libnccl cannot be loaded: pip install "
            "nvidia-nccl-cu13 (CUDA 12: nvidia-nccl-cu12)"
        )
    return nccl


def _finder() -> Any:
    """The module that finds CUDA's parts; it comes with CuPy 14."""
    try:
        return importlib.import_module("cuda.pathfinder")
    except ImportError as error:
        raise RuntimeError(f"[cuda] CuPy is too old or incomplete ({error}): {INSTALL}") from error


def cuda_headers() -> tuple[str, ...]:
    """Folders with CUDA's headers: of the installed wheels, else of a CUDA toolkit."""
    finder = _finder()
    main = finder.find_nvidia_header_directory("cudart")
    if main is None:
        raise RuntimeError(f"[cuda] CUDA's headers are not installed: {INSTALL}")
    compiler = Path(main).parents[1] / "cuda_nvcc" / "include"  # CUDA 12 wheels split them
    folders = [folder for folder in (Path(main), compiler) if folder.is_dir()]
    if not any((folder / "crt" / "mma.h").is_file() for folder in folders):
        raise RuntimeError(
            f"[cuda] crt/mma.h is not beside CUDA's headers in {main}: pip install nvidia-cuda-crt "
            "(CUDA 12: nvidia-cuda-nvcc-cu12)"
        )
    return tuple(str(folder) for folder in folders)


def _stamp(include: tuple[str, ...]) -> str:
    """A hash of the version of CUDA's headers."""
    found = [Path(folder) / "cuda_runtime_api.h" for folder in include]
    return " ".join(hashlib.sha256(p.read_bytes()).hexdigest() for p in found if p.is_file())


def _cublas_path() -> str:
    finder = _finder()
    try:
        return str(finder.load_nvidia_dynamic_lib("cublas").abs_path)
    except RuntimeError as error:
        raise RuntimeError(f"[cuda] libcublas cannot be loaded ({error}): {INSTALL}") from error


def _check_gpus(cupy: Any) -> None:
    """Refuse a driver that is older than CuPy's CUDA, and a GPU that is too old for our kernels."""
    runtime = cupy.cuda.runtime
    try:
        runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        have, want = (
            f"{v // 1000}.{v % 1000 // 10}"
            for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
        )
        raise RuntimeError(
            f"[cuda] {error} (the driver serves CUDA up to {have}, CuPy {cupy.__version__} is "
            f"built for {want}): update the driver, or install CuPy for its version of CUDA: "
            f"{INSTALL}"
        ) from error
    check_capability(cupy.cuda.Device(0).compute_capability)


def check_capability(text: str) -> int:
    """80 of "80", for 8.0. Raises RuntimeError if our kernels do not run on such a GPU."""
    if (capability := int(text)) < MIN_CAPABILITY:
        raise RuntimeError(
            f"[cuda] this GPU has compute capability {capability / 10}; nanocupy's kernels need "
            "8.0 (Ampere, 2020) or newer: use device='cpu'"
        )
    return capability


def _driver_problem() -> str | None:
    """Why the driver finds no GPU, asked without CuPy; None if it finds one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return NO_DRIVER
    if status := driver.cuInit(0):
        return f"the NVIDIA driver finds no GPU (cuInit: error {status}); use device='cpu'"
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU (see CUDA_VISIBLE_DEVICES); use device='cpu'"
    return None
