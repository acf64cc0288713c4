"""What a decode step calls, and which files a prompt passes: measured on the real model.

    python tests/step_trace.py           rewrite the tables of docs/one_step.md
    python tests/step_trace.py --json    print the trace

Each trace is made in a process of its own: what is loaded or known already is not entered again.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import nanocupy
from nanocupy import LLM, SamplingParams
from nanocupy.device.cpu import thread_governor
from nanocupy.engine import runner

PACKAGE = Path(nanocupy.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "one_step.md"
PARAMS = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


class Call(NamedTuple):
    """A call of a Python function of the package."""

    file: str
    function: str  # its name; Class.name where Python tells it (3.11)


class Trace(NamedTuple):
    """
    Attributes:
        step: the calls of one decode step, from the driver's turn to the caller's queue.
        generate: the files that a call of `LLM.generate` enters.
        record: the files that making the step enters, besides those.
    """

    step: list[Call]
    generate: list[str]
    record: list[str]


@contextmanager
def _calls() -> Iterator[list[Call]]:
    """Collect the calls that this thread makes in the block."""
    found: list[Call] = []
    prefix = f"{PACKAGE}/"

    def see(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix) and code.co_name != "<module>":
            name = getattr(code, "co_qualname", code.co_name)
            found.append(Call(code.co_filename.removeprefix(prefix), name))

    sys.setprofile(see)
    try:
        yield found
    finally:
        sys.setprofile(None)


def trace(model: Path) -> Trace:
    """Load the model, generate, and tell what was called."""
    recorded: list[Call] = []
    make = runner.ModelRunner.__init__

    def traced(self: Any, *args: Any) -> None:
        with _calls() as calls:
            make(self, *args)
        recorded.extend(calls)

    runner.ModelRunner.__init__ = traced  # type: ignore[method-assign]
    try:
        llm = LLM(model, max_model_len=256, device="cpu", threads=1, progress=False)
    finally:
        runner.ModelRunner.__init__ = make  # type: ignore[method-assign]
    window, thread_governor.WINDOW = thread_governor.WINDOW, float("inf")  # never ends in the step
    try:
        with llm:
            assert llm.engine.speculator is not None
            # No step takes any time: drafts do not depend on how busy the machine is.
            llm.engine.speculator.clock = float  # type: ignore[attr-defined]
            llm.generate("The sky is", PARAMS)  # the kernels are warm, and so is the tokenizer
            with _calls() as calls:
                llm.generate("The sea is", PARAMS)
    finally:
        thread_governor.WINDOW = window
    files = list(dict.fromkeys(call.file for call in calls))
    others = dict.fromkeys(call.file for call in recorded if call.file not in files)
    return Trace(_plainest(calls), files, list(others))


def functions(calls: list[Call]) -> list[Call]:
    """The calls without comprehensions and lambdas, which not every Python calls."""
    return [call for call in calls if "<" not in call.function]


def _plainest(calls: list[Call]) -> list[Call]:
    """The shortest of the decode steps: some also judge the number of threads, or take a block."""
    starts = [i for i, call in enumerate(calls) if call.function.endswith("_turn")]
    steps = [calls[i:j] for i, j in pairwise(starts[1:])]  # the first is the prompt's
    return min(steps, key=len)


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def sizes(files: list[str]) -> dict[str, int]:
    """{file: lines of code} of those that are no kernels."""
    return {f: code_lines(PACKAGE / f) for f in files if not f.startswith("kernels/")}


# ---- the page


ROW = re.compile(r"^\| (\d+) \| `([\w.]+)` \| `([\w/]+\.py)` \| (.*) \|$", re.MULTILINE)
SIZE = re.compile(r"^\| `([\w/]+\.py)` \| ([\d,]+) \| (.*) \|$", re.MULTILINE)


def _section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def step_rows(text: str) -> list[tuple[Call, str]]:
    """The calls that the page lists, each with its sentence."""
    return [(Call(file, name), said) for _, name, file, said in ROW.findall(text)]


def size_rows(text: str, title: str) -> dict[str, tuple[int, str]]:
    """{file: (lines, what it is)} of a section."""
    found = SIZE.findall(_section(text, title))
    return {file: (int(lines.replace(",", "")), said) for file, lines, said in found}


def rewrite(text: str, found: Trace) -> str:
    """The page with the tables that a trace gives; sentences stay with their functions."""
    said = dict(step_rows(text))
    rows = [
        f"| {n} | `{call.function}` | `{call.file}` | {said.get(call, 'TODO')} |"
        for n, call in enumerate(functions(found.step), 1)
    ]
    text = _replace(text, ROW, rows)
    for title, files in (("The prompt's way", found.generate), ("Making the step", found.record)):
        old, lines = size_rows(text, title), sizes(files)
        whole = [f"| `{f}` | {n:,} | {old.get(f, (0, 'TODO'))[1]} |" for f, n in lines.items()]
        section = _section(text, title)
        total = re.sub(
            r"\| together \| [\d,]+ \|", f"| together | {sum(lines.values()):,} |", section
        )
        text = text.replace(section, _replace(total, SIZE, whole))
    return text


def _replace(text: str, pattern: re.Pattern[str], rows: list[str]) -> str:
    matches = list(pattern.finditer(text))
    return text[: matches[0].start()] + "\n".join(rows) + text[matches[-1].end() :]


def in_a_process() -> Trace:
    """The trace of a new process."""
    command = [sys.executable, __file__, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    step, generate, record = json.loads(done.stdout)
    return Trace([Call(*call) for call in step], generate, record)


def main() -> None:
    from nanocupy.checkpoint import resolve

    found = trace(resolve("smollm2-135m"))
    if sys.argv[1:] == ["--json"]:
        print(json.dumps(found))
    else:
        PAGE.write_text(rewrite(PAGE.read_text(encoding="utf-8"), found))


if __name__ == "__main__":
    main()
