"""docs/architecture.md says which files a token passes and how long they are: hold it to that."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import nanocupy

ROOT = Path(__file__).parent.parent
PACKAGE = Path(nanocupy.__file__).parent
ROW = re.compile(r"^\| `nanocupy/(\S+\.py)` \| (\d+) \|", re.MULTILINE)
AIM = 1950
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


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


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="docs are not in this distribution")
def test_the_path_of_a_token_is_as_short_as_it_says() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = {name: int(count) for name, count in ROW.findall(text)}
    assert len(listed) >= 10
    real = {name: code_lines(PACKAGE / name) for name in listed}
    wrong = {n: (listed[n], real[n]) for n in listed if abs(listed[n] - real[n]) > 10}
    assert not wrong, f"(said, real): {wrong}"
    assert f"| together | {sum(listed.values())} |" in text
    assert sum(real.values()) <= AIM
