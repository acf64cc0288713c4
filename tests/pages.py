"""The pages of the documentation, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", *sorted(
    f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]  # fmt: skip


class Command(NamedTuple):
    """A line of a shell block, without its comment.

    Attributes:
        needs: what it needs that a test does not have; None where a test runs it.
    """

    line: str
    needs: str | None


def text_of(page: str) -> str:
    """The text of a page, without the addresses of other sites."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"\]\((https?:[^)]*)\)", "]", text)


def spans(page: str) -> list[str]:
    """What stands between backticks, and the lines of indented blocks."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    indented = re.findall(r"^    \S.*$", text, re.MULTILINE)
    return [" ".join(s.split()) for s in re.findall(r"`([^`]+)`", text)] + indented


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a kind, "sh" or "python"."""
    return re.findall(rf"```{kind}\n(.*?)```", text_of(page), re.DOTALL)


def shell_commands(page: str) -> list[Command]:
    """The commands of a page's shell blocks.

    A comment with the word "needs" marks a command that no test runs. A line that is only such a
    comment marks the rest of its block.
    """
    found = []
    for block in blocks(page, "sh"):
        whole = None
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            command, _, comment = line.partition("#")
            needs = comment.strip() if "needs" in comment else whole
            if command.strip():
                found.append(Command(command.strip(), needs))
            elif needs:
                whole = needs
    return found


def commands(page: str) -> list[str]:
    """Command lines: of blocks, and between backticks; one for each part of `a && b`."""
    lines = [*(command.line for command in shell_commands(page)), *spans(page)]
    found = [part.strip() for line in lines for part in line.split("&&")]
    return [re.sub(r"\s+#.*$", "", line) for line in found]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def links(page: str) -> list[str]:
    """The targets of a page's links to files of this repository, relative to the page."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)
