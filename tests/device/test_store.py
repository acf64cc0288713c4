"""Compiled kernels on disk: what somebody else could have put there is not run, and a disk that
takes nothing stops nobody."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device.test_cpu import _CHILD, child
from nanocupy.device import paths, store
from nanocupy.device.cpu import jit
from nanocupy.device.emulated import build
from nanocupy.device.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "_said", set())
    return Store("kernels")


def folder_of(kept: Store) -> Path:
    assert kept.folder is not None
    return kept.folder


def test_what_is_written_is_read(kept: Store) -> None:
    before = os.umask(0)
    try:
        assert kept.write("x.o", b"code") and kept.write("x.o", b"new code")
    finally:
        os.umask(before)
    assert kept.holds("x.o") and kept.read("x.o") == b"new code"
    assert not kept.holds("y.o") and kept.read("y.o") is None
    [file] = folder_of(kept).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def a_pipe(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def a_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def a_hard_link(path: Path, elsewhere: Path) -> None:
    os.link(elsewhere, path)


def a_file_for_all(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"planted")
    path.chmod(0o666)


def a_file_for_a_group(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"planted")
    path.chmod(0o620)


def a_socket(path: Path, elsewhere: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        made.bind(path.name)
        os.chdir(here)


def a_device(path: Path, elsewhere: Path) -> None:
    path.symlink_to("/dev/zero")


def a_huge_file(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 30 << 30)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("plant", [a_pipe, a_link, a_hard_link, a_file_for_all, a_file_for_a_group,
                                   a_socket, a_device, a_huge_file])  # fmt: skip
def test_what_is_no_plain_file_of_ours(
    kept: Store, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    """It is not read, nor waited for, and the next one written takes its place."""
    (elsewhere := tmp_path / "elsewhere").write_bytes(b"planted")
    plant(folder_of(kept) / "x.o", elsewhere)
    assert not kept.holds("x.o") and kept.read("x.o") is None
    assert kept.write("x.o", b"code") and kept.read("x.o") == b"code"
    assert elsewhere.read_bytes() == b"planted"


def test_a_file_of_somebody_else(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write("x.o", b"planted")
    monkeypatch.setattr(store, "is_own", lambda found: False)
    assert not kept.holds("x.o") and kept.read("x.o") is None


@pytest.mark.timeout(20)
def test_a_file_that_changes_before_it_is_opened(
    kept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted").write_bytes(b"planted")
    os.mkfifo(folder_of(kept) / "pipe")
    (folder_of(kept) / "link").symlink_to(tmp_path / "planted")
    monkeypatch.setattr(kept, "holds", lambda name: True)
    assert kept.read("pipe") is None and kept.read("link") is None


def test_a_folder_that_is_put_in_the_place_of_ours(kept: Store) -> None:
    kept.write("x.o", b"code")
    folder = folder_of(kept)
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    (folder / "x.o").write_bytes(b"planted")
    assert kept.read("x.o") == b"code"


# ---- where nothing can be written

NO_ROOM = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


class FullFile:
    """A file on a disk that is full: a part of it is written."""

    def __init__(self, number: int, handle: int, *_: object) -> None:
        self._number, self._handle = number, handle

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def write(self, data: bytes) -> None:
        os.write(self._handle, data[:2])
        failing(self._number)()


@pytest.mark.parametrize("number", NO_ROOM)
@pytest.mark.parametrize("step", ["open", "fdopen", "replace"])
def test_a_disk_that_takes_nothing(
    kept: Store, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    """Said once; no half of a file stays, and what was there does."""
    kept.write("x.o", b"old")
    with monkeypatch.context() as patch:
        full = partial(FullFile, number) if step == "fdopen" else failing(number)
        patch.setattr(store.os, step, full)
        with pytest.warns(RuntimeWarning, match=r"not kept.*kernels: .*Set NANOCUPY_CACHE") as said:
            assert not kept.write("x.o", b"new") and not kept.write("y.o", b"new")
    assert len(said) == 1
    assert [p.name for p in folder_of(kept).iterdir()] == ["x.o"] and kept.read("x.o") == b"old"


def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_said", set())
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths.os, "mkdir", failing(errno.ENOSPC))
    with pytest.warns(RuntimeWarning, match="not kept.*No space left on device"):
        none = Store("kernels")
    assert none.folder is None and not none.holds("x.o") and none.read("x.o") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not none.write("x.o", b"code")


def test_a_file_on_no_disk() -> None:
    """Each has a path of its own: loaders know libraries by them."""
    both = [store.in_memory("x", text) for text in (b"one", b"two")]
    assert [path.read_bytes() for path in both] == [b"one", b"two"]


# ---- the CPU's kernels


def plant(folder: Path) -> Path:
    """Code that multiplies in the place of `add`, as a cache would have it; where it is."""
    from nanocupy.kernels.elementwise import cpu_body as elementwise

    add = "nanocupy.kernels.elementwise.cpu_body:add"
    code = jit.compile_function(elementwise.mul, jit.symbol(add))
    [place] = folder.rglob(f"{jit.symbol(add)}.o")
    place.write_bytes(jit._checksum(add, code) + code)
    return place


def test_planted_code_is_not_run(tmp_path: Path) -> None:
    child(tmp_path)
    place = plant(tmp_path)
    with pytest.raises(AssertionError, match="assert 1 == 0"):  # else this test could not fail
        child(tmp_path)
    place.parent.chmod(0o777)
    files = child(tmp_path)
    assert place.parent.stat().st_mode & 0o777 == 0o777
    news = {path.parent for path in files} - {place.parent}
    assert news == {place.parent.with_name(f"{place.parent.name}.1")}
    assert child(tmp_path) == files


def test_the_code_of_another_kernel_is_damage(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file under another's name."""
    mul, add = (f"nanocupy.kernels.elementwise.cpu_body:{name}" for name in ("mul", "add"))
    monkeypatch.setattr(jit, "store", lambda: kept)
    kept.write(jit._file(mul), jit._checksum(mul, b"code") + b"code")
    assert jit.cached(mul) == b"code"
    os.rename(folder_of(kept) / jit._file(mul), folder_of(kept) / jit._file(add))
    assert jit.cached(mul) is None and jit.cached(add) is None


