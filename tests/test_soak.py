"""The soak itself, for a moment: it passes here, and it fails where something is wrong."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from checkpoint.tiny import write_gguf
from engine.fake_text import loaded
from nanocupy import LLM, SamplingParams
from nanocupy.checkpoint import convert_gguf

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.fixture
def soak() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("soak", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["soak"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("soak")
    write_gguf(folder / "tiny.gguf", "Q4_1")
    convert_gguf(folder / "tiny.gguf", folder / "model")
    sizes = ["--max-model-len", "96", "--num-kv-blocks", "30", "--threads", "1"]
    return ["--model", str(folder / "model"), "--minutes", "0.015", "--rounds", "2", *sizes]


def test_a_short_soak_passes(
    soak: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = soak.main(arguments)
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, ""), shown
    [line] = [line for line in shown.out.splitlines() if "the same alone" in line]
    same, _, answered = line.split()[:3]
    assert same == answered and int(same) > 10
    for what in ("cancelled", "aborted", "broken off", "forgotten", "ValueError", "cached tokens"):
        assert what in shown.out


def test_one_bit_and_growth_make_it_fail(
    soak: Any,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, megabytes, flipped = soak.said, count(100, 100), []

    def flip_one(output: Any) -> Any:
        made = said(output)
        logprobs = made[0][0][4]
        if logprobs and not flipped:
            [first, *_] = logprobs[0].values()
            first[0] = math.nextafter(first[0], 0)
            flipped.append(output)
        return made

    monkeypatch.setattr(soak, "said", flip_one)
    monkeypatch.setattr(soak, "memory", lambda: next(megabytes))
    assert soak.main([*arguments, "--rounds", "3"]) == 1
    shown = capsys.readouterr()
    assert flipped and shown.err.count("WRONG: another answer") == 1
    assert "event loop: 100 MB more than after round 2, at most 64 may be" in shown.err
    assert "threads: 100 MB more" in shown.err and "3 faults" in shown.out


def test_what_an_engine_holds_is_told(soak: Any) -> None:
    with LLM._from_parts(loaded()) as llm:
        assert soak.held(llm) == ""
        stream = llm.stream("hello", SamplingParams(max_tokens=50, ignore_eos=True))
        next(stream)
        assert soak.held(llm) == "1 blocks, 1 requests, 1 tickets"
        del stream
        assert soak.held(llm) == ""
