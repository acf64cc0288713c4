"""nanocupy beside other engines on the same CPU and the same weights: rates, ratios, limits.

    python benchmarks/cpu_vs_peers.py --format 4bit --models MODELS \\
        --llama PYTHON --openvino PYTHON

One process a side lives through the whole run; all are asked in turns, so that the machine's drift
hits all alike. Every figure is a median, every ratio the median of ratios of neighbours. README.md
says how to install the peers and how to make the models.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from sides import JOBS, Found, Job, Side, in_turns, ratios

PEERS = Path(__file__).parent / "peers"
FORMATS = {"bf16": ("BF16", "F16"), "8bit": ("Q8_0", "Q8_0"), "4bit": ("Q4_0", "Q4_0")}
"""Format -> endings of llama.cpp's file and of OpenVINO's (which reads no bf16)."""
ALL: dict[str, Job] = JOBS | {
    "decode after 4096": ("decode", 4096, 64),
    "batch of 32": ("batch", 32, 0),
}


def sides(args: argparse.Namespace) -> dict[str, Side]:
    """The processes that were asked for; each says how it was built."""
    llama, openvino = (f"{args.models}/smollm2-{end}.gguf" for end in FORMATS[args.format])
    folder = f"{args.models}/{FORMATS[args.format][0]}"
    wanted = {"nanocupy": (sys.executable, "ours.py", folder)}
    if args.int8:
        wanted["int8"] = (sys.executable, "ours.py", folder, "int8")
    if args.llama:
        wanted["llama.cpp"] = (args.llama, "llama_cpp_side.py", llama)
    if args.openvino:
        wanted["OpenVINO"] = (args.openvino, "openvino_side.py", openvino)
    started = {}
    for name, (python, program, model, *more) in wanted.items():
        started[name] = Side([python, str(PEERS / program), model, str(args.threads), *more])
        print(f"{name}: {started[name].about}", file=sys.stderr)
    return started


def limits(threads: int) -> dict[str, float]:
    """GB/s of a streaming read, GFLOP/s of fma, GOP/s of 16-bit dots, now, by as many threads."""
    from nanocupy.device.cpu import limits
    from nanocupy.device.cpu.device import CpuDevice

    device = CpuDevice(threads)
    top = {"read": limits.stream_gbs(threads)}
    for name, kernel in (("fma", limits.FMA), ("dot", limits.DOT)):
        graph, work = limits.peak(device, kernel)
        top[name] = work / limits.best_of(graph.run, 5) / 1e9
    return top


def report(found: Found) -> dict[str, Any]:
    """Medians, and the quartiles of ours over each other side."""
    out: dict[str, Any] = {}
    for job, rates in found.items():
        ours, *others = rates
        out[job] = {
            "tokens_per_s": {side: round(median(values), 1) for side, values in rates.items()},
            "ratio": {side: ratios(rates[ours], rates[side]) for side in others},
        }
    return out


def text(about: dict[str, Any]) -> str:
    """The report as a table."""
    lines = []
    for job, row in about.items():
        cells = [f"{job:<20}"]
        for side, rate in row["tokens_per_s"].items():
            cell = f"{side} {rate:,.1f}"
            if side in row["ratio"]:
                low, mid, high = row["ratio"][side]
                cell += f" ({mid:.2f}x, {low:.2f}-{high:.2f})"
            cells.append(cell)
        lines.append("   ".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True, help="folder that models.py filled")
    parser.add_argument("--format", choices=FORMATS, default="4bit")
    parser.add_argument("--llama", help="python of an environment with llama-cpp-python")
    parser.add_argument("--openvino", help="python of an environment with openvino-genai")
    parser.add_argument("--int8", action="store_true", help="nanocupy with --dtype int8, too")
    parser.add_argument("--jobs", nargs="*", choices=ALL, default=list(ALL))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    jobs = {name: ALL[name] for name in args.jobs}
    found = report(in_turns(sides(args), jobs, args.repeats))
    top = limits(args.threads)
    if args.json:
        print(json.dumps({"format": args.format, "jobs": found, "limits": top}))
        return
    print(text(found))
    print("limits: " + ", ".join(f"{name} {value:.1f} G/s" for name, value in top.items()))


if __name__ == "__main__":
    main()
