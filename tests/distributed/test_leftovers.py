"""Which memory files of Open MPI's are cleared: ours that nobody maps."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nanocupy.distributed import leftovers

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
NAME = f"sm_segment.{platform.node()}.{os.getuid()}.71a10001"
HOLD = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a file in Open MPI's folder, as old as is wanted."""
    monkeypatch.setenv(leftovers.SETTING, str(tmp_path))

    def made(name: str, age: float = 60) -> Path:
        path = tmp_path / name
        path.write_bytes(bytes(mmap.PAGESIZE))
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))
        return path

    return made


def test_what_nobody_maps_is_cleared_and_nothing_else(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    gone = [make(f"{NAME}.{rank}") for rank in range(2)]
    kept = [
        make(f"{NAME}.9", age=0),
        make("sm_segment.elsewhere.0.1.0"),
        make("other"),
    ]
    link = tmp_path / f"{NAME}.7"
    link.symlink_to(kept[2])
    mapped = make(f"{NAME}.8")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(mapped)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mapped\n"
    assert sorted(leftovers.clear()) == gone
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in (*kept, link, mapped))
    holder.communicate("")
    assert leftovers.clear() == [mapped] and not mapped.exists()


def test_without_leftovers_no_process_is_looked_at(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_mapped", None)
    assert leftovers.clear() == []
