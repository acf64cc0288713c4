"""Progress on stderr: bars that vanish when all is done, and lines that stay. Never on stdout.

`wanted` is True, False, or None: on a terminal, or where NANOCUPY_PROGRESS=1 asks for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Advance = Callable[[int], None]
"""Called with what has been done since the last call."""


def shown(wanted: bool | None) -> bool:
    """Whether progress is shown here."""
    if wanted is None:
        return sys.stderr.isatty() or os.environ.get("NANOCUPY_PROGRESS") == "1"
    return wanted


def note(text: str, wanted: bool | None) -> None:
    """Print a line on stderr where progress is shown."""
    if shown(wanted):
        print(text, file=sys.stderr)


@contextmanager
def bar(
    title: str, total: int | None, wanted: bool | None, *, in_bytes: bool = True
) -> Iterator[Advance]:
    """Show the progress of `total` bytes, or of `total` items, while the block runs."""
    if not shown(wanted):
        yield lambda _: None
        return
    with _display(in_bytes) as display:
        task = display.add_task(title, total=total)
        yield lambda count: display.advance(task, count)


class ProgressBars:
    """Several bars. Each appears when its work starts to take time; all vanish together."""

    def __init__(self, wanted: bool | None) -> None:
        self.shown = shown(wanted)
        self._display: Any = None

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.stop()

    def tick(self, title: str) -> Callable[[int, int], None] | None:
        """A function to call as `tick(done, total)`; None where nothing is shown."""
        if not self.shown:
            return None
        tasks: dict[int, Any] = {}

        def tick(done: int, total: int) -> None:
            if self._display is None:
                self._display = _display(in_bytes=False)
                self._display.start()
            if total not in tasks:
                tasks[total] = self._display.add_task(title, total=total)
            self._display.update(tasks[total], completed=done)

        return tick


def _display(in_bytes: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*(columns if in_bytes else ()), console=Console(stderr=True), transient=True)
