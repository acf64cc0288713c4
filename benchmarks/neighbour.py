"""A busy process beside the measured ones: it spins on one core and does nothing else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

_SPIN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Run a process of ordinary priority that wants all of the last core meanwhile."""
    core = max(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", _SPIN, str(core)])
    try:
        yield
    finally:
        process.kill()
        process.wait()
