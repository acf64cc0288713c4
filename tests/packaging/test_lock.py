"""What CI installs: of the package index, only files that a lock names by their hash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
requirements = pytest.importorskip("packaging.requirements")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")


def entries(name: str) -> list[tuple[Any, list[str]]]:
    """(a requirement, its hashes) of a lock."""
    text = (ROOT / ".ci" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    parts = [line.split("--hash=") for line in lines]
    return [(requirements.Requirement(p[0]), [h.strip() for h in p[1:]]) for p in parts]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", ["lock.txt", "lock-cupy12.txt"])
def test_every_line_is_a_version_with_hashes_and_no_place(name: str) -> None:
    assert "://" not in (ROOT / ".ci" / name).read_text()
    for wanted, hashes in entries(name):
        assert re.fullmatch(r"==[\w.+]+", str(wanted.specifier)) and not wanted.url
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in hashes)


def declared() -> list[Any]:
    """Every dependency that pyproject.toml has, but for those of GPUs."""
    text = (ROOT / "pyproject.toml").read_text()
    blocks = re.findall(r"^(?:requires|dependencies|cuda-check|mpi|test|dev) = \[(.*?)\]$", text,
                        re.MULTILINE | re.DOTALL)  # fmt: skip
    assert len(blocks) == 6
    found = [a or b for block in blocks for a, b in re.findall(r'"([^"]+)"|\'([^\']+)\'', block)]
    return [requirements.Requirement(name) for name in found if not name.startswith("nanocupy")]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_lock_has_all_that_the_project_wants(python: str, machine: str) -> None:
    """One version of each, which is in the range that pyproject.toml gives."""
    place = {"python_version": python, "platform_machine": machine, "sys_platform": "linux"}
    here = [w for w, _ in entries("lock.txt") if not w.marker or w.marker.evaluate(place)]
    locked = {normal(w.name): next(iter(w.specifier)).version for w in here}
    assert len(locked) == len(here)
    for wanted in declared():
        assert wanted.specifier.contains(locked[normal(wanted.name)]), wanted


def test_ci_installs_what_is_locked() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    for line in lines:
        if line.startswith("pip install") and line != "pip install '.[test]' && pytest":
            assert "--require-hashes -r .ci/lock.txt" in line or "--no-deps ." in line
        if line.startswith("pip download"):
            assert "--require-hashes" in line
