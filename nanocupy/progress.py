"""Progress bars on stderr for what takes long while a model is loaded."""

from __future__ import annotations

import sys
from typing import Any

from nanocupy.device.protocols import Tick


class Bars:
    """A set of bars that appear when something starts to take time and vanish when all is done.

    Args:
        wanted: True, False, or None for "where a person looks": stderr is a terminal.
    """

    def __init__(self, wanted: bool | None) -> None:
        self.shown = sys.stderr.isatty() if wanted is None else wanted
        self._progress: Any = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def tick(self, title: str) -> Tick | None:
        """A function to call as `tick(done, total)`; None where nothing is shown."""
        if not self.shown:
            return None
        tasks: dict[int, Any] = {}

        def tick(done: int, total: int) -> None:
            if total not in tasks:
                tasks[total] = self._bars().add_task(title, total=total)
            self._bars().update(tasks[total], completed=done)

        return tick

    def say(self, text: str) -> None:
        """A line that stays, where bars are shown."""
        if self.shown:
            print(text, file=sys.stderr)

    def _bars(self) -> Any:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
        return self._progress
