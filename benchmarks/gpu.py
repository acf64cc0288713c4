"""The CUDA device on a GPU: correctness, the speed of each kernel, the speed of the engine.

    python benchmarks/gpu.py                             everything, with the default model
    python benchmarks/gpu.py --model DIR --json > gpu.json
    python benchmarks/gpu.py --only kernels --dtype float16
    python benchmarks/gpu.py --device emulated --tiny    checks this script; no GPU, no figures

right     logprobs of prompts beside those of the CPU device in float32, for every dtype; captured
          and eager steps give the same tokens
kernels   each kernel of a step beside its floor: the bytes it must move over the GPU's measured
          bandwidth, or its operations over cuBLAS's rate on a large product, whichever is more
engine    prefill, decode and batch: tokens per second, and decode's share of the bandwidth
load      nano-vLLM's bench.py, its exact load: 256 requests, 133,966 tokens out

nano-vLLM's README has 1,434 tokens/s for this load with Qwen3-0.6B on an RTX 4070 Laptop.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nanocupy import LLM, SamplingParams
from nanocupy.cli.measure import Bench, interleaved, nano_vllm_load
from nanocupy.cli.model import ModelFacts
from nanocupy.device.cuda.limits import seconds, stream_gbs
from nanocupy.device.protocols import Launch
from nanocupy.engine.batch import SampleRow, Scheduled
from nanocupy.kernels.kernel import GEMM

PARTS = ("right", "kernels", "engine", "load")
TEXTS = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    "Water boils at a hundred degrees, where the air presses as it does at the level of the sea.",
)
REPEAT = 20  # launches of one kernel in a graph


def llm(args: argparse.Namespace, **options: Any) -> LLM:
    sizes = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "num_kv_blocks": 64}
    chosen = {"progress": False, **(sizes if args.tiny else {}), **options}
    return LLM(args.model, **chosen)


# ---- right


def right(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how far the logprobs of each dtype are from the CPU's in float32."""
    texts = [TEXTS[0][:16]] if args.tiny else list(TEXTS)
    model = llm(args, device="cpu", dtype="exact")
    want = logprobs(model, texts)
    model.close()
    rows = []
    for dtype in ("exact", "float16", "bfloat16"):
        model = llm(args, device=args.device, dtype=dtype)
        got, captured = logprobs(model, texts), tokens(model, args)
        model.close()
        model = llm(args, device=args.device, dtype=dtype, capture=False)
        eager = tokens(model, args)
        model.close()
        apart = np.abs(got.given - want.given)
        rows.append(
            {
                "dtype": dtype,
                "tokens": len(apart),
                "top_1_agrees": round(float((got.best == want.best).mean()), 4),
                "largest_logprob_difference": round(float(apart.max()), 5),
                "mean_nll": round(float(-got.given.mean()), 5),
                "mean_nll_cpu": round(float(-want.given.mean()), 5),
                "captured_is_eager": captured == eager,
            }
        )
    return rows


class Logprobs(NamedTuple):
    """The logprob of each token of some texts, and the most probable token in its place."""

    given: np.ndarray
    best: np.ndarray


def logprobs(model: LLM, texts: list[str]) -> Logprobs:
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
    given, best = [], []
    for output in model.generate(texts, params):
        assert output.prompt_logprobs is not None and output.error is None, output.error
        places = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
        for token, found in places:
            assert found is not None
            given.append(found[token].logprob)
            best.append(max(found, key=lambda id: found[id].logprob))
    return Logprobs(np.array(given), np.array(best))


def tokens(model: LLM, args: argparse.Namespace) -> list[list[int]]:
    new = 2 if args.tiny else 64
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=new, ignore_eos=True)
    texts = [TEXTS[0][:16]] if args.tiny else list(TEXTS)
    return [output.outputs[0].token_ids for output in model.generate(texts, params)]


# ---- kernels


class Floor(NamedTuple):
    """The least work of a launch: bytes moved and operations."""

    nbytes: int
    operations: int = 0


