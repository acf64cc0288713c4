"""Compile a kernel once per machine; afterwards load its object code without Numba.

A kernel is a Python function in the SIMD dialect with the one ABI `int64 kernel(int64* args, int64
thread, int64 threads)`; it does its own share of the work and returns 0, or a positive code that
stops the run. Numba turns it into an object file without outside symbols, which is kept in a cache
and linked by llvmlite at the next start: a warm start never imports Numba.

The cache folder's name is a hash of every kernel source, the compiler versions, the CPU and the
SIMD level, so nothing stale is ever found; only the user can read it (see `store.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from nanocupy.device.cpu import target
from nanocupy.device.protocols import Tick
from nanocupy.device.store import Store

_SOURCES = (
    *("dtypes.py", "device/cpu/*.py", "device/chain.py"),
    *("kernels/*/__init__.py", "kernels/*/cpu*.py"),
)
_PACKAGE = Path(__file__).parents[2]
_lock = threading.RLock()
_loaded: dict[str, tuple[Any, int]] = {}


class Kernel:
    """A CPU kernel by name; its source module is imported, and with it Numba, only on a cache miss.

    Args:
        source: `"package.module:function"`.
    """

    by_numba = True

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = source.split(":")[1]

    def __repr__(self) -> str:
        return f"Kernel({self.source})"

    @property
    def ready(self) -> bool:
        """Whether the kernel is compiled already."""
        return is_ready(self.source)

    @property
    def address(self) -> int:
        """The address of the machine code; compiled on first use if the cache lacks it."""
        return address(self.source, lambda: _compile(self.source))


def is_ready(source: str) -> bool:
    """Whether a kernel's machine code is loaded, or in the cache."""
    return source in _loaded or store().holds(_file(source))


def address(source: str, compile: Callable[[], bytes]) -> int:
    """The address of a kernel's machine code; `compile` is called if the cache lacks it."""
    with _lock:
        if source not in _loaded:
            _loaded[source] = _link(source, compile)
        return _loaded[source][1]


def compile_all(kernels: Collection[Kernel], tick: Tick | None = None) -> None:
    """Make every kernel ready; `tick(done, total)` is called after each compilation.

    Kernels are compiled in child processes, one per CPU: this is faster, and neither Numba nor the
    compiler's memory stays in this process.
    """
    once = {kernel.source: kernel for kernel in kernels}  # a graph runs each for every layer
    missing = [k.source for k in once.values() if k.by_numba and not k.ready]
    if missing:
        with contextlib.suppress(OSError):  # Python cannot be started, or ended early
            _compile_in_processes(sorted(missing, key=_effort, reverse=True), tick)
    for kernel in once.values():
        _ = kernel.address


def _effort(source: str) -> int:
    """An estimate of the time to compile a kernel: the size of its file."""
    spec = importlib.util.find_spec(source.split(":")[0])
    return os.path.getsize(spec.origin) if spec and spec.origin else 0


def _compile_in_processes(sources: list[str], tick: Tick | None) -> None:
    """Compile in child processes. The caller compiles what they fail to."""
    from nanocupy import children

    python, waiting, done = children.python(), iter(sources), itertools.count(1)
    if python is None:
        return
    command = [python, "-c", f"from {__name__} import serve; serve()"]
    if tick:
        tick(0, len(sources))

    def work(_: int) -> None:
        with children.start(command, stdin=children.PIPE, stdout=children.PIPE) as child:
            for source in waiting:
                code = _ask(child, source)
                if code is None:
                    break
                address(source, lambda: code)  # noqa: B023 (called at once)
                if tick:
                    tick(next(done), len(sources))

    count = min(len(sources), os.cpu_count() or 1)
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def _ask(child: Any, source: str) -> bytes | None:
    """A kernel's object code from a child process; None if that has ended."""
    assert child.stdin and child.stdout
    child.stdin.write(source.encode() + b"\n")
    child.stdin.flush()
    size = int.from_bytes(child.stdout.read(8), "little")
    code: bytes = child.stdout.read(size)
    return code if size and len(code) == size else None


def serve() -> None:
    """Be a child process: compile the kernels named on stdin, one per line. For each, write the
    length of its object code in 8 bytes, and the code."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # compilers may print
    for line in sys.stdin:
        code = _compile(line.strip())
        answers.write(len(code).to_bytes(8, "little") + code)
        answers.flush()


# ---- the cache


@functools.cache
def store() -> Store:
    """The store of object files, in a folder whose name hashes everything they depend on."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(path.as_posix().encode() + b"\0" + (_PACKAGE / path).read_bytes())
    for name in ("numba", "llvmlite"):
        digest.update(importlib.metadata.version(name).encode())
    digest.update(f"{target.triple()} {target.cpu_name()} {target.feature_string()}".encode())
    digest.update(f"{sys.version_info[:2]}".encode())
    return Store("kernels", digest.hexdigest()[:24])


