"""Time from an empty process to the first token, memory, and size on disk, beside peers in turns.

    python benchmarks/startup.py --models MODELS --format 4bit --llama PYTHON --openvino PYTHON

Every run is a process of its own that loads the model and answers "hi" in its chat template with
one token. The clock runs from its start to its first byte of output. Files are in the system's
cache. A cold run of nanocupy has no kernels yet and compiles them. Memory is the largest resident
set of a warm run. It includes weights (the file's bytes) and keys and values (512 tokens in 16
bits), which every engine needs. Size is what pip installs: the package and all that it requires.
README.md says how to install the peers and how to make the models.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

PEERS = Path(__file__).parent / "peers"
FORMATS = {"bf16": ("BF16", "F16"), "8bit": ("Q8_0", "Q8_0"), "4bit": ("Q4_0", "Q4_0")}
CONTEXT = 512
PACKAGES = {"nanocupy": "nanocupy", "llama.cpp": "llama-cpp-python", "OpenVINO": "openvino-genai"}


class Side(NamedTuple):
    """One engine: its command and its file."""

    python: str
    command: list[str]
    weights: Path


class Run(NamedTuple):
    """One process: seconds to its first output and to its end, and its peak memory."""

    first: float
    whole: float
    resident: int


def run(command: Sequence[str], **environment: str) -> Run:
    """Run a process to its end. The caller must stay small: a child's peak begins with its size."""
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
    ) as process:
        assert process.stdout
        said = process.stdout.read(1)
        first = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not said:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(first, time.perf_counter() - start, usage.ru_maxrss * unit)


def sides(args: argparse.Namespace) -> dict[str, Side]:
    """Return the chosen engines."""
    ours, theirs = FORMATS[args.format]
    folder, gguf = Path(args.models, ours), Path(args.models)
    generate = ["-m", "nanocupy", "generate", "hi", "--max-tokens", "1", "--model", str(folder)]
    limits = ["--max-model-len", str(CONTEXT), "--threads", str(args.threads)]
    found = {
        "nanocupy": Side(
            sys.executable, [sys.executable, *generate, *limits], folder / "model.safetensors"
        )
    }
    for name, python, program, end in (
        ("llama.cpp", args.llama, "llama_cpp_once.py", ours),
        ("OpenVINO", args.openvino, "openvino_once.py", theirs),
    ):
        if python:
            file = gguf / f"smollm2-{end}.gguf"
            more = [str(file), str(args.threads), str(CONTEXT)]
            found[name] = Side(python, [python, str(PEERS / program), *more], file)
    return found


def installed(name: str, side: Side) -> int:
    """Return the bytes of the side's package and of all that it requires."""
    command = [side.python, str(PEERS / "installed.py"), PACKAGES[name]]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def cold(side: Side) -> Run:
    """Run nanocupy without a kernel cache."""
    with tempfile.TemporaryDirectory() as cache:
        return run(side.command, NANOCUPY_CACHE=cache)


def kv_bytes(folder: Path) -> int:
    """Return the bytes of 16-bit keys and values of a whole context."""
    config = json.loads((folder / "config.json").read_text())
    heads, size = config["num_attention_heads"], config["hidden_size"]
    width = config.get("num_key_value_heads", heads) * config.get("head_dim", size // heads)
    return int(CONTEXT * 2 * config["num_hidden_layers"] * width * 2)


def report(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return medians of every side, measured in turns after a run that fills the caches."""
    chosen = sides(args)
    kv = kv_bytes(Path(args.models, FORMATS[args.format][0]))
    colds = [cold(chosen["nanocupy"]) for _ in range(args.cold)]
    for side in chosen.values():
        run(side.command)
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    for _ in range(args.repeats):
        for name, side in chosen.items():
            runs[name].append(run(side.command))
    table = {name: _row(name, side, runs[name], kv) for name, side in chosen.items()}
    if colds:
        table["nanocupy"]["cold_s"] = round(median(one.first for one in colds), 2)
    return table


def _row(name: str, side: Side, runs: Sequence[Run], kv: int) -> dict[str, float]:
    weights = side.weights.stat().st_size
    resident = int(median(one.resident for one in runs))
    return {
        "first_token_s": round(median(one.first for one in runs), 3),
        "best_s": round(min(one.first for one in runs), 3),
        "whole_s": round(median(one.whole for one in runs), 3),
        "resident_mb": round(resident / 1e6, 1),
        "over_weights_and_kv_mb": round((resident - weights - kv) / 1e6, 1),
        "installed_mb": round(installed(name, side) / 1e6, 1),
    }


def text(table: Mapping[str, Mapping[str, float]]) -> str:
    """Format the report as a table."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    lines = ["".join([f"{'':<12}", *(f"{column:>24}" for column in columns)])]
    for name, row in table.items():
        lines.append("".join([f"{name:<12}", *(f"{row.get(c, ''):>24}" for c in columns)]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True, help="folder that models.py filled")
    parser.add_argument("--format", choices=FORMATS, default="4bit")
    parser.add_argument("--llama", help="python of an environment with llama-cpp-python")
    parser.add_argument("--openvino", help="python of an environment with openvino-genai")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="warm runs of each side")
    parser.add_argument("--cold", type=int, default=1, help="cold runs of nanocupy")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    table = report(args)
    print(json.dumps(table) if args.json else text(table))


if __name__ == "__main__":
    main()
