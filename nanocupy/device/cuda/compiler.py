"""CUDA sources to machine code, by NVRTC: once per machine, several files at a time.

The kernels of a file that are loaded together are compiled as one program. Its machine code is
cached under a hash of everything it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from nanocupy.device.cuda import sources
from nanocupy.device.cuda.launch import as_kernel_error
from nanocupy.device.cuda.toolkit import Toolkit
from nanocupy.device.paths import cache_folder
from nanocupy.device.protocols import KernelError, Tick
from nanocupy.device.store import Store, in_memory

FLAGS = ("--std=c++17", "-default-device")


class Compiler:
    """Compiles and loads kernels for one architecture.

    Args:
        capability: of the GPU: 80 for 8.0.
        tick: called as `tick(done, total)`, in files, while some are compiled.
    """

    def __init__(self, toolkit: Toolkit, capability: int, tick: Tick | None = None) -> None:
        self._toolkit, self._capability, self._tick = toolkit, capability, tick
        self._loaded: dict[tuple[str, str], Any] = {}

    def __getitem__(self, kernel: Any) -> Any:
        """The CuPy RawKernel of a loaded `CudaKernel`."""
        return self._loaded[kernel.file, kernel.expression]

    def load(self, kernels: Iterable[Any]) -> None:
        """Make kernels ready to be launched."""
        wanted: dict[tuple[str, str | None], set[str]] = {}
        for kernel in kernels:
            if (kernel.file, kernel.expression) not in self._loaded:
                written = getattr(kernel, "text", None)
                wanted.setdefault((kernel.file, written), set()).add(kernel.expression)
        programs = [
            Program(self._toolkit, self._capability, file, tuple(sorted(names)), text)
            for (file, text), names in wanted.items()
        ]
        cached = [program.find() for program in programs]
        missing = [p for p, binary in zip(programs, cached, strict=True) if binary is None]
        made = iter(compile_all(missing, self._tick))
        for program, binary in zip(programs, cached, strict=True):
            self._load(program, binary or next(made))

    def _load(self, program: Program, binary: Binary) -> None:
        with as_kernel_error(f"{program.file}.cu"):
            module = self._toolkit.cupy.RawModule(path=str(binary.path))
            for expression, name in binary.names.items():
                self._loaded[program.file, expression] = module.get_function(name)


class Binary(NamedTuple):
    """A file of machine code, and the name of each expression in it."""

    path: Path
    names: dict[str, str]


@dataclass(frozen=True)
class Program:
    """Some kernels of one file, or of a generated text, for one architecture."""

    toolkit: Toolkit
    capability: int
    file: str
    expressions: tuple[str, ...]
    text: str | None = None

    @property
    def _nvrtc(self) -> Any:
        return self.toolkit.cupy.cuda.nvrtc

    @cached_property
    def name(self) -> str:
        """The name of the machine code's file, without suffix. A .json is written after it."""
        nvrtc = ".".join(map(str, self._nvrtc.getVersion()))
        parts = (
            sources.source_hash(self.file, self.text), self.toolkit.name, nvrtc, self.toolkit.stamp,
            *base_options(self.capability), *self.expressions,
        )  # fmt: skip
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
        return f"{self.file}-{key}"

    @property
    def _store(self) -> Store:
        return _store(cache_folder())

    def find(self) -> Binary | None:
        """The cached machine code, if it is there and complete."""
        code, about = self._store.read(f"{self.name}.cubin"), self._store.read(f"{self.name}.json")
        if code is None or about is None:
            return None
        try:
            said = json.loads(about)
            whole = hashlib.sha256(code).hexdigest() == said["sha256"]
            return self._kept(said["names"]) if whole else None
        except (ValueError, KeyError, TypeError):
            return None

    def make(self) -> Binary:
        """Compile into the cache, unless another process just did; without a cache, in memory."""
        with self._alone():
            if (found := self.find()) is not None:
                return found
            code, names, _ = compile_file(
                self._nvrtc, self.file, self.expressions, self.capability, self.toolkit.include,
                text=self.text,
            )  # fmt: skip
            about = {"names": names, "sha256": hashlib.sha256(code).hexdigest()}
            files = {"cubin": code, "json": json.dumps(about).encode()}
            kept = all(self._store.write(f"{self.name}.{end}", data) for end, data in files.items())
        return self._kept(names) if kept else Binary(in_memory(f"{self.name}.cubin", code), names)

    def _kept(self, names: dict[str, str]) -> Binary:
        assert self._store.folder is not None
        return Binary(self._store.folder / f"{self.name}.cubin", names)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let other processes wait for the file that this one makes, if files can be locked."""
        with ExitStack() as stack:
            if (folder := self._store.folder) is not None:
                with suppress(OSError, NotImplementedError):  # read-only, full, or without locks
                    stack.enter_context(FileLock(folder / f"{self.name}.lock"))
            yield


@cache
def _store(_: Path) -> Store:
    """The store of a cache folder; programs may change the folder (`NANOCUPY_CACHE`)."""
    return Store("cuda")


class Compiled(NamedTuple):
    """Machine code, the name of each expression in it, and the compiler's log."""

    code: bytes
    names: dict[str, str]
    log: str


def compile_file(
    nvrtc: Any,
    file: str,
    expressions: Iterable[str],
    capability: int,
    include: Iterable[str],
    *options: str,
    text: str | None = None,
) -> Compiled:
    """Compile some kernels of one file by NVRTC. No GPU is needed.

    Args:
        text: the source, if it is not a file of `cuda_kernels`.
        include: folders of CUDA's headers.
        options: for NVRTC, besides those of every kernel.

    Raises:
        KernelError: with the compiler's log.
    """
    folder = sources.kernel_folder()
    folders = [f"-I{path}" for path in (folder, *include)]
    program = nvrtc.createProgram(text or sources.source(file), str(folder / f"{file}.cu"), (), ())
    try:
        for expression in expressions:
            nvrtc.addNameExpression(program, expression)
        try:
            nvrtc.compileProgram(program, (*base_options(capability), *options, *folders))
        except RuntimeError as error:
            raise KernelError(
                f"[{file}.cu] does not compile for {', '.join(expressions)} ({error}):\n"
                f"{nvrtc.getProgramLog(program)}"
            ) from error
        names = {e: nvrtc.getLoweredName(program, e) for e in expressions}
        return Compiled(nvrtc.getCUBIN(program), names, nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def base_options(capability: int) -> tuple[str, ...]:
    """The options that every kernel is compiled with."""
    return (f"-arch=sm_{capability}", *FLAGS)


def compile_all(programs: list[Program], tick: Tick | None) -> list[Binary]:
    """Compile on all CPUs; the first error stops everything."""
    if not programs:
        return []
    if tick:
        tick(0, len(programs))
    with ThreadPoolExecutor(min(len(programs), os.cpu_count() or 1)) as pool:
        made = [pool.submit(program.make) for program in programs]
        try:
            for done, future in enumerate(as_completed(made), 1):
                future.result()
                if tick:
                    tick(done, len(programs))
            return [future.result() for future in made]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
