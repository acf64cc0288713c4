"""Wrong use ends with one line that names the flag to change, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanocupy.cli.flags import in_flags


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["generate"], "PROMPT"),
        (["generate", ""], "PROMPT"),
        (["generate", "--temperature", "-1", "Hi"], "--temperature must be in [0, 100], got -1"),
        (["generate", "--top-k", "many", "Hi"], "--top-k must be an integer, got 'many'"),
        (["generate", "--temprature", "1", "Hi"], "did you mean --temperature?"),
        (["generate", "--top_k", "1", "Hi"], "did you mean --top-k?"),
        (["generate", "--logit-bias", "x", "Hi"], "--logit-bias: expected TOKEN_ID=BIAS"),
        (["generate", "--max-num-batched-tokens", "1", "Hi"], "--max-num-seqs"),
        (["generate", "--block-size", "17", "Hi"], "--block-size must be one of 16, 32, 64"),
        (["generate", "--raw", "--system", "x", "Hi"], "--system"),
        (["generate", "--min-tokens", "9", "--max-tokens", "3", "Hi"], "--max-tokens"),
        (["bench", "--scale", "2"], "--scale must be between 0 and 1, got 2.0"),
        (["bench", "--repeats", "0"], "--repeats must be 1 or more, got 0"),
        (["convert", "nothing.gguf", "out"], "nothing.gguf"),
        (["convert", "", "out"], "a model must be a name, a folder, a file or a hub id, got ''"),
        (["info", ""], "a model must be a name, a folder, a file or a hub id, got ''"),
        (["convert", "/nowhere/at/all", "out"], "/nowhere/at/all"),
        (["convert", "model", "out", "--bits", "3"], "argument --bits: invalid choice: 3"),
        (["convert", "model", "out", "--group-size", "48"], "argument --group-size: invalid"),
        (["generate", "--quantize", "5", "Hi"], "--quantize must be one of 4, 8, got 5"),
        (["info", "/nowhere/at/all"], "/nowhere/at/all"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_use(cli, fake, argv: list[str], said: str) -> None:
    ran = cli(*argv)
    assert ran.code == 2 and said in ran.err, ran
    assert "Traceback" not in ran.err and ran.out == ""
    assert fake.seen == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("[model_file] 'x.y' cannot be imported", "--model-file: 'x.y' cannot be imported"),
        ("[cpu] threads=99: expected 1 to 64", "--threads=99: expected 1 to 64"),
        ("install one, or use device='cpu'", "install one, or use --device='cpu'"),
        ("[engine] more threads, n=3 of max_tokens", "more threads, n=3 of --max-tokens"),
    ],
)
def test_options_are_flags_in_errors(message: str, said: str) -> None:
    assert in_flags(message) == said


def test_sizes_with_a_unit(cli, fake) -> None:
    assert cli("generate", "--max-model-len", "4k", "--kv-memory", "1GiB", "Hi").code == 0
    assert (
        "--max-model-len must be an integer" in cli("generate", "--max-model-len", "4x", "Hi").err
    )


def test_a_traceback_for_those_who_ask(cli, fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCUPY_TRACEBACK", "1")
    with pytest.raises(ValueError):
        cli("generate", "--temperature", "-1", "Hi")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "nanocupy", "info"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert done.returncode == 141 and done.stderr == ""
