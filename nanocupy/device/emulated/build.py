"""CUDA sources as shared objects: g++ with the headers of `include`, one fiber a CUDA thread."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shlex
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from nanocupy import children
from nanocupy.device.protocols import KernelError

INCLUDE = Path(__file__).absolute().parent / "include"
MOST_THREADS = 1024  # of a block
FLAGS = (
    "-std=c++17", "-O2", "-g", "-fPIC", "-shared", "-pthread",
    "-fno-strict-aliasing",  # CUDA code reads memory through uint4
    "-fno-gnu-unique", "-fvisibility=hidden",  # two objects in a process share nothing
    "-ffp-contract=off", "-Wno-unknown-pragmas",
)  # fmt: skip
NO_ROOM = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS)), "No usable temporary directory",
)  # fmt: skip
MEMORY = "/dev/shm"  # where a compiler can write if it cannot on a disk


class CompileError(RuntimeError):
    """What the compiler says."""


def compiler() -> str:
    """$CXX or g++."""
    return os.environ.get("CXX") or "g++"


def unavailable() -> str | None:
    """Why nothing can be compiled here, or None."""
    if platform.system() != "Linux":
        return f"the emulated device runs on Linux, not on {platform.system()}"
    if children.program(shlex.split(compiler())[0]) is None:
        return f"no C++ compiler ({compiler()}): install g++, or name one in the variable CXX"
    return None


def extra_flags() -> list[str]:
    """Of the variable NANOCUPY_EMULATOR_FLAGS: a sanitizer, say, or -O0 for a debugger."""
    return shlex.split(os.environ.get("NANOCUPY_EMULATOR_FLAGS", ""))


@cache
def _first_line(command: str) -> str:
    told = children.run([*shlex.split(command), "--version"], capture_output=True, text=True)
    return told.stdout.partition("\n")[0]


def compiler_version() -> str:
    """Everything that a shared object depends on besides its source and its own flags."""
    headers = b"".join(path.read_bytes() for path in sorted(INCLUDE.glob("*.h")))
    flags = " ".join((*FLAGS, *extra_flags()))
    return f"{_first_line(compiler())} {platform.machine()} {flags} {hash_of(headers)}"


def hash_of(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:16]


def compile(
    source: str,
    name: str,
    expressions: Sequence[str],
    include: Sequence[str],
    flags: Sequence[str] = (),
) -> bytes:
    """The shared object of a CUDA source with the kernels that `expressions` name, in order.

    Args:
        name: of the source, for messages and debuggers: best a path.
        include: folders of its headers.

    Raises:
        CompileError: with the compiler's messages.
    """
    entries = ", ".join(f"emulator::entry(&{expression})" for expression in expressions)
    end = f'#include "{INCLUDE / "entry.h"}"\nEMULATED_KERNELS({entries})'
    text = f'#line 1 "{name}"\n{source}\n{end}\n'
    command = [
        *shlex.split(compiler()), *FLAGS, *flags, *extra_flags(), f"-I{INCLUDE}",
        *(f"-I{os.path.abspath(folder)}" for folder in include),
        "-include", str(INCLUDE / "emulator.h"), "-x", "c++", "-",
    ]  # fmt: skip
    try:
        return _output(command, text, None)
    except (OSError, CompileError) as error:
        if not any(sign in str(error) for sign in NO_ROOM):
            raise
        return _output(command, text, MEMORY)


def _output(command: list[str], text: str, place: str | None) -> bytes:
    """What the compiler makes of the text, in a folder of its own in `place`."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        out = Path(folder) / "kernels.so"
        ran = children.run(
            [*command, "-o", str(out)], input=text, capture_output=True, text=True,
            env={"TMPDIR": folder},
        )  # fmt: skip
        if ran.returncode:
            raise CompileError(ran.stderr)
        return out.read_bytes()


class Library:
    """A compiled source, loaded. One launch at a time runs in it.

    Args:
        path: of the shared object.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._library = ctypes.CDLL(os.fspath(path))
        self._library.emulated_letters.restype = ctypes.c_char_p
        self._lock = threading.Lock()
        self.kernels = int(self._library.emulated_count())

    def signature(self, index: int) -> str:
        """A letter for each parameter: p pointer, i int32, l int64, f float."""
        assert 0 <= index < self.kernels
        return str(self._library.emulated_letters(index).decode())

    def launch(
        self,
        index: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Any],
        shared: int = 0,
        order: int = 0,
        seed: int = 1,
    ) -> None:
        """Run a kernel.

        Args:
            args: ctypes values, as `signature` says.
            shared: bytes of dynamic shared memory.
            order: of threads and of blocks: 0 ascending, 1 descending, 2 random by `seed`.

        Raises:
            KernelError: what no GPU would do: a barrier that some threads miss, say.
        """
        assert len(args) == len(self.signature(index))
        pointers = (ctypes.c_void_p * max(len(args), 1))(*(ctypes.addressof(a) for a in args))
        sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        message = ctypes.c_char_p()
        with self._lock, _stacks() as stacks:
            failed = self._library.emulated_launch(
                index, *sizes, ctypes.c_size_t(shared), pointers, order, ctypes.c_uint64(seed),
                stacks, ctypes.byref(message),
            )  # fmt: skip
        if failed:
            assert message.value
            raise KernelError(message.value.decode())


_free_stacks: list[Any] = []


@contextmanager
def _stacks() -> Iterator[Any]:
    """Where the stacks of a block's threads are: one set for every launch at a time.

    Not one for every library: two mappings a thread would soon be all that a process may have.
    """
    try:
        stacks = _free_stacks.pop()
    except IndexError:
        stacks = (ctypes.c_void_p * MOST_THREADS)()
    try:
        yield stacks
    finally:
        _free_stacks.append(stacks)
