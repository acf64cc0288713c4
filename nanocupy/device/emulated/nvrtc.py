"""NVRTC's functions, which here compile with g++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanocupy.device.emulated import build, errors
from nanocupy.device.emulated.gpu import Gpu
from nanocupy.device.emulated.runtime import CAPABILITY

OPTIONS = (f"-arch=sm_{CAPABILITY}", "--std=c++17", "-default-device")


class _Program:
    def __init__(self, source: str, name: str) -> None:
        self.source, self.name = source, name
        self.expressions: list[str] = []
        self.log, self.binary = "", b""


class Nvrtc:
    """The module `cupy.cuda.nvrtc`."""

    NVRTCError = errors.NVRTCError

    def __init__(self, gpu: Gpu) -> None:
        self._handles = gpu.handles
        self._programs: dict[int, _Program] = {}

    def getVersion(self) -> tuple[int, int]:
        return 0, 0

    def createProgram(self, src: str, name: str, headers: Any, include_names: Any) -> int:
        assert not headers and not include_names
        prog = next(self._handles)
        self._programs[prog] = _Program(src, name)
        return prog

    def addNameExpression(self, prog: int, name: str) -> None:
        program = self._find(prog)
        if program.binary:
            raise errors.NVRTCError("NVRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION")
        program.expressions.append(name)

    def compileProgram(self, prog: int, options: Sequence[str]) -> None:
        program = self._find(prog)
        include = [option[2:] for option in options if option.startswith("-I")]
        known = (*OPTIONS, *(f"-I{folder}" for folder in include))
        if unknown := [option for option in options if option not in known]:
            raise errors.NVRTCError(f"NVRTC_ERROR_INVALID_OPTION: {unknown}")
        try:
            program.binary = build.compile(
                program.source, program.name, program.expressions, include
            )
        except build.CompileError as error:
            program.log = str(error)
            raise errors.NVRTCError("NVRTC_ERROR_COMPILATION") from error

    def getCUBIN(self, prog: int) -> bytes:
        return self._compiled(prog).binary

    def getLoweredName(self, prog: int, name: str) -> str:
        """A name that says where the kernel is, and what it is called in messages."""
        return f"k{self._compiled(prog).expressions.index(name)} {name.partition('<')[0]}"

    def getProgramLog(self, prog: int) -> str:
        return self._find(prog).log

    def destroyProgram(self, prog: int) -> None:
        self._find(prog)
        del self._programs[prog]

    def _find(self, prog: int) -> _Program:
        if prog not in self._programs:
            raise errors.NVRTCError("NVRTC_ERROR_INVALID_PROGRAM")
        return self._programs[prog]

    def _compiled(self, prog: int) -> _Program:
        program = self._find(prog)
        if not program.binary:
            raise errors.NVRTCError("NVRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION")
        return program