def floor(launch: Launch, rows: int, samples: int, context: int) -> Floor:
    """Return the floor of a launch in a step whose `rows` rows attend to `context` tokens each."""
    args, name = launch.args, launch.kernel.name
    numbers = [int(a) for a in args if isinstance(a, (np.integer, int))]
    if launch.kernel is GEMM:
        out, x, weight, m, n, k, *_ = args
        size = weight.dtype.itemsize
        return Floor((n * k + m * k) * size + 4 * m * n, 2 * m * n * k)
    out, x = args[:2]
    size = out.dtype.itemsize
    if name in ("affine_gemv", "affine_gemm"):
        n, k, *_ = numbers
        count = samples if out.shape[0] == samples and rows != samples else rows
        weight = sum(a.nbytes for a in args[2:5])
        return Floor(weight + count * (k * x.dtype.itemsize + 4 * n), 2 * count * n * k)
    if name in ("attend_decode", "attend_prefill"):
        heads, kv_heads = numbers[:2]
        head_dim, kv = x.shape[-1], args[2].dtype.itemsize
        reads = rows if name == "attend_decode" else 1
        moved = 2 * reads * context * kv_heads * head_dim * kv + 2 * rows * heads * head_dim * size
        return Floor(moved, 4 * rows * context * heads * head_dim)
    if name == "rope_write":
        heads, kv_heads, head_dim, *_ = numbers
        kv = args[1].dtype.itemsize
        return Floor(rows * head_dim * (heads * (4 + size) + 2 * kv_heads * (4 + kv)))
    if name == "add_rms_norm":
        return Floor(rows * numbers[0] * (12 + args[1].dtype.itemsize))
    if name == "rms_norm":
        return Floor(rows * numbers[0] * numbers[1] * (4 + size))
    if name == "sample":
        return Floor(samples * numbers[0] * 4)
    width = numbers[1] if name in ("take_rows", "embedding") else numbers[0]
    inputs = 8 if name in ("silu_mul", "add", "mul") else 4
    return Floor(rows * width * (inputs + size))


def kernels(args: argparse.Namespace) -> dict[str, Any]:
    """Time every kernel of a few steps beside its floor."""
    model = llm(args, device=args.device, dtype=args.dtype)
    runner: Any = model.engine.runner
    device = runner.device
    bandwidth = stream_gbs(device, nbytes=1 << 20 if args.tiny else 256 << 20)
    peak = gemm_gflops(device, np.float16, 64 if args.tiny else 8192)
    steps = (
        [(1, 16), (3, 16), (32, 32)]
        if args.tiny
        else [(1, 1024), (16, 1024), (64, 1024), (512, 512)]
    )
    found = [
        step_kernels(runner, rows, context, bandwidth, peak)
        for rows, context in steps
        if context <= runner.max_model_len
    ]
    model.close()
    return {"gb_per_s": round(bandwidth, 1), "gemm_gflop_per_s": round(peak), "steps": found}


