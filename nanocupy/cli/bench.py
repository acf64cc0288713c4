"""Measure prefill, decode and batch speed, and how near decode comes to the machine's limit.

The limit is a streaming read of the bytes that one token needs (weights, and keys and values of its
context) by the same threads in the same run; on a GPU, a copy within its memory. Every figure is
the median of --repeats runs, taken in turns. The batch is nano-vLLM's: 256 requests of random
tokens, 100 to 1024 in and out; --scale shrinks the requests and their lengths.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from nanocupy.cli import flags
from nanocupy.cli.measure import Bench, Load, interleaved, nano_vllm_load
from nanocupy.cli.model import ModelFacts
from nanocupy.cli.output import note, table, write, write_json
from nanocupy.cli.session import load

EXAMPLES = """\
examples:
  nanocupy bench                                      the default model
  nanocupy bench --scale 1                            nano-vLLM's whole load: 133,966 tokens out
  nanocupy bench --contexts 128 4096 --prompt-lengths --scale 0
                                                      decode alone
  nanocupy bench --kernels                            each kernel's GB/s and GFLOP/s
  nanocupy bench --json > today.json
"""
COUNTS = ("prompt_lengths", "contexts", "decode_tokens", "repeats")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy bench`."""
    flags.add_model(parser)
    add = partial(parser.add_argument_group("what to measure").add_argument, metavar="N")
    add(
        "--prompt-lengths", nargs="*", type=int, default=[128, 512],
        help="prefill of prompts of N tokens (default: 128 512)",
    )  # fmt: skip
    add(
        "--contexts", nargs="*", type=int, default=[128, 1024],
        help="decode after prompts of N tokens (default: 128 1024)",
    )  # fmt: skip
    add("--decode-tokens", type=int, default=64, help="tokens per decode run (default: 64)")
    add("--scale", type=float, default=0.125, metavar="S",
        help="nano-vLLM's load times S, 0 to 1 (default: 0.125)")  # fmt: skip
    add("--repeats", type=int, default=3, help="runs of each, of which the median counts (3)")
    parser.add_argument("--kernels", action="store_true", help="measure the kernels instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for, then print it."""
    if args.kernels:
        from nanocupy.kernels import bench

        if getattr(args, "device", "cpu") not in ("cpu", "auto"):
            raise ValueError("--kernels is for the CPU's; for a GPU's see benchmarks/gpu.py")
        return bench.run(json=args.json, threads=getattr(args, "threads", None))
    _check(args)
    report = measure(args)
    if args.json:
        write_json(report)
    else:
        write(_text(report))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    batch = nano_vllm_load(args.scale)
    plain = {"speculate": 0}  # a token a step, unless a flag says otherwise
    longest = _longest(args, batch)
    _check_room(args, longest)
    with load(args, max_model_len=longest, **plain) as (llm, load_s):
        bench = Bench(llm)
        note("warm-up")
        bench.warm_up()
        jobs: dict[str, Any] = {
            f"prefill {n}": partial(bench.prefill, n) for n in args.prompt_lengths
        }
        jobs |= {f"decode {n}": partial(bench.decode, n, args.decode_tokens) for n in args.contexts}
        if batch.prompts:
            jobs["batch"] = partial(bench.batch, batch)
        jobs["limit"] = bench.limit
        found = interleaved(jobs, args.repeats, note)
        about = {
            "model": args.model,
            **bench.where,
            "kv_dtype": bench.kv_dtype,
            "load_s": round(load_s, 3),
        }
    return about | _figures(args, batch, bench.kv_dtype, found)


def _figures(
    args: argparse.Namespace, batch: Load, kv_dtype: str, found: dict[str, float]
) -> dict[str, Any]:
    """The medians, with the limits that they are compared with."""
    facts, limit = ModelFacts(args.model, getattr(args, "quantize", None)), found["limit"]
    kv, weights = facts.kv_bytes_per_token(kv_dtype), facts.bytes_per_step
    return {
        "prefill": [
            {"tokens": n, "tokens_per_s": round(found[f"prefill {n}"], 1)}
            for n in args.prompt_lengths
        ],
        "decode": [
            {"context": n, **_decode(weights + kv * (n + args.decode_tokens // 2), rate, limit)}
            for n in args.contexts
            for rate in [found[f"decode {n}"]]
        ],
        "batch": _batch(args, batch, found["batch"]) if batch.prompts else None,
        "limit_gb_per_s": round(limit, 2),
    }


def _decode(needed: int, rate: float, limit: float) -> dict[str, Any]:
    """One decode figure; `needed`: the mean number of bytes that one token reads."""
    return {
        "tokens_per_s": round(rate, 1),
        "bytes_per_token": needed,
        "gb_per_s": round(rate * needed / 1e9, 2),
        "of_the_limit": round(rate * needed / 1e9 / limit, 3),
    }


def _batch(args: argparse.Namespace, batch: Load, rate: float) -> dict[str, Any]:
    return {
        "scale": args.scale,
        "requests": len(batch.prompts),
        "tokens_in": sum(map(len, batch.prompts)),
        "tokens_out": sum(batch.new_tokens),
        "tokens_out_per_s": round(rate, 1),
    }


def _text(report: dict[str, Any]) -> str:
    rows = [
        ("prefill", f"{p['tokens']} tokens", f"{p['tokens_per_s']:,}", "")
        for p in report["prefill"]
    ]
    for d in report["decode"]:
        part = f"{100 * d['of_the_limit']:.0f} % of {report['limit_gb_per_s']} GB/s"
        rows.append(("decode", f"after {d['context']}", f"{d['tokens_per_s']:,}", part))
    if batch := report["batch"]:
        what = f"{batch['requests']} requests, {batch['tokens_out']:,} tokens out"
        rows.append(("batch", what, f"{batch['tokens_out_per_s']:,}", ""))
    return table(rows, ("", "", "tokens/s", "of the limit"))


def _longest(args: argparse.Namespace, batch: Load) -> int:
    """Tokens of the longest measurement."""
    decode = [n + args.decode_tokens + 1 for n in args.contexts]
    return max([64, batch.longest, *decode, *(n + 1 for n in args.prompt_lengths)])


def _check_room(args: argparse.Namespace, longest: int) -> None:
    """Refuse measurements longer than the model or --max-model-len allows."""
    most = ModelFacts(args.model).config.max_position_embeddings
    asked = getattr(args, "max_model_len", None)
    if longest > min(most, asked or most):
        limit = (
            f"{args.model} was made for {most:,}" if longest > most else "--max-model-len is less"
        )
        raise ValueError(
            f"the longest measurement takes {longest:,} tokens, and {limit}: lower --contexts, "
            "--decode-tokens, --prompt-lengths or --scale"
        )


def _check(args: argparse.Namespace) -> None:
    for name in COUNTS:
        values = getattr(args, name)
        if wrong := [n for n in (values if isinstance(values, list) else [values]) if n < 1]:
            raise ValueError(f"{flags.flag(name)} must be 1 or more, got {wrong[0]}")
    if not 0 <= args.scale <= 1:
        raise ValueError(f"--scale must be between 0 and 1, got {args.scale}")
