"""docs/one_step.md lists the calls of a decode step and the files on a prompt's way: hold it so."""

from __future__ import annotations

from pathlib import Path

import pytest

from step_trace import PAGE, Trace, functions, in_a_process, size_rows, sizes, step_rows

MOST_CALLS, MOST_FILES = 60, 15  # of one decode step
MOST_LINES = 3000  # of code, in the files that a prompt passes
MOST_RECORDED = 3300  # of code, in the files that only making the step enters

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs are not in this distribution")


@pytest.fixture(scope="module")
def traced(real_model: Path) -> Trace:
    """The model is fetched already."""
    return in_a_process()


def test_the_page_lists_the_step(traced: Trace) -> None:
    """By file and name; Python 3.10 does not tell the class."""
    listed = [call for call, _ in step_rows(PAGE.read_text(encoding="utf-8"))]
    said, made = (
        [(call.file, call.function.rpartition(".")[2]) for call in calls]
        for calls in (listed, functions(traced.step))
    )
    assert said == made, "run python tests/step_trace.py"


def test_a_step_is_short(traced: Trace) -> None:
    assert len(traced.step) <= MOST_CALLS
    assert len({call.file for call in traced.step}) <= MOST_FILES


@pytest.mark.parametrize("title", ["The prompt's way", "Making the step"])
def test_the_way_is_as_long_as_the_page_says(traced: Trace, title: str) -> None:
    files, most = {
        "The prompt's way": (traced.generate, MOST_LINES),
        "Making the step": (traced.record, MOST_RECORDED),
    }[title]
    text = PAGE.read_text(encoding="utf-8")
    listed, real = size_rows(text, title), sizes(files)
    assert listed.keys() == real.keys(), "run python tests/step_trace.py"
    wrong = {f: (listed[f][0], real[f]) for f in real if abs(listed[f][0] - real[f]) > 10}
    assert not wrong, f"(said, real): {wrong}: run python tests/step_trace.py"
    assert f"| together | {sum(n for n, _ in listed.values()):,} |" in text
    assert sum(real.values()) <= most


def test_everything_is_explained() -> None:
    assert "TODO" not in PAGE.read_text(encoding="utf-8")
