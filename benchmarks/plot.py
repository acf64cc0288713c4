"""Draw the output of `cpu_vs_peers.py --sweep --json`: tokens/s against batch and against context.

    python benchmarks/cpu_vs_peers.py --models MODELS --sweep --json ... > sweep.json
    python benchmarks/plot.py sweep.json docs/figures

Needs matplotlib, which may be in an environment of its own. Writes batch.svg and context.svg.
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
"""The colour and mark of each side, in Okabe and Ito's colours for the colour-blind."""
PLOTS = {
    "batch": ("batch of ", "sequences at once", "answers, tokens/s"),
    "context": ("decode after ", "tokens of context", "one sequence, tokens/s"),
}
"""For each file, the prefix of its jobs and the titles of the two axes."""
GAP = 0.055  # least distance of two labels, as a share of the height
Lines = dict[str, list[tuple[int, float]]]


def lines(jobs: dict[str, Any], prefix: str) -> Lines:
    """Return (size, tokens per second) of each side for the jobs with a prefix, ordered by size."""
    found: Lines = {}
    sized = {int(name.removeprefix(prefix)): job for name, job in jobs.items() if prefix in name}
    for size, job in sorted(sized.items()):
        for side, rate in job["tokens_per_s"].items():
            found.setdefault(side, []).append((size, rate))
    return found


def draw(found: Lines, title: str, across: str, up: str, path: Path) -> None:
    """Draw one plot. Both axes are logarithmic. Each line is named at its right end."""
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
    """Name the lines at their ends, from below, with at least GAP between two names."""
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
