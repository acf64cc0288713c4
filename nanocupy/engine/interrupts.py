"""Ctrl-C between steps, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[list[Any]]:
    """Defer Ctrl-C, which reaches the main thread alone, until the block is done.

    The block gets a list that is not empty once Ctrl-C was pressed. A step moves blocks between
    lists and requests between queues: a KeyboardInterrupt between two such lines would lose them.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    pressed: list[Any] = []
    if not callable(handler):
        yield pressed
        return
    signal.signal(signal.SIGINT, lambda *args: pressed.append(args))
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])
