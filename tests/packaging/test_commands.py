"""Every command and every Python sample in the pages runs, or says what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from device.needs import needs_compiler
from pages import PAGES, ROOT, blocks, shell_commands
from slow import PLACES

# Commands that other tests, or CI, run as they stand or with a smaller model.
RUN_BY = {
    'pip install . && nanocupy generate "Why is the sky blue?"': (
        "tests/packaging/test_install.py::test_the_installed_wheel_answers"
    ),
    "pip install '.[test]' && pytest": ".ci/run",
    "ruff check . && ruff format --check .": ".ci/run",
    "mypy": ".ci/run",
    "lint-imports": ".ci/run",
    'pytest -m "not slow"': f"{__name__}::test_the_fast_tests_leave_out_slow_ones",
    "mpirun -n 2 python examples/generate.py": (
        "tests/distributed/test_engine.py::test_the_example_on_the_real_model"
    ),
    'mpirun -n 2 nanocupy generate "Why is the sky blue?"': (
        "tests/distributed/test_engine.py::test_the_command_line"
    ),
    "python examples/custom_kernel.py": "tests/examples/test_examples.py::test_custom_kernel",
}
ALL = {command for page in PAGES for command in shell_commands(page)}
TO_RUN = sorted(c.line for c in ALL if c.needs is None and c.line not in RUN_BY)
SAMPLES = [
    pytest.param(
        sample, id=f"{page}-{number}", marks=needs_compiler if "emulated" in sample else ()
    )
    for page in PAGES
    if page != "README.md"  # test_readme has that one
    for number, sample in enumerate(blocks(page, "python"))
    if not sample.startswith("# needs ")
]


def test_every_command_that_is_run_elsewhere_is_still_in_a_page() -> None:
    assert {*RUN_BY} <= {command.line for command in ALL}


@pytest.mark.parametrize("place", sorted({*RUN_BY.values()} - {".ci/run"}))
def test_the_test_that_runs_it_exists(place: str) -> None:
    file, _, name = place.partition("::")
    path = Path(__file__) if file == __name__ else ROOT / file
    assert f"def {name}(" in path.read_text(encoding="utf-8")


def test_ci_runs_it() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command, place in RUN_BY.items():
        if place == ".ci/run" and command not in lines:
            assert {part.strip() for part in command.split("&&")} <= {*lines}, command


def test_the_fast_tests_leave_out_slow_ones() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "--collect-only", "-q"]
    files = ("tests/cli/test_bench.py", "tests/packaging/test_install.py")
    told = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0 and "test_bench.py::" in told.stdout, told.stdout
    assert "test_install.py::" not in told.stdout
    assert all((ROOT / "tests" / place).exists() for place in PLACES)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that has the programs of this repository."""
    for name in ("examples", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("command", TO_RUN)
def test_the_command_runs(command: str, place: Path, real_model: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES)
def test_the_sample_runs(sample: str, place: Path, real_model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", sample], cwd=place, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_samples_that_need_something_say_what() -> None:
    for page in PAGES:
        for sample in blocks(page, "python"):
            if sample.startswith("# needs"):
                assert re.match(r"# needs \w+", sample), page
