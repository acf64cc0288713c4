"""Memory limits of the control groups a process is in, from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanocupy.device.cpu import host_memory

GIB = 1 << 30


def group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def test_the_second_version_in_a_nested_group(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/user.slice/job\n")
    root = tmp_path / "fs"
    stat = f"anon 5\ninactive_file {GIB // 2}"
    used = {"memory.current": GIB, "memory.stat": stat}
    group(root / "user.slice/job", {"memory.max": "max", **used})
    (root / "user.slice/memory.max").write_text(str(4 * GIB))
    for name, value in used.items():
        (root / "user.slice" / name).write_text(str(value))
    assert list(host_memory._containers(own, root)) == [(4 * GIB, GIB // 2)]


def test_the_first_version_where_only_the_root_is_visible(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n")
    files = {"memory.limit_in_bytes": 2 * GIB, "memory.usage_in_bytes": GIB}
    group(tmp_path / "fs/memory", {**files, "memory.stat": f"total_inactive_file {GIB}"})
    assert list(host_memory._containers(own, tmp_path / "fs")) == [(2 * GIB, 0)]


def test_no_control_groups(tmp_path: Path) -> None:
    assert list(host_memory._containers(tmp_path / "none", tmp_path)) == []


def test_the_least_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host_memory, "_containers", lambda: iter([(3 << 20, 1 << 20), (9 << 50, 0)])
    )
    assert host_memory.available() == 2 << 20 and host_memory.total() == 3 << 20
