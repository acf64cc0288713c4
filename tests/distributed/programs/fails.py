"""A rank fails. argv: model, rank, what (kill, stop, raise, pause), when (load, idle, ...).

Rank 0 prints what its caller caught.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time

from nanocupy import LLM, SamplingParams
from nanocupy.distributed import world
from nanocupy.distributed.launcher import launched_rank
from nanocupy.distributed.mpi import MpiGroup
from nanocupy.engine.runner import ModelRunner

model, rank, what, when = sys.argv[1:]


def tell(what: str) -> None:
    """When it happened, for the test."""
    print(f"\n{what} at {time.time()}", file=sys.stderr, flush=True)


def fail() -> None:
    tell(what)
    if what == "raise":
        raise MemoryError("sown fault")
    if what == "pause":
        subprocess.Popen(["sh", "-c", f"sleep 3; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGSTOP)


def sow(runner: type[ModelRunner]) -> None:
    """Fail at the wanted moment."""
    init, run, close = runner.__init__, runner.run, runner.close
    capture, window = runner.make_graphs, MpiGroup.window
    runs = iter(range(10**9))

    def new_init(self: ModelRunner, *args: object) -> None:
        if when == "load":
            fail()
        init(self, *args)  # type: ignore[arg-type]
        if when == "exit":
            atexit.register(fail)  # comes before what is registered already
        if when == "idle":
            threading.Timer(0.3, fail).start()

    def new_run(self: ModelRunner, *args: int) -> None:
        now = next(runs)
        if now == {"prefill": 0, "decode": 10}.get(when):
            fail()
        if when == "inside" and now == 0:  # the kernels of the prefill
            threading.Timer(0.01, fail).start()
        run(self, *args)

    def new_close(self: ModelRunner) -> None:
        if when == "shutdown":
            fail()
        close(self)

    def new_capture(self: ModelRunner) -> None:
        if when == "capture":
            fail()
        capture(self)

    def new_window(self: MpiGroup, nbytes: int) -> object:
        if when == "window":  # the others are inside MPI, which waits for all
            fail()
        return window(self, nbytes)

    runner.__init__, runner.run, runner.close = new_init, new_run, new_close  # type: ignore
    runner.make_graphs, MpiGroup.window = new_capture, new_window  # type: ignore
    if when == "joined":
        world()
        fail()


if rank in ("all", str(launched_rank())):
    sow(ModelRunner)
try:
    with LLM(model, tensor_parallel="auto", stall_timeout=1.5, max_num_batched_tokens=256) as llm:
        if when in ("idle", "serve"):
            time.sleep(0.6 if when == "idle" else 60)
        llm.generate([[5] * 200] * 8, SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
except Exception as error:
    print(f"caught {type(error).__name__}: {error}", flush=True)
    tell("found")
    raise
