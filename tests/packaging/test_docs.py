"""What the pages name exists: files, links, functions, commands and their flags, counts."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import json
import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest

from nanocupy.checkpoint.architectures import ARCHITECTURES
from nanocupy.cli import app
from pages import PAGES, ROOT, anchors, commands, links, spans, text_of

PLACES = ["", "nanocupy", "docs", "tests", "benchmarks", "examples", "nanocupy/device/emulated",
          "nanocupy/device/emulated/include", "nanocupy/models", "nanocupy/checkpoint",
          "nanocupy/kernels/rms_norm", "nanocupy/text/sandbox", "tests/models",
          "tests/golden"]  # fmt: skip
CODE = (".py", ".cu", ".cuh", ".h", ".toml", ".json")
ENDINGS = {ending[1:] for ending in CODE} | {"md", "gguf", "svg"}  # `a.md` is no name in `a`
# What a page names and is not ours.
ELSEWHERE = {
    "model.gguf", "file.gguf", "step.py", "program.py", "config.json", "tokenizer.json",
    "__nv_bfloat16", "no_think",
}  # fmt: skip


# ---- files


def file_names(page: str) -> set[str]:
    """The words of a page that can only be files of this repository, or folders."""
    words = {w.lstrip("('\"").rstrip(".,:;)'\"") for span in spans(page) for w in span.split()}
    kinds = r"py|cu|cuh|h|md|svg|json"
    whole = re.compile(rf"[\w./*-]+\.({kinds})|(nanocupy|tests|docs|benchmarks|examples)/[\w/-]*")
    return {w.replace("NAME", "*") for w in words if whole.fullmatch(w)}  # NAME: any


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    missing = {
        name
        for name in file_names(page) - ELSEWHERE
        if not any(next((ROOT / place).glob(name.rstrip("/")), None) for place in PLACES)
    }
    assert not missing


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    """To a file or folder, and to a heading that is there."""
    dead = []
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        missing = not target.exists()
        if missing or (anchor and anchor not in anchors(str(target.resolve().relative_to(ROOT)))):
            dead.append(link)
    assert not dead


def test_the_map_lists_every_page() -> None:
    listed = {link.partition("#")[0] for link in links("docs/README.md")}
    pages = {Path(page).name for page in PAGES if page.startswith("docs/")}
    assert pages - {"README.md"} <= listed


def test_the_front_page_and_the_picture_are_short() -> None:
    for page, most in (("README.md", 150), ("docs/architecture.md", 250), ("CONTRIBUTING.md", 100)):
        assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most, page


# ---- functions


@functools.cache
def definitions() -> dict[str, set[str]]:
    """By the name of a module, a package or a class of ours: what is defined in it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "nanocupy").rglob("*.py"):
        home = path.parent.name if path.name == "__init__.py" else path.stem
        for node in ast.parse(path.read_text()).body:
            found[home] |= names_of(node)
            if isinstance(node, ast.ClassDef):
                inside = {n for inner in ast.walk(node) for n in names_of(inner)}
                found[home] |= inside  # `engine.step`: of the Engine in engine.py
                found[node.name] |= inside
                found[node.name.lower()] |= inside  # `group.together`: of a Group
        found[path.parent.name].add(path.stem)
        found[path.parent.parent.name].add(path.parent.name)
    return found


def names_of(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.ImportFrom | ast.Import):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for target in targets for part in ast.walk(target)]
        attributes = {p.attr for p in parts if isinstance(p, ast.Attribute)}
        return attributes | {p.id for p in parts if isinstance(p, ast.Name)}
    return set()


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_in_a_module_is_there(page: str) -> None:
    """`scheduler.schedule`, `rules.round_where_made`: with a dot, and the first part is ours."""
    ours, wrong = definitions(), []
    for span in spans(page):
        span = re.sub(r'"[^"]*"', "", span)  # not names of models
        for name in re.findall(r"(?<![\w/.])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?![\w/])", span):
            first, *_, home, last = [name.partition(".")[0], *name.split(".")]
            known = name in ELSEWHERE or first in ("mlx", "sys") or first not in ours
            if not known and home in ours and last not in ours[home] and last not in ENDINGS:
                wrong.append(name)
    assert not wrong


@functools.cache
def words() -> set[str]:
    """Every word that the code has."""
    folders = ("nanocupy", "tests", "cuda_kernels", "benchmarks", "examples")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in CODE]
    files = [p for p in files if p != Path(__file__)]
    texts = [p.read_text(encoding="utf-8") for p in (*files, ROOT / "pyproject.toml")]
    return {p.stem for p in files} | {w for t in texts for w in re.findall(r"[A-Za-z_]\w*", t)}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/mlx_lm.md"])
def test_every_name_occurs_in_the_code(page: str) -> None:
    """Of functions, classes, fields, flags, variables: a renamed one does not."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    named = set(re.findall(r"`([^`]+)`", text))
    asked = {
        word
        for span in named
        for word in re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"]*"', "", span))
        if re.search(r"._.|[a-z][A-Z]|^[A-Z][a-z]{2}", word) or f"{word}(" in span
    }
    known = words()
    assert not {w for w in asked - ELSEWHERE if w not in known}


# ---- commands


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(page: str) -> None:
    """Parsed as it stands; a command that is only named, without arguments, need not be whole."""
    for line in commands(page):
        begin = re.match(r"(?:mpirun -n \d+ )?nanocupy (\S+)(.*)", line)
        if not begin or begin[1].startswith("-") or begin[1] not in app.COMMANDS:
            assert not begin or begin[1] == "--version", line
            continue
        if not begin[2].strip() and begin[1] != "info":
            continue
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            try:
                app._parse([begin[1], *shlex.split(begin[2])])
            except SystemExit as end:
                assert not end.code, f"{line}: {told.getvalue()}"


@pytest.mark.parametrize("page", PAGES)
def test_every_script_knows_its_flags(page: str) -> None:
    for line in commands(page):
        if script := re.match(r"(?:mpirun -n \d+ )?python (\S+\.py)(.*)", line):
            if script[1] in ELSEWHERE:
                continue
            text = (ROOT / script[1]).read_text()
            for flag in re.findall(r"--[a-z][\w-]*", script[2]):
                assert f'"{flag}"' in text or flag.removeprefix("--") in text, line


# ---- counts


@pytest.mark.parametrize("page", ["README.md", "docs/gpu.md"])
def test_the_pages_count_the_mutants(page: str) -> None:
    table = json.loads((ROOT / "tests/kernels/cuda/mutants.json").read_text())
    [said] = re.findall(r"(\d+)\s+faults\s+sown\s+into\s+the\s+kernels", text_of(page))
    assert int(said) == len(table)


@pytest.mark.parametrize("page", ["README.md", "docs/comparison.md", "docs/custom_models.md"])
def test_the_pages_count_the_model_files_of_mlx_lm(page: str) -> None:
    [works] = re.findall(r"\*\*(\d+) of \d+ work", text_of("docs/mlx_lm.md"))
    said = re.findall(
        r"(\d+)\s+(?:of\s+mlx-lm's|files\s+of\s+mlx-lm|of\s+them\s+give)", text_of(page)
    )
    assert said and {*said} == {works}


def test_the_table_of_models_is_whole() -> None:
    [table] = re.findall(r"(?:^\|.*\n)+", text_of("docs/models.md"), re.MULTILINE)
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == {*ARCHITECTURES}
