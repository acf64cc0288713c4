"""Draws what `cpu_vs_peers.py --sweep --json` printed: tokens/s against batch and against context.

    python benchmarks/cpu_vs_peers.py --models MODELS --sweep --json ... > sweep.json
    python benchmarks/plot.py sweep.json docs/figures

Needs matplotlib, which may lie in an environment of its own. Writes batch.svg and context.svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

STYLES = {
    "nanocupy": ("#0072b2", "o"), "int8": ("#56b4e9", "s"), "one thread": ("#999999", "o"),
    "llama.cpp": ("#d55e00", "^"), "OpenVINO": ("#009e73", "D"), "transformers": ("#cc79a7", "v"),
    "MLX": ("#e69f00", "P"), "vLLM": ("#000000", "X"),
}  # fmt: skip
"""Side -> colour and mark; Okabe and Ito's colours, which the colour-blind can tell apart."""
PLOTS = {
    "batch": ("batch of ", "sequences at once", "answers, tokens/s"),
    "context": ("decode after ", "tokens of context", "one sequence, tokens/s"),
}
"""File -> what its jobs begin with, and the two axes."""
GAP = 0.055  # least distance of two labels, as a share of the height
Lines = dict[str, list[tuple[int, float]]]


def lines(jobs: dict[str, Any], prefix: str) -> Lines:
    """Side -> (size, tokens per second) of the jobs that begin so, by size."""
    found: Lines = {}
    sized = {int(name.removeprefix(prefix)): job for name, job in jobs.items() if prefix in name}
    for size, job in sorted(sized.items()):
        for side, rate in job["tokens_per_s"].items():
            found.setdefault(side, []).append((size, rate))
    return found


def draw(found: Lines, title: str, across: str, up: str, path: Path) -> None:
    """One plot; both axes are logarithmic, and each line is named at its right end."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for side, points in found.items():
        colour, mark = STYLES[side]
        axes.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = [size for size, _ in next(iter(found.values()))]
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_minor_formatter(lambda y, _: f"{y:,.0f}")
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.grid(which="both", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    label(axes, found)
    figure.savefig(path, metadata={"Date": None})


def label(axes: Any, found: Lines) -> None:
    """Name the lines at their ends, from below, each at least GAP above the one before."""
    below = -GAP
    to_axes = axes.transData + axes.transAxes.inverted()
    for side, points in sorted(found.items(), key=lambda item: item[1][-1][1]):
        below = max(below + GAP, to_axes.transform(points[-1])[1])
        place = {"xycoords": axes.transAxes, "va": "center", "color": STYLES[side][0]}
        axes.annotate(f" {side} {points[-1][1]:,.0f}", (1.0, below), fontsize=9, **place)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--title", default="SmolLM2-135M, {format}, {threads} threads")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "nanocupy", "font.size": 10}
    report = json.loads(args.json.read_text())
    for name, (prefix, across, up) in PLOTS.items():
        if found := lines(report["jobs"], prefix):
            title = args.title.format(**report)
            draw(found, title, across, up, args.folder / f"{name}.svg")


if __name__ == "__main__":
    main()
