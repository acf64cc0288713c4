"""Every example is short, and does what it says with the real model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))


def example(name: str, tmp_path: Path, stdin: str = "") -> str:
    """stdout of an example, run from elsewhere."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / name)],
        cwd=tmp_path,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_under_40_lines(name: str) -> None:
    assert len((FOLDER / name).read_text().splitlines()) < 40


def test_there_are_five() -> None:
    names = ["chat.py", "custom_kernel.py", "edge.py", "generate.py", "stream.py"]
    assert names == EXAMPLES


def test_custom_kernel(tmp_path: Path) -> None:
    said = example("custom_kernel.py", tmp_path)
    assert "-0.66403675" in said and "0.7615941" in said


def test_generate(real_model: Path, tmp_path: Path) -> None:
    said = example("generate.py", tmp_path)
    assert said.startswith("'The capital of France is' -> ") and "Paris" in said
    assert len(said.splitlines()) == 3


def test_stream(real_model: Path, tmp_path: Path) -> None:
    assert len(example("stream.py", tmp_path).split()) > 10


def test_chat(real_model: Path, tmp_path: Path) -> None:
    said = example("chat.py", tmp_path, stdin="What is the capital of France?\nAnd of Italy?\n")
    assert "Paris" in said
    cached = [line for line in said.splitlines() if "prompt tokens cached)" in line]
    assert len(cached) == 2 and not cached[1].startswith("(0 ")


def test_edge(real_model: Path, tmp_path: Path) -> None:
    assert "4" in example("edge.py", tmp_path)
