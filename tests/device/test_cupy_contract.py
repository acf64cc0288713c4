"""What the CUDA device uses of CuPy, cuBLAS, NCCL and NVRTC is there, by that name, in that form.

No GPU is needed. Names come from the device's own source, and from the stand-in, on which all of
the device's code runs: what the stand-in has, CuPy has, and every call that the one takes, the
other takes. `NANOCUPY_CUPY12=<folder>` holds an unpacked wheel of CuPy for CUDA 12 to the same.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from device.needs import COMPILER
from nanocupy.device.cuda import blas, sources, toolkit
from nanocupy.device.cuda import nccl as our_nccl
from nanocupy.device.cuda.communicator import Communicator, unique_id
from nanocupy.device.cuda.compiler import Program
from nanocupy.device.emulated import cublas, errors, memory, module, nccl, nvrtc, runtime, stream
from nanocupy.device.emulated.gpu import Gpu
from nanocupy.device.protocols import KernelError

pytestmark = pytest.mark.skipif(
    find_spec("cupy") is None and os.environ.get("CI") != "true", reason="CuPy is not installed"
)
SOURCES = Path(toolkit.__file__).parent
# The stand-ins, by what they stand for.
STAND_INS: dict[str, Any] = {
    "ndarray": memory.ndarray,
    "RawModule": module.RawModule,
    "RawKernel": module.RawKernel,
    "cuda.Function": module.Function,
    "cuda.MemoryPool": memory.MemoryPool,
    "cuda.MemoryPointer": memory.MemoryPointer,
    "cuda.PinnedMemoryPointer": memory.PinnedMemoryPointer,
    "cuda.alloc_pinned_memory": partial(memory.alloc_pinned_memory, Gpu(0)),
    "cuda.Stream": stream.Stream,
    "cuda.Event": stream.Event,
    "cuda.Graph": stream.Graph,
    "cuda.Device": runtime.Device,
    "cuda.runtime": runtime.Runtime,
    "cuda.nvrtc": nvrtc.Nvrtc,
    "cuda.nccl": nccl.Nccl,
    "cuda.nccl.NcclCommunicator": nccl.NcclCommunicator,
    "cuda.memory.OutOfMemoryError": errors.OutOfMemoryError,
    "cuda.runtime.CUDARuntimeError": errors.CUDARuntimeError,
    "cuda.driver.CUDADriverError": errors.CUDADriverError,
    "cuda.nvrtc.NVRTCError": errors.NVRTCError,
    "cuda.nccl.NcclError": nccl.NcclError,
}
# Attributes that objects get when they are made: no class knows of them.
BY_OBJECTS = {"cuda.Stream.ptr", "cuda.nccl.NcclError.status"}
# What has no signature to look at, or is no class but a module. Tests below call the first two.
BY_CALLING = {"ndarray", "cuda.Graph", "cuda.runtime", "cuda.nvrtc", "cuda.nccl"}


def real(path: str) -> Any:
    """What CuPy has at a dotted path."""
    found = toolkit.import_cupy()
    if path.startswith("cuda.nccl"):
        load_nccl()
    for name in path.split("."):
        found = getattr(found, name)
    return found


@cache
def load_nccl() -> None:
    """Import CuPy's module; where libnccl (300 MB) is not installed, on a library of its names."""
    try:
        toolkit.import_nccl()
    except RuntimeError:
        if COMPILER is None and os.environ.get("CI") != "true":
            pytest.skip("needs libnccl, or g++")
        extension = find_spec("cupy_backends.cuda.libs.nccl")
        assert extension and extension.origin
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "libnccl.so.2"
            make_libnccl(library, Path(extension.origin).read_bytes())
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        importlib.reload(importlib.import_module("cupy.cuda.nccl"))
        assert toolkit.import_nccl().available