def _sources() -> list[Path]:
    """Every file that a kernel's machine code depends on."""
    found = [path for pattern in _SOURCES for path in sorted(_PACKAGE.glob(pattern))]
    return [path.relative_to(_PACKAGE) for path in found]


def _file(source: str) -> str:
    """The name of a kernel's file in the store."""
    return f"{symbol(source)}.o"


def symbol(source: str) -> str:
    return "nanocupy_" + re.sub(r"\W", "_", source)


def cached(source: str) -> bytes | None:
    """A kernel's object code, or None if its file is missing, damaged, or not to be trusted."""
    data = store().read(_file(source)) or b""
    check, code = data[:32], data[32:]
    return code if _checksum(source, code) == check else None


def _checksum(source: str, code: bytes) -> bytes:
    """A checksum of a kernel's name and code."""
    return hashlib.sha256(symbol(source).encode() + b"\0" + code).digest()


# ---- compiling and linking


def _link(source: str, compile: Callable[[], bytes]) -> tuple[Any, int]:
    code = cached(source)
    if code is None:
        code = compile()
        store().write(_file(source), _checksum(source, code) + code)
    return load(code, symbol(source))


def load(code: bytes, symbol: str) -> tuple[Any, int]:
    """Load object code; (object that keeps it alive, address of the function)."""
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine, engine.get_function_address(symbol)


@functools.cache
def _add_symbols() -> None:
    """Add the two functions of the system that kernels call."""
    system: Any = ctypes.CDLL("kernel32" if target.is_windows() else None)
    yield_thread = "SwitchToThread" if target.is_windows() else "sched_yield"
    maths = ctypes.CDLL("ucrtbase" if target.is_windows() else None)
    for library, name in ((system, yield_thread), (maths, "fmaf")):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        llvm.add_symbol(name, address)


def machine(cpu: str = "", features: str = "", level: int = 2) -> Any:
    """LLVM's code generator for this machine."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=level, codemodel="jitdefault", jit=True
    )


def _engine() -> Any:
    _add_symbols()
    made = machine()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), made)


def _compile(source: str) -> bytes:
    """Object code of the kernel under the symbol `symbol(source)`."""
    module, name = source.split(":")
    return compile_function(getattr(importlib.import_module(module), name), symbol(source))


def compile_function(function: Any, symbol: str) -> bytes:
    """Object code of a Python function with the ABI of a kernel, by Numba."""
    from numba import types
    from numba.core import compiler, config, registry
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import _FunctionCompiler

    class Compiler(_FunctionCompiler):
        def _customize_flags(self, flags: Any) -> Any:
            flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
            flags.enable_pyobject = False
            return flags

    config.CPU_NAME, config.CPU_FEATURES = target.cpu_name(), target.feature_string()
    config.LOOP_VECTORIZE = 0  # kernels are vectors already
    abi = types.int64(types.CPointer(types.int64), types.int64, types.int64)
    options = {"nopython": True, "error_model": "numpy", "_nrt": False}
    with global_compiler_lock:
        made = Compiler(function, registry.cpu_target, options, {}, compiler.Compiler).compile(
            abi.args, abi.return_type
        )
        made.library.add_ir_module(_entry(made, abi, symbol))
        made.library.finalize()
        made.library.get_pointer_to_function(symbol)
        return bytes(made.library._get_compiled_object())


def _entry(made: Any, abi: Any, symbol: str) -> Any:
    """A module with the kernel's C entry: call Numba's function and return its result.

    Numba's own wrapper would also turn errors into Python exceptions; a kernel cannot raise, and
    without that code the object file needs no symbol of Python's.
    """
    from llvmlite import ir

    context, native = made.target_context, made.fndesc
    entry = made.library.create_ir_module("entry")
    signature = context.call_conv.get_function_type(native.restype, native.argtypes)
    callee = ir.Function(entry, signature, native.llvm_func_name)
    types = [context.get_value_type(t) for t in abi.args]
    function = ir.Function(entry, ir.FunctionType(ir.IntType(64), types), symbol)
    builder = ir.IRBuilder(function.append_basic_block())
    _, out = context.call_conv.call_function(
        builder, callee, abi.return_type, abi.args, function.args
    )
    builder.ret(out)
    return entry