REFUSES = "/proc/nanocupy"  # a file system that takes no folders


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_kernels_are_made_in_memory_where_nothing_can_be_kept(tmp_path: Path) -> None:
    """In processes of their own all the same, and said once."""
    env = {**os.environ, "NANOCUPY_CACHE": REFUSES}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("not kept") == 1 and REFUSES in done.stderr


# ---- the GPU's, by the emulator

_EMULATED = (
    _CHILD.replace("cpu.device import CpuDevice", "emulated import EmulatedDevice")
    .replace("CpuDevice(threads=2)", "EmulatedDevice()")
    .replace("elementwise import cpu", "elementwise import cuda")
    .replace("cpu.launch_binary", "cuda.launch_binary")
    .replace("(out == 2 * x)", "(device.read(out) == 2 * device.read(x))")
)


def emulated(cache: str | Path) -> str:
    """Run a kernel in a process of its own; what it says on stderr."""
    env = {**os.environ, "NANOCUPY_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", _EMULATED], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(bool(build.unavailable()), reason=str(build.unavailable()))
def test_cuda_binaries_are_held_to_the_same(tmp_path: Path) -> None:
    assert emulated(tmp_path) == ""
    [binary] = tmp_path.rglob("*.cubin")
    first = binary.stat().st_mtime_ns
    assert emulated(tmp_path) == "" and binary.stat().st_mtime_ns == first
    binary.write_bytes(b"planted")
    binary.with_suffix(".json").write_text("{}")
    (tmp_path / "cuda").chmod(0o777)
    assert "others can write to" in emulated(tmp_path)
    assert binary.read_bytes() == b"planted" and [*(tmp_path / "cuda.1").glob("*.cubin")]
    if Path("/proc/self").exists():
        assert emulated(REFUSES).count("not kept") == 1


@pytest.mark.skipif(not Path(build.MEMORY).is_dir(), reason="no file system in memory")
def test_a_compiler_without_room_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes in memory; another error is the source's."""
    places: list[str | None] = []

    def output(command: list[str], text: str, place: str | None) -> bytes:
        places.append(place)
        if place is None:
            raise build.CompileError(f"cannot close kernels.so: {os.strerror(errno.ENOSPC)}")
        return b"code"

    monkeypatch.setattr(build, "_output", output)
    assert build.compile("", "x.cu", [], []) == b"code" and places == [None, build.MEMORY]
    monkeypatch.setattr(build, "_output", failing(errno.ENOENT))
    with pytest.raises(OSError, match="No such file"):
        build.compile("", "x.cu", [], [])