def step_kernels(
    runner: Any, rows: int, context: int, bandwidth: float, peak: float
) -> dict[str, Any]:
    """Time a step of `rows` sequences of `context` tokens, or of one prompt if those are equal."""
    prompt = rows == context
    sizes = fill(runner, rows, context, prompt)
    launches = runner.program.launches(sizes)
    whole = seconds(runner.device, runner.device.capture(launches).run, REPEAT)
    groups: dict[Any, list[Launch]] = defaultdict(list)
    for launch in launches:
        groups[key(launch)].append(launch)
    table = []
    for same in groups.values():
        graph = runner.device.capture(same[:1] * REPEAT)
        each = seconds(runner.device, graph.run, 3) / REPEAT
        least = floor(same[0], rows, 1 if prompt else rows, context // 2 if prompt else context)
        moving, counting = least.nbytes / bandwidth / 1e9, least.operations / peak / 1e9
        bound = max(moving, counting)
        table.append(
            {
                "kernel": same[0].kernel.name,
                "launches": len(same),
                "microseconds": round(each * 1e6, 2),
                "floor": round(bound * 1e6, 4),
                "of_the_floor": round(bound / each, 3),
                "bound_by": "memory" if moving > counting else "sums",
            }
        )
    return {
        "rows": rows, "context": context, "prompt": prompt, "microseconds": round(whole * 1e6, 1),
        "kernels": table,
    }  # fmt: skip


def key(launch: Launch) -> Any:
    """Return what distinguishes launches of different work."""
    numbers = tuple(a for a in launch.args if not hasattr(a, "nbytes") or isinstance(a, np.generic))
    expression = getattr(launch.kernel, "expression", launch.kernel.name)
    return expression, launch.grid, tuple(map(float, numbers))


def fill(runner: Any, rows: int, context: int, prompt: bool) -> Any:
    """Write such a step into the runner's buffers and return the sizes of its bucket."""
    blocks = -(-context // runner.block_size)
    free = runner.num_blocks - 1
    batch = []
    for index in range(1 if prompt else rows):
        table = [1 + (index * blocks + i) % free for i in range(blocks)]
        ids = [7] * (context if prompt else 1)
        row = SampleRow(
            row=len(ids) - 1, temperature=0.6, top_k=0, top_p=1.0, min_p=0.0, uniform=0.5,
            edits=None, top=-1, target=-1,
        )  # fmt: skip
        nobody: Any = None
        batch.append(Scheduled(nobody, 0 if prompt else context - 1, ids, table, [row]))
    _, edits = runner.fill(batch)
    runner.buffers.send(len(batch), edits)
    return runner._sizes(runner.buckets[runner.size_needed()])


def gemm_gflops(device: Any, dtype: Any, side: int) -> float:
    """Measure the GFLOP/s of cuBLAS on matrices of (side, side), with f32 sums."""
    x, weight = (device.empty((side, side), dtype) for _ in range(2))
    out = device.empty((side, side), np.float32)
    graph = device.eager([Launch(GEMM, (out, x, weight, side, side, side, side, False))])
    return 2 * side**3 / seconds(device, graph.run, 5) / 1e9


# ---- engine, load


def engine(args: argparse.Namespace) -> dict[str, Any]:
    """Measure tokens per second: prefill and decode of one stream, and a batch of 32."""
    model = llm(args, device=args.device, dtype=args.dtype)
    bench = Bench(model)
    bench.warm_up()
    prompts, contexts, new = [128, 512, 2048], [128, 1024, 4096], 128
    if args.tiny:
        prompts, contexts, new = [8], [8], 2
    longest = model.engine.runner.max_model_len - new - 1
    jobs: dict[str, Any] = {
        f"prefill {n}": lambda n=n: bench.prefill(n) for n in prompts if n < longest
    }
    jobs |= {f"decode {n}": lambda n=n: bench.decode(n, new) for n in contexts if n < longest}
    if not args.tiny:
        jobs["batch of 32"] = lambda: bench.batch(nano_vllm_load(0.125))
    jobs["limit GB/s"] = bench.limit if not args.tiny else lambda: 1.0
    found = interleaved(jobs, 1 if args.tiny else 5, lambda text: print(text, file=sys.stderr))
    facts = ModelFacts(args.model)
    kv = facts.kv_bytes_per_token(bench.kv_dtype)
    for n in contexts:
        if rate := found.get(f"decode {n}"):
            needed = facts.bytes_per_step + kv * (n + new // 2)
            found[f"decode {n} of the limit"] = rate * needed / 1e9 / found["limit GB/s"]
    model.close()
    return {name: round(value, 3) for name, value in found.items()}


def load(args: argparse.Namespace) -> dict[str, Any]:
    """Run nano-vLLM's bench.py: 256 requests of 100 to 1024 tokens in and out, temperature 0.6."""
    requests = nano_vllm_load(args.scale)
    model = llm(args, device=args.device, dtype=args.dtype)
    bench = Bench(model)
    bench.warm_up()
    rate = bench.batch(requests)
    model.close()
    return {
        "requests": len(requests.prompts),
        "tokens_out": sum(requests.new_tokens),
        "tokens_out_per_s": round(rate, 2),
    }


# ---- the report


def text(report: dict[str, Any]) -> Iterator[str]:
    """Format the report as lines."""
    for row in report.get("right", []):
        yield "  ".join(f"{name} {value}" for name, value in row.items())
    if found := report.get("kernels"):
        yield f"copy {found['gb_per_s']} GB/s, large product {found['gemm_gflop_per_s']} GFLOP/s"
        for step in found["steps"]:
            what = f"{step['rows']} rows, context {step['context']}"
            yield f"{what}: {step['microseconds']} us in all"
            for row in step["kernels"]:
                yield (
                    f"  {row['kernel']:<18}{row['launches']:>4} x{row['microseconds']:>10.2f} us"
                    f"  floor {row['floor']:>9.2f}  {100 * row['of_the_floor']:>4.0f} % "
                    f"of it ({row['bound_by']})"
                )
    for part in ("engine", "load"):
        for name, value in report.get(part, {}).items():
            yield f"{name:<24}{value:>14,}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="cuda", choices=("cuda", "emulated"))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--scale", type=float, default=1.0, help="of nano-vLLM's load")
    parser.add_argument("--tiny", action="store_true", help="the least of everything")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.tiny:
        args.scale = min(args.scale, 1 / 256)
    report = {part: globals()[part](args) for part in PARTS if part in args.only}
    print(json.dumps(report) if args.json else "\n".join(text(report)))


if __name__ == "__main__":
    main()
