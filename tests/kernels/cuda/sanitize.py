"""Runs the CUDA kernels' tests under sanitizers, each kernel compiled for them.

    python tests/kernels/cuda/sanitize.py asan          addresses, and undefined behaviour
    python tests/kernels/cuda/sanitize.py tsan          data races among a block's threads
    python tests/kernels/cuda/sanitize.py tsan -k sample

TSan sees every CUDA thread of a block as a thread: a barrier that is missing shows as a race, with
both lines, even where the order of threads hides it. It cannot see races between blocks, which run
one after another here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hypothesis import settings

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TOOLS = {
    "asan": ("-fsanitize=address,undefined -fno-sanitize-recover=undefined", "libasan.so"),
    "tsan": ("-fsanitize=thread", "libtsan.so"),
}


def examples(count: int) -> settings:
    """How many examples hypothesis tries: `count`, or one where each takes a sanitizer long."""
    return settings(max_examples=1 if "NANOCUPY_SANITIZED" in os.environ else count)


def environment(tool: str) -> dict[str, str]:
    """Variables under which tests run with "asan", "tsan", or "plain": nothing."""
    if tool == "plain":
        return {}
    flags, library = TOOLS[tool]
    compiler = os.environ.get("CXX") or "g++"
    found = subprocess.run(
        [compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True
    )
    return {
        "NANOCUPY_EMULATOR_FLAGS": flags,
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=66",
        "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=66",
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:report_signal_unsafe=0",
        "OPENBLAS_NUM_THREADS": "1",  # its threads are none of ours
        "PYTHONMALLOC": "malloc",  # so that the end of every array is guarded
        "NANOCUPY_SANITIZED": tool,
    }


def main(tool: str, args: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    where = ["-m", "not unsanitized", str(HERE)]
    env = {**os.environ, **environment(tool)}
    return subprocess.run([*command, *where, *args], cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TOOLS:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
