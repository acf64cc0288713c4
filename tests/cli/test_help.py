"""--help teaches, is quick, and lists a flag for every option there is."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import fields

import pytest

from nanocupy.cli.app import COMMANDS
from nanocupy.cli.flags import flag
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams


def test_help_names_every_command(cli) -> None:
    ran = cli("--help")
    assert ran.code == 0 and ran.err == ""
    assert all(name in ran.out for name in COMMANDS)
    assert 'nanocupy generate "Why is the sky blue?"' in ran.out


def test_no_command_is_wrong_use(cli) -> None:
    ran = cli()
    assert ran.code == 2 and ran.out == "" and "usage:" in ran.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(cli, command: str) -> None:
    ran = cli(command, "--help")
    assert ran.code == 0
    assert f"examples:\n  nanocupy {command}" in ran.out


def test_every_option_has_a_flag_and_a_help_text(cli) -> None:
    out = cli("generate", "--help").out
    for field in fields(EngineOptions) + fields(SamplingParams):
        assert f"  {flag(field.name)}" in out, field.name


def test_version(cli) -> None:
    import nanocupy

    assert cli("--version").out == f"nanocupy {nanocupy.__version__}\n"


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['nanocupy', '--help']\n"
        "from nanocupy.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted(sys.modules), file=sys.stderr)"
    )
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        times.append(time.perf_counter() - start)
    for module in ("numpy", "numba", "rich", "psutil", "tokenizers", "jinja2"):
        assert f"'{module}'" not in done.stderr
    assert min(times) < 0.4  # about 0.1 s on a quiet machine
