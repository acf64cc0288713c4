"""One process of N threads beside N processes of one thread each, in turns, as ratios.

    python benchmarks/tensor_parallel.py                  SmolLM2: 9 query heads, 3 KV heads
    python benchmarks/tensor_parallel.py --even           the same size, with 8 and 4: equal shares

Both sides live through the whole run and alternate, so that a drift of the machine affects both. A
figure is a median, and a ratio is the median over neighbouring pairs. The even model has random
weights: its text makes no sense, but its speed is real.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sides import JOBS, Side, in_turns, ratios

from nanocupy.checkpoint import resolve
from nanocupy.checkpoint.writer import Entry, write_safetensors
from nanocupy.kernels.linear.cpu import GROUP

EVEN = {"hidden_size": 576, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64}


def even_model(folder: Path) -> str:
    """Write a model with SmolLM2's tokenizer and size, equal shares, and random 4-bit weights."""
    source = resolve("smollm2-135m")
    for path in source.glob("*.json"):
        shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text()) | EVEN
    config["quantization"] = {"group_size": 64, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = _shapes(config)
    entries = {name: Entry(*_stored(name, shape)) for name, shape in shapes.items()}
    rng = np.random.default_rng(0)
    tensors = ((name, _random(rng, entry)) for name, entry in entries.items())
    write_safetensors(folder / "model.safetensors", entries, tensors, {"format": "mlx"})
    return str(folder)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    dim, mlp, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    layer = {
        "self_attn.q_proj": (q, dim), "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim),
        "self_attn.o_proj": (dim, q), "mlp.gate_proj": (mlp, dim), "mlp.up_proj": (mlp, dim),
        "mlp.down_proj": (dim, mlp), "input_layernorm": (dim, 1),
        "post_attention_layernorm": (dim, 1),
    }  # fmt: skip
    shapes = {"model.embed_tokens": (config["vocab_size"], dim), "model.norm": (dim, 1)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    out: dict[str, tuple[int, int]] = {}
    for name, (n, k) in shapes.items():
        out[f"{name}.weight"] = (n, k)
        if k > 1:
            out[f"{name}.scales"] = out[f"{name}.biases"] = (n, k // GROUP)
    return out


def _stored(name: str, shape: tuple[int, int]) -> tuple[str, tuple[int, ...], int]:
    n, k = shape
    if name.endswith("weight") and k > 1:
        return "U32", (n, k // 8), n * k // 2
    return "F16", (n,) if k == 1 else (n, k), 2 * n * k


def _random(rng: np.random.Generator, entry: Entry) -> np.ndarray:
    if entry.dtype == "U32":
        return rng.integers(0, 2**32, entry.shape, np.uint32)
    return (rng.standard_normal(entry.shape) * 0.01).astype(np.float16)


# ---- the two sides


def side(launch: list[str], model: str, threads: int) -> Side:
    """Start the processes of one side."""
    program = str(Path(__file__).parent / "peers" / "ours.py")
    return Side([*launch, sys.executable, program, model, str(threads), "ranks"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--even", action="store_true", help="a model whose shares are equal")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(even_model(Path(folder)) if args.even else args.model, args.ranks, args.repeats)


def compare(model: str, ranks: int, repeats: int) -> None:
    """Print the table."""
    mpirun = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or "mpirun"
    names = f"{ranks} x 1", f"1 x {ranks}"
    both = side([mpirun, "-n", str(ranks)], model, 1), side([], model, ranks)
    found = in_turns(dict(zip(names, both, strict=True)), JOBS, repeats)
    print(f"{'tokens/s':<20}{names[0]:>10}{names[1]:>10}   ratio (quartiles)")
    for job, rates in found.items():
        ours, theirs = rates.values()
        low, mid, high = ratios(ours, theirs)
        rates = f"{median(ours):>10.1f}{median(theirs):>10.1f}"
        print(f"{job:<20}{rates}   {mid:.2f}x ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
