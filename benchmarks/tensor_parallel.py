"""One process of N threads beside N processes of one thread each, in turns, as ratios.

    python benchmarks/tensor_parallel.py                  SmolLM2: 9 query heads, 3 KV heads
    python benchmarks/tensor_parallel.py --even           the same size, with 8 and 4: equal shares

Both sides live through the whole run and are asked alternately, so that the machine's drift hits
both; every figure is a median, every ratio the median of ratios of neighbours. The even model has
random weights: what it says makes no sense, how fast it says it does.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sides import Side, engine_rate, in_turns, medians, quartiles

from nanocupy import LLM
from nanocupy.checkpoint import resolve
from nanocupy.checkpoint.writer import Entry, write_safetensors
from nanocupy.kernels.linear import GROUP

EVEN = {"hidden_size": 576, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64}


def even_model(folder: Path) -> str:
    """SmolLM2's configuration and tokenizer with equal shares, and random 4-bit weights."""
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


def serve(model: str, threads: int) -> None:
    """One side, on all ranks there are; see `Side`."""
    source = random.Random(0)
    with LLM(
        model, tensor_parallel="auto", threads=threads, max_model_len=2048, progress=False
    ) as llm:
        print("ready", flush=True)
        while line := sys.stdin.readline().split():
            prompt, new = map(int, line)
            print(engine_rate(llm, source, prompt, new), flush=True)


def side(launch: list[str], model: str, threads: int) -> Side:
    """Processes that measure together."""
    serve = [sys.executable, __file__, "--serve", "--model", model, "--threads", str(threads)]
    return Side([*launch, *serve])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--even", action="store_true", help="a model whose shares are equal")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.model, args.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(even_model(Path(folder)) if args.even else args.model, args.ranks, args.repeats)


def compare(model: str, ranks: int, repeats: int) -> None:
    """Print the table."""
    mpirun = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or "mpirun"
    together = side([mpirun, "-n", str(ranks)], model, 1)
    found = in_turns(together, side([], model, ranks), repeats)
    print(f"{'tokens/s':<20}{f'{ranks} x 1':>10}{f'1 x {ranks}':>10}   ratio (quartiles)")
    for name, pairs in found.items():
        (ours, theirs), (low, mid, high) = medians(pairs), quartiles(pairs)
        print(f"{name:<20}{ours:>10.1f}{theirs:>10.1f}   {mid:.2f}x ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
