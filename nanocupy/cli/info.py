"""Show versions, CPU, devices and folders; or, given a model, what it holds and what it costs."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections import Counter
from importlib import metadata
from typing import Any

from nanocupy.cli.output import size, table, write, write_json

EXAMPLES = """\
examples:
  nanocupy info                     this machine
  nanocupy info smollm2-135m        a model: known name, folder or hub id
  nanocupy info --json
"""
PACKAGES = ("numpy", "numba", "llvmlite", "tokenizers", "safetensors", "jinja2", "cupy-cuda12x",
            "cupy-cuda13x", "mpi4py")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy info`."""
    parser.add_argument("model", nargs="?", help="a model to look into")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Collect the facts, then print them."""
    facts = model_facts(args.model) if args.model else machine_facts()
    if args.json:
        write_json(facts)
    else:
        write(table(_lines(facts)))
    return 0


def machine_facts() -> dict[str, Any]:
    """Versions, CPU, devices and folders of this machine. No model is needed."""
    from nanocupy import __version__
    from nanocupy.device import paths
    from nanocupy.device.cpu import target

    return {
        "nanocupy": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "cpu": {
            "name": _cpu_name(),
            "simd": target.level(),
            "features": _useful(target.features()),
            "threads": _cores(),
            "memory": size(_memory()),
        },
        "devices": ["cpu"],
        "folders": {"cache": str(paths.cache_folder())},
    }


def model_facts(model: str) -> dict[str, Any]:
    """Architecture, parameters, bytes by storage type and the cost of one token of context."""
    from nanocupy import checkpoint

    folder = checkpoint.resolve(model)
    config = checkpoint.load_config(folder)
    weights = checkpoint.Checkpoint(folder)
    try:
        tensors = [weights.info(name) for name in weights.names()]
    finally:
        weights.close()
    kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return {
        "model": model,
        "folder": str(folder),
        "architecture": config.model_type,
        "layers": config.num_hidden_layers,
        "hidden size": config.hidden_size,
        "attention heads": f"{config.num_attention_heads} (KV {config.num_key_value_heads})",
        "head size": config.head_dim,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
        "parameters": _parameters(config, tensors),
        "bytes": {name: int(n) for name, n in _bytes(config, tensors).items()},
        "KV bytes per token": {"16-bit": 2 * kv, "float32": 4 * kv},
    }


def stored_as(config: Any, tensor: Any) -> str:
    """How a tensor is stored: `4-bit` for a quantised weight with its scales, else its dtype."""
    module, _, leaf = tensor.name.rpartition(".")
    quantised = config.quantization and config.quantization.for_module(module)
    if quantised and leaf in ("weight", "scales", "biases"):
        return f"{quantised[0]}-bit"
    return str(tensor.dtype)


def _bytes(config: Any, tensors: list[Any]) -> Counter[str]:
    total: Counter[str] = Counter()
    for tensor in tensors:
        total[stored_as(config, tensor)] += tensor.nbytes
    return total


def _parameters(config: Any, tensors: list[Any]) -> int:
    """Numbers the model was trained with: packed weights count each of their elements."""
    count = 0
    for tensor in tensors:
        stored, leaf = stored_as(config, tensor), tensor.name.rpartition(".")[2]
        if not stored.endswith("-bit"):
            count += _product(tensor.shape)
        elif leaf == "weight":
            count += _product(tensor.shape) * 32 // int(stored.removesuffix("-bit"))
    return count


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += [(f"{key} {name}", _text(f"{key} {name}", v)) for name, v in value.items()]
        else:
            lines.append((key, _text(key, value)))
    return lines


def _text(key: str, value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, int) and "bytes" in key:
        return size(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _useful(features: frozenset[str]) -> list[str]:
    """The features our kernels can tell apart, out of LLVM's hundred."""
    prefixes = ("avx", "amx", "fma", "f16c", "neon", "dotprod", "i8mm", "bf16", "sve", "fullfp16")
    return sorted(name for name in features if name.startswith(prefixes))


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Hardware threads this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
