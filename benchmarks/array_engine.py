"""The array engine: what a chain of elementwise operations, a small operation and a kernel cost.

    python benchmarks/array_engine.py

Each figure stands beside its limit or its peer. The sides take turns. A figure is the median of
`ROUNDS` rounds, and a ratio is the median over neighbouring pairs. MLX takes part if it is
installed (`mlx[cpu]`).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

import nanocupy.core as mx
from nanocupy.core import fast
from nanocupy.core.recorder.program import Program
from nanocupy.device.cpu.device import CpuDevice

ROUNDS = 9
ELEMENTS = 10_000_000
TINY = 64  # elements of a tiny kernel


def in_turns(sides: dict[str, Callable[[], Any]], repeat: int = 1) -> dict[str, list[float]]:
    """Return the seconds of each side in every round. One warm-up round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            if turn:
                times[name].append((time.perf_counter() - start) / repeat)
    return times


def show(title: str, times: dict[str, list[float]], base: str, unit: float, name: str) -> None:
    print(title)
    for side, seconds in times.items():
        pairs = zip(seconds, times[base], strict=True)
        ratio = median(a / b for a, b in pairs)
        print(f"  {side:32} {median(seconds) / unit:10.2f} {name}   {ratio:6.2f} x {base}")


def plain(m: Any) -> Callable[[Any], Any]:
    """Compute ten elementwise operations that processors have instructions for."""

    def function(x: Any) -> Any:
        y = m.minimum(x * 0.5 + 1.0, 2.0) - x
        return m.maximum(m.abs(y) * x + m.square(y), -3.0) * 0.25

    return function


def curved(m: Any) -> Callable[[Any], Any]:
    """Compute ten operations, an exponential and a hyperbolic tangent among them."""

    def function(x: Any) -> Any:
        y = m.exp(m.minimum(x * 0.5 + 1.0, 2.0)) - x
        return m.tanh(y) * m.abs(x) + m.square(y)

    return function


def fused() -> None:
    """Compare ten operations with one pass: a negation of the same numbers by the same threads."""
    host = np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)
    x, out = mx.array(host), np.empty_like(host)
    once = mx.compile(lambda x: -x)
    sides: dict[str, Callable[[], Any]] = {
        "one pass": lambda: mx.eval(once(x)),
        "numpy.copyto, one thread": lambda: np.copyto(out, host),
    }
    mlx = peer()
    for name, make in (("plain", plain), ("exp, tanh", curved)):
        chain, one_by_one = mx.compile(make(mx)), make(mx)
        sides[f"ten {name}"] = lambda chain=chain: mx.eval(chain(x))
        sides[f"ten {name}, not compiled"] = lambda f=one_by_one: mx.eval(f(x))
        if mlx:
            other, theirs = mlx.array(host), mlx.compile(make(mlx))
            sides[f"ten {name}, MLX"] = lambda other=other, f=theirs: mlx.eval(f(other))
    title = f"ten elementwise operations on {ELEMENTS:,} float32"
    show(title, in_turns(sides), "one pass", 1e-3, "ms")


def peer() -> Any:
    """Return mlx.core on the CPU, or None where it is not installed."""
    if importlib.util.find_spec("mlx") is None:
        return None
    import mlx.core as mlx

    mlx.set_default_device(mlx.cpu)
    return mlx


def small() -> None:
    """Time recording and evaluating one addition of 16 numbers."""
    a, b = mx.array(np.ones((4, 4), np.float32)), mx.array(np.ones((4, 4), np.float32))
    f = mx.compile(lambda a, b: a + b)
    sides = {"nanocupy": lambda: mx.eval(a + b), "nanocupy, compiled": lambda: mx.eval(f(a, b))}
    base = "nanocupy"
    if mlx := peer():
        x, y = mlx.ones((4, 4)), mlx.ones((4, 4))
        g = mlx.compile(lambda a, b: a + b)
        mlx.eval(x, y)
        sides["MLX"] = lambda: mlx.eval(x + y)
        sides["MLX, compiled"] = lambda: mlx.eval(g(x, y))
        base = "MLX"
    show("one small addition, recorded and evaluated", in_turns(sides, 2000), base, 1e-6, "us")


def replay() -> None:
    """Time a captured program of many tiny kernels, per kernel."""
    for threads in sorted({1, CpuDevice().threads}):
        device = CpuDevice(threads)
        device.steady = True  # all of them, whoever else wants a core
        graphs = {}
        for count in (100, 1100):
            y = fast.static(device.empty((1, TINY), np.float32))
            x = fast.static(device.empty((1, TINY), np.float32))
            for _ in range(count):
                y = y + x
            graphs[count] = Program([y], device, rules=()).capture()
        times = in_turns({str(n): g.run for n, g in graphs.items()}, 20)
        each = [(b - a) / 1000 for a, b in zip(times["100"], times["1100"], strict=True)]
        print(f"replay of tiny kernels, {threads} threads: {median(each) * 1e6:.3f} us a kernel")


if __name__ == "__main__":
    fused()
    small()
    replay()
