"""The loops that the threads of a pool run. Source of kernels; the Python side is `thread_pool.py`.

A captured graph is an int64 table of (kernel address, argument address) rows. Every thread walks
the same table; a kernel splits its own work by (thread, threads); a barrier separates rows.

The control block is an int64 array, one cache line (8 words) a field:
"""

from __future__ import annotations

from nanocupy.device.cpu.raw import atomic_load, atomic_store, call_kernel, pause, yield_thread
from nanocupy.device.cpu.simd import fn

START = 0  # runs begun << 8 | threads that take part; as it changes, they join the run
STOP = 64  # not zero: workers leave for good
TABLE = 128  # address of the table of the run
ROWS = 192  # its number of rows
SPIN = 256  # how often a barrier spins before it yields
STATUS = 320  # 0, or (row + 1) << 8 | code of the first kernel that failed; checked by every spin
IDLE = 384  # how often an idle worker looks for a run before it parks
FLAGS = 448  # a line per thread: the barriers it has passed


@fn
def barrier(ctl, thread, threads, epoch):
    """Publish this thread's epoch, then wait until every thread has published it."""
    atomic_store(ctl + FLAGS + 64 * thread, epoch)
    spin = atomic_load(ctl + SPIN)
    for peer in range(threads):
        flag = ctl + FLAGS + 64 * peer
        tries = 0
        while atomic_load(flag) < epoch:
            tries += 1
            if tries < spin:
                pause()
            else:
                yield_thread()


@fn
def walk(ctl, thread, threads):
    """Run the table. A failed kernel stops every thread at the next row."""
    table = atomic_load(ctl + TABLE)
    epoch = atomic_load(ctl + FLAGS + 64 * thread)
    for row in range(atomic_load(ctl + ROWS)):
        if atomic_load(ctl + STATUS) == 0:
            entry = table + 16 * row
            code = call_kernel(atomic_load(entry), atomic_load(entry + 8), thread, threads)
            if code != 0:
                atomic_store(ctl + STATUS, (row + 1) << 8 | code)
        epoch += 1
        barrier(ctl, thread, threads, epoch)
    return atomic_load(ctl + STATUS)


def worker(a, thread, threads):
    """Serve runs until STOP; return when idle for long or left out, for Python to park the thread.

    a: the control block, the last START seen. Returns the current one.
    """
    ctl, seen = a[0], a[1]
    while True:
        tries = 0
        while atomic_load(ctl + START) == seen:
            tries += 1
            if tries > atomic_load(ctl + IDLE):
                return seen
            pause()
            if tries % 64 == 0:
                yield_thread()
        seen = atomic_load(ctl + START)
        if atomic_load(ctl + STOP) != 0 or thread >= seen & 255:
            return seen
        walk(ctl, thread, seen & 255)


def announce(a, thread, threads):
    """Publish a run, and everything written for it before. a: the control block, the new START."""
    atomic_store(a[0] + START, a[1])
    return 0


def run(a, thread, threads):
    """Take part in the current run as the calling thread. a: the control block."""
    return walk(a[0], thread, threads)
