"""The command line: `nanocupy generate | chat | bench | info | convert`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (wrong use), 130 (Ctrl-C)."""
    from nanocupy.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))
