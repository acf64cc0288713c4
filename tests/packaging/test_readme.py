"""The README's quick start is two commands, its test command is what CI runs, its sample works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = [
    'pip install . && nanocupy generate "Why is the sky blue?"',
    "pip install '.[test]' && pytest",
]


def blocks(kind: str, text: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def test_the_quick_start_is_exactly_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quick = readme.partition("## Quick start")[2].partition("\n## ")[0]
    assert [block.strip() for block in blocks("sh", quick)] == COMMANDS


def test_ci_runs_the_test_command_as_it_stands() -> None:
    assert COMMANDS[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_python_sample_runs(real_model: Path, tmp_path: Path) -> None:
    [sample] = blocks("python", (ROOT / "README.md").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", sample], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 10
