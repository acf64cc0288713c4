"""CUDA sources to machine code: by NVRTC, once a machine, several files at a time.

All kernels of a file that are asked for together are compiled as one program, whose machine code is
kept in a cache under a hash of everything it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from nanocupy.device.base import KernelError, Tick
from nanocupy.device.cuda import sources
from nanocupy.device.cuda.launch import naming
from nanocupy.device.cuda.toolkit import Toolkit
from nanocupy.device.paths import cache_folder, private_folder

FLAGS = ("--std=c++17", "-default-device")


class Compiler:
    """Kernels of one toolkit for one architecture, loaded.

    Args:
        capability: of the GPU: 80 for 8.0.
        tick: called as `tick(done, total)`, in files, while some are compiled.
    """

    def __init__(self, toolkit: Toolkit, capability: int, tick: Tick | None = None) -> None:
        self._toolkit, self._capability, self._tick = toolkit, capability, tick
        self._loaded: dict[tuple[str, str], Any] = {}

    def __getitem__(self, kernel: Any) -> Any:
        """The CuPy RawKernel of a `CudaKernel` that was loaded."""
        return self._loaded[kernel.file, kernel.expression]

    def load(self, kernels: Iterable[Any]) -> None:
        """Make kernels ready to be launched."""
        wanted: dict[str, set[str]] = {}
        for kernel in kernels:
            if (kernel.file, kernel.expression) not in self._loaded:
                wanted.setdefault(kernel.file, set()).add(kernel.expression)
        programs = [self._program(file, *sorted(names)) for file, names in wanted.items()]
        compile_all([program for program in programs if program.find() is None], self._tick)
        for program in programs:
            self._load(program)

    def _program(self, file: str, *expressions: str) -> Program:
        return Program(self._toolkit, self._capability, file, expressions)

    def _load(self, program: Program) -> None:
        binary = program.find()
        if binary is None:
            raise KernelError(f"[{program.file}.cu] is gone from the cache in {cache_folder()}")
        with naming(f"{program.file}.cu"):
            module = self._toolkit.cupy.RawModule(path=str(binary.path))
            for expression, name in binary.names.items():
                self._loaded[program.file, expression] = module.get_function(name)


class Binary(NamedTuple):
    """Machine code in the cache, and what each expression is called in it."""

    path: Path
    names: dict[str, str]


@dataclass(frozen=True)
class Program:
    """Some kernels of one file, for one architecture."""

    toolkit: Toolkit
    capability: int
    file: str
    expressions: tuple[str, ...]

    @property
    def _nvrtc(self) -> Any:
        return self.toolkit.cupy.cuda.nvrtc

    @property
    def _options(self) -> tuple[str, ...]:
        return (f"-arch=sm_{self.capability}", *FLAGS)

    @cached_property
    def path(self) -> Path:
        """Of the machine code; beside it lies a .json that is written last."""
        nvrtc = ".".join(map(str, self._nvrtc.getVersion()))
        parts = (
            sources.source_hash(self.file), self.toolkit.name, nvrtc, self.toolkit.stamp,
            *self._options, *self.expressions,
        )  # fmt: skip
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
        return private_folder(cache_folder() / "cuda") / f"{self.file}-{key}.cubin"

    def find(self) -> Binary | None:
        """What the cache has, if it is whole."""
        path = self.path
        try:
            code, about = path.read_bytes(), json.loads(path.with_suffix(".json").read_bytes())
            whole = hashlib.sha256(code).hexdigest() == about["sha256"]
            return Binary(path, about["names"]) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def make(self) -> None:
        """Compile into the cache, unless another process has just done so."""
        path = self.path
        with FileLock(path.with_suffix(".lock")):
            if self.find() is not None:
                return
            code, names = self._compile()
            _replace(path, code)
            about = {"names": names, "sha256": hashlib.sha256(code).hexdigest()}
            _replace(path.with_suffix(".json"), json.dumps(about).encode())

    def _compile(self) -> tuple[bytes, dict[str, str]]:
        nvrtc, folder = self._nvrtc, sources.kernel_folder()
        include = [f"-I{path}" for path in (folder, *self.toolkit.include)]
        name = str(folder / f"{self.file}.cu")
        program = nvrtc.createProgram(sources.source(self.file), name, (), ())
        try:
            for expression in self.expressions:
                nvrtc.addNameExpression(program, expression)
            try:
                nvrtc.compileProgram(program, (*self._options, *include))
            except RuntimeError as error:
                raise KernelError(
                    f"[{self.file}.cu] does not compile for {', '.join(self.expressions)} "
                    f"({error}):\n{nvrtc.getProgramLog(program)}"
                ) from error
            names = {e: nvrtc.getLoweredName(program, e) for e in self.expressions}
            return nvrtc.getCUBIN(program), names
        finally:
            nvrtc.destroyProgram(program)


def compile_all(programs: list[Program], tick: Tick | None) -> None:
    """Compile on every CPU; the first error ends it."""
    if not programs:
        return
    if tick:
        tick(0, len(programs))
    with ThreadPoolExecutor(min(len(programs), os.cpu_count() or 1)) as pool:
        made = [pool.submit(program.make) for program in programs]
        try:
            for done, future in enumerate(as_completed(made), 1):
                future.result()
                if tick:
                    tick(done, len(programs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _replace(path: Path, data: bytes) -> None:
    """Write a file at once, or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