def make_libnccl(path: Path, extension: bytes) -> None:
    """A library with all of libnccl's functions that an extension names; they just say success."""
    names = {name.decode() for name in re.findall(rb"(?<=\0)nccl[A-Z]\w+(?=\0)", extension)}
    assert {"ncclAllReduce", "ncclBroadcast", "ncclCommAbort", "ncclGroupEnd"} <= names
    text = "".join(f"int {name}() {{ return 0; }}\n" for name in names - {"ncclGetErrorString"})
    text += 'const char* ncclGetErrorString(int status) { return "words"; }'
    options = ["-x", "c", "-", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path)]
    subprocess.run([COMPILER or "g++", *options], input=text, text=True, check=True)


# ---- names


def used() -> Iterator[str]:
    """Every dotted path into CuPy that the device's source spells."""
    roots = {
        "cupy": "", "cuda": "cuda.", "runtime": "cuda.runtime.", "nvrtc": "cuda.nvrtc.",
        "nccl": "cuda.nccl.", "communicator": "cuda.nccl.NcclCommunicator.",
    }  # fmt: skip
    for path in sorted(SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                *before, last = ast.unparse(node).split(".")
                owners = [i for i, name in enumerate(before) if name.lstrip("_") in roots]
                if owners and all(name.isidentifier() for name in before):
                    root, *rest = before[owners[0] :]
                    yield roots[root.lstrip("_")] + ".".join([*rest, last])


@pytest.mark.parametrize("path", sorted(set(used())))
def test_what_the_source_names_exists(path: str) -> None:
    real(path)


def test_the_source_is_read() -> None:
    names = set(used())
    assert {"ndarray", "RawModule", "cuda.MemoryPool", "cuda.runtime.memcpyAsync"} <= names
    assert {"cuda.nvrtc.compileProgram", "cuda.runtime.streamCaptureModeThreadLocal"} <= names
    assert {"cuda.runtime.memcpy2DAsync", "cuda.runtime.streamQuery"} <= names
    assert {"cuda.nccl.NCCL_BFLOAT16", "cuda.nccl.groupEnd", "cuda.nccl.available"} <= names
    methods = {"allReduce", "broadcast", "check_async_error", "abort", "destroy"}
    assert {f"cuda.nccl.NcclCommunicator.{name}" for name in methods} <= names


def members(stand_in: Any) -> set[str]:
    """The public attributes of a stand-in's class and of its objects."""
    if not inspect.isclass(stand_in):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(stand_in)))
    own = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "self"
    }
    return {name for name in own | set(vars(stand_in)) if not name.startswith("_")}


@pytest.mark.parametrize("path", STAND_INS)
def test_the_stand_in_has_nothing_of_its_own(path: str) -> None:
    for name in members(STAND_INS[path]):
        if f"{path}.{name}" not in BY_OBJECTS:
            assert hasattr(real(path), name), f"cupy.{path} has no {name}"


def test_constants_and_errors_are_cuda_s() -> None:
    for name, value in vars(runtime.Runtime).items():
        if isinstance(value, int):
            assert getattr(real("cuda.runtime"), name) == value, name
    for name, value in vars(nccl.Nccl).items():
        if isinstance(value, int):
            assert getattr(real("cuda.nccl"), name) == value, name
    for path, kind in STAND_INS.items():
        if path.endswith("Error"):
            shared = (RuntimeError, MemoryError)
            assert [issubclass(kind, k) for k in shared] == [
                issubclass(real(path), k) for k in shared
            ], path
    device: Any = type("Device", (runtime.Device,), {"_gpu": Gpu(0)})()
    for name in device.attributes:
        assert hasattr(real("cuda.runtime"), f"cudaDevAttr{name}")


# ---- calls


def parameters(function: Any) -> tuple[list[str], list[str]]:
    """(by position, by keyword only). Of Cython's functions, from the line that it documents."""
    text = "" if isinstance(function, partial) else (function.__doc__ or "").partition("\n")[0]
    if declared := re.match(r"[\w.]+\((.*)\)", text):
        names = [re.split(r"[=:]", part)[0].split()[-1] for part in declared[1].split(", ") if part]
        names = [name.lstrip("*") or "*" for name in names if name != "self"]
        star = names.index("*") if "*" in names else len(names)
        return names[:star], names[star + 1 :]
    kinds = inspect.Parameter
    listed = list(inspect.signature(function).parameters.values())
    by_position = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD, kinds.VAR_POSITIONAL)
    names = {p.name: p.kind in by_position for p in listed if p.name != "self"}
    return [n for n, place in names.items() if place], [n for n, p in names.items() if not p]


