"""A progress bar on stderr: for terminals, or where NANOCUPY_PROGRESS=1 asks for one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


def shown(wanted: bool) -> bool:
    """Whether progress that the caller wants is to be shown here."""
    return wanted and (sys.stderr.isatty() or os.environ.get("NANOCUPY_PROGRESS") == "1")


@contextmanager
def bar(title: str, total: int | None, wanted: bool) -> Iterator[Advance]:
    """Show the progress of `total` bytes while the block runs. Nothing ever goes to stdout."""
    if not shown(wanted):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda nbytes: progress.advance(task, nbytes)


def note(text: str, wanted: bool) -> None:
    """A line on stderr, under the same conditions as `bar`."""
    if shown(wanted):
        print(text, file=sys.stderr)