def calls() -> Iterator[str]:
    """What can be called of the stand-ins."""
    for path, stand_in in STAND_INS.items():
        if path.endswith("Error"):
            continue
        if "__init__" in vars(stand_in) or not inspect.isclass(stand_in):
            yield path
        for name in sorted(members(stand_in)):
            if inspect.isfunction(getattr(stand_in, name, None)):
                yield f"{path}.{name}"


@pytest.mark.parametrize("path", [p for p in calls() if p not in BY_CALLING])
def test_calls_that_the_stand_in_takes_cupy_takes(path: str) -> None:
    owner, _, name = path.rpartition(".")
    ours = STAND_INS[path] if path in STAND_INS else getattr(STAND_INS[owner], name)
    theirs = real(path)
    if inspect.isclass(ours):
        ours = ours.__init__
        if not re.match(r"\w+\(", theirs.__doc__ or ""):
            theirs = theirs.__init__
    places, keywords = parameters(ours)
    real_places, real_keywords = parameters(theirs)
    assert real_places[: len(places)] == places, (path, real_places)
    assert set(keywords) <= set(real_places + real_keywords), (path, real_keywords)


def array(shape: tuple[int, ...], dtype: Any, kind: Any = None) -> Any:
    """CuPy's array, at an address where nothing is: it can be looked at without a GPU."""
    cuda = real("cuda")
    owned = cuda.UnownedMemory(1 << 20, 1 << 16, None, 0)
    return real("ndarray")(shape, np.dtype(dtype), cuda.MemoryPointer(owned, 0))


VIEWS: dict[str, Any] = {
    "itself": lambda x: x,
    "rows": lambda x: x[1:3],
    "a row": lambda x: x[2],
    "columns": lambda x: x[:, :2],
    "a column": lambda x: x[:, 1],
    "flat": lambda x: x.reshape(-1),
    "reshaped": lambda x: x.reshape((2, 2, 8)),
    "bytes": lambda x: x.reshape(-1).view(np.uint8)[8:24],
    "floats again": lambda x: x.reshape(-1).view(np.uint8)[8:24].view(np.float32).reshape(2, 2),
    "nothing": lambda x: x[:0],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64], ids=str)
@pytest.mark.parametrize("view", VIEWS)
def test_views_are_the_same(view: str, dtype: Any) -> None:
    whole = array((4, 8), dtype)
    pool: Any = type("Pool", (memory.MemoryPool,), {"_gpu": Gpu(1 << 20)})()
    stand_in = memory.ndarray((4, 8), np.dtype(dtype), pool.malloc(whole.nbytes))
    ours, theirs = VIEWS[view](stand_in), VIEWS[view](whole)
    for name in ("shape", "dtype", "size", "nbytes"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.flags.c_contiguous == theirs.flags.c_contiguous
    if ours.size:
        assert ours.data.ptr - stand_in.data.ptr == theirs.data.ptr - whole.data.ptr


def test_a_kernel_is_called_with_that() -> None:
    """As far as it goes without a kernel: what fails is CUDA, and not the call."""

    class Stream:
        ptr = 0

    function = real("cuda.Function")
    nothing = function.__new__(function)
    args = (array((4,), ml_dtypes.bfloat16), np.int32(1), np.int64(1), np.float32(1))
    with pytest.raises(RuntimeError):
        nothing((1, 1, 1), (32,), args, 0, Stream())
    with pytest.raises(TypeError):
        nothing((1, 1, 1), (32,), args, 0, Stream(), 0, 0)


def test_a_graph_is_made_by_capture_alone() -> None:
    with pytest.raises(NotImplementedError):
        real("cuda.Graph")()


def test_pinned_memory_is_a_buffer() -> None:
    owner = type("Memory", (), {"ptr": np.zeros(8, np.uint8).ctypes.data, "size": 8})()
    pointer = real("cuda.PinnedMemoryPointer")(owner, 0)
    host = np.frombuffer(pointer, np.uint8, 5)
    assert host.shape == (5,) and host.flags.writeable and host.ctypes.data == owner.ptr


def test_nccl_is_called_with_that() -> None:
    """On a communicator of nobody: what fails is NCCL, and not the call."""
    module = real("cuda.nccl")
    assert len(module.get_unique_id()) == nccl.ID_BYTES
    nobody = module.NcclCommunicator.__new__(module.NcclCommunicator)
    reduction = (0x1000, 0x1000, 4, module.NCCL_BFLOAT16, module.NCCL_MAX, 0x10)
    spread = (0x1000, 0x1000, 4, module.NCCL_FLOAT16, 1, 0x10)
    for call in (
        partial(nobody.allReduce, *reduction),
        partial(nobody.broadcast, *spread),
        nobody.check_async_error,
    ):
        try:
            assert call() is None
        except module.NcclError as error:
            assert isinstance(error, RuntimeError)
    assert nobody.abort() is None and nobody.destroy() is None
    module.groupStart()
    module.groupEnd()
    with pytest.raises(TypeError):
        nobody.allReduce(*reduction, 0)
    with pytest.raises(ValueError, match="commId length 3 != 128"):
        module.NcclCommunicator(1, b"abc", 0)


def test_our_communicator_holds_and_ends_cupy_s() -> None:
    module = real("cuda.nccl")
    nobody = module.NcclCommunicator.__new__(module.NcclCommunicator)
    made = SimpleNamespace(
        NcclCommunicator=lambda *_: nobody,
        groupStart=module.groupStart,
        groupEnd=module.groupEnd,
    )
    before = sys.getrefcount(nobody)
    ours = Communicator(made, 2, unique_id(module), 0)
    assert sys.getrefcount(nobody) == before + 2  # one is nobody's
    for call in (
        partial(ours.all_reduce, 0x1000, 0x1000, 4, module.NCCL_FLOAT32, module.NCCL_SUM, 0x10),
        partial(ours.broadcast_all, [(0x1000, 0x1000, 4, module.NCCL_FLOAT32, 0, 0x10)] * 2),
    ):
        with suppress(module.NcclError):
            call()
    error = ours.error()
    assert error is None or isinstance(error, module.NcclError)
    ours.destroy()
    ours.abort()
    assert ours.closed and sys.getrefcount(nobody) == before + 1
    with pytest.raises(RuntimeError, match="the ranks have disconnected"):
        ours.broadcast_all([])


def test_nccl_s_errors_have_cupy_s_names() -> None:
    for status, text in nccl.ERRORS.items():
        error = real("cuda.nccl.NcclError")(status)
        assert error.status == nccl.NcclError(status).status == status
        assert str(error).partition(":")[0] == text.partition(":")[0]


def test_cupy_knows_no_names_for_nccl_s_newer_statuses() -> None:
    """If this fails, `communicator` has no need to mind KeyError any more."""
    with pytest.raises(KeyError):
        real("cuda.nccl.NcclError")(8)


# ---- cuBLAS, NVRTC and the runtime


def installed(find: Callable[[], Any]) -> Any:
    """What is found; where it is not installed, the test is skipped, except in CI."""
    try:
        return find()
    except RuntimeError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))


def test_cublas_has_its_functions() -> None:
    """Of the stand-in, with as many arguments; and of the library, if it is installed."""
    for name, types in blas.SIGNATURES.items():
        assert len(inspect.signature(getattr(cublas.Cublas(Gpu(0)), name)).parameters) == len(types)
    try:
        path = toolkit._cublas_path()
    except RuntimeError as error:  # half a gigabyte: not in the extra cuda-check
        pytest.skip(str(error))
    blas.library(path)


def test_cublas_s_numbers_are_those_of_its_headers() -> None:
    include = Path(installed(toolkit.cuda_headers)[0])
    headers = [include / name for name in ("cublas_api.h", "library_types.h")]
    if not all(path.is_file() for path in headers):
        pytest.skip(f"no cublas_api.h in {include}")
    text = "".join(path.read_text() for path in headers)
    numbers = {
        "CUBLAS_OP_N": blas.N,
        "CUBLAS_OP_T": blas.T,
        "CUBLAS_COMPUTE_32F": blas.COMPUTE_32F,
        "CUBLAS_GEMM_DEFAULT": blas.DEFAULT_ALGORITHM,
        "CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION": blas.NO_REDUCED_PRECISION,
        "CUDA_R_32F": blas.CUDA_TYPES[np.dtype(np.float32)],
        "CUDA_R_16F": blas.CUDA_TYPES[np.dtype(np.float16)],
        "CUDA_R_16BF": blas.CUDA_TYPES[np.dtype(ml_dtypes.bfloat16)],
        "CUBLAS_STATUS_NOT_INITIALIZED": cublas.NOT_INITIALIZED,
        "CUBLAS_STATUS_ALLOC_FAILED": cublas.ALLOC_FAILED,
        "CUBLAS_STATUS_INVALID_VALUE": cublas.INVALID_VALUE,
        "CUBLAS_STATUS_EXECUTION_FAILED": cublas.EXECUTION_FAILED,
        "CUBLAS_STATUS_INTERNAL_ERROR": cublas.INTERNAL_ERROR,
        "CUBLAS_STATUS_NOT_SUPPORTED": cublas.NOT_SUPPORTED,
    }
    for name, value in numbers.items():
        found = re.search(rf"\b{name}\s*=\s*(-?\d+)", text)
        assert found and int(found[1]) == value, name


def test_the_runtime_s_numbers_are_those_of_its_headers() -> None:
    text = (Path(installed(toolkit.cuda_headers)[0]) / "driver_types.h").read_text()
    assert our_nccl.NOT_READY == runtime.NOT_READY
    numbers = {
        "cudaErrorInvalidResourceHandle": runtime.INVALID_HANDLE,
        "cudaErrorNotReady": runtime.NOT_READY,
        "cudaErrorLaunchFailure": runtime.LAUNCH_FAILURE,
        "cudaErrorStreamCaptureUnsupported": runtime.CAPTURE_UNSUPPORTED,
    }
    for name, value in numbers.items():
        found = re.search(rf"\b{name}\s*=\s*(\d+)", text)
        assert found and int(found[1]) == value, name


def test_nvrtc_compiles_a_file_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the compiler that the CUDA device has; cached."""
    text = '#include "common.cuh"\ntemplate <class T> __global__ void zero(T* x) { *x = T(); }'
    (tmp_path / "test.cu").write_text(text)
    (tmp_path / "common.cuh").write_text((sources.kernel_folder() / "common.cuh").read_text())
    monkeypatch.setattr(sources, "kernel_folder", lambda: tmp_path)
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path))
    tools = toolkit.Toolkit("cuda", toolkit.import_cupy(), None, installed(toolkit.cuda_headers))
    name = "zero<__nv_bfloat16>"
    program = Program(tools, 90, "test", (name,))
    assert program.find() is None
    program.make()
    binary = program.find()
    assert binary is not None and binary.path.read_bytes()[:4] == b"\x7fELF"
    assert list(binary.names) == [name] and "zero" in binary.names[name]
    assert Program(tools, 80, "test", (name,)).name != program.name
    with pytest.raises(KernelError, match=r"\[test.cu\] does not compile.*\n.*nothing"):
        Program(tools, 90, "test", ("zero<nothing>",)).make()


# ---- CUDA 12


@pytest.mark.skipif(
    "NANOCUPY_CUPY12" not in os.environ, reason="NANOCUPY_CUPY12 names no CuPy for CUDA 12"
)
def test_the_same_holds_for_cuda_12() -> None:
    folder = os.environ["NANOCUPY_CUPY12"]
    environment = {k: v for k, v in os.environ.items() if k != "NANOCUPY_CUPY12"}
    environment["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])

    def run(*args: str) -> str:
        command = [sys.executable, *args]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    assert run("-c", "import cupy; print(cupy.__file__)").startswith(folder)
    # NVRTC and cuBLAS beside it are of CUDA 13.
    tests = "not compiles_a_file and not test_cublas"
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", tests, __file__)
