"""Show versions, CPU, devices and folders; or, given a model, its contents and memory use."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from nanocupy.cli.output import size, table, write, write_json

EXAMPLES = """\
examples:
  nanocupy info                     this machine
  nanocupy info smollm2-135m        a model: known name, folder, GGUF file or hub id
  nanocupy info --json
"""
PACKAGES = (
    "numpy", "numba", "llvmlite", "tokenizers", "safetensors", "jinja2",
    "cupy-cuda12x", "cupy-cuda13x", "mpi4py",
)  # fmt: skip
FEATURES = ("avx", "amx", "fma", "f16c", "neon", "dotprod", "i8mm", "bf16", "sve", "fullfp16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy info`."""
    parser.add_argument("model", nargs="?", help="a model to look into")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Collect the facts, then print them."""
    facts = machine_facts() if args.model is None else model_facts(args.model)
    if args.json:
        write_json(facts)
    else:
        write(table(_rows(facts)))
    return 0


def model_facts(model: str) -> dict[str, Any]:
    """Architecture, parameters, bytes by storage type, the cost of a token of context, whether it
    fits here, and what it says about prompts and sampling."""
    from nanocupy.checkpoint.locate import only_on_the_hub
    from nanocupy.cli.model import ModelFacts, gguf_report, hub_report

    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return gguf_report(path)
    return hub_report(model) if only_on_the_hub(model) else ModelFacts(model).report()


def machine_facts() -> dict[str, Any]:
    """Versions, CPU, devices and folders of this machine. No model is needed."""
    import psutil

    from nanocupy.device import paths
    from nanocupy.device.cpu import target
    from nanocupy.device.cpu.device import available_threads
    from nanocupy.version import __version__

    return {
        "nanocupy": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "cpu": {
            "name": _cpu_name(),
            "simd": target.level(),
            "features": sorted(f for f in target.features() if f.startswith(FEATURES)),
            "threads": available_threads(),
            "memory_bytes": int(psutil.virtual_memory().total),
        },
        "devices": devices(),
        "folders": {"cache": str(paths.cache_folder())},
    }


def devices() -> dict[str, str]:
    """The choices for `--device` on this machine, each ready or with the reason why not."""
    from nanocupy.device.cuda.toolkit import unavailable as no_gpu
    from nanocupy.device.emulated import unavailable as no_compiler

    cuda, emulated = no_gpu(), no_compiler()
    return {
        "cpu": "ready",
        "cuda": f"no: {cuda}" if cuda else "ready",
        "emulated": f"no: {emulated}" if emulated else "ready (to learn and to test; slow)",
    }


def _rows(facts: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        plain = key.replace("_", " ") if key.islower() else key  # but Q4_K
        name = f"{above} {plain}".strip()
        if isinstance(value, dict):
            rows += _rows(value, name)
        else:
            rows.append((name, _text(name, value)))
    return rows


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, str) and name == "template":
        return json.dumps(value, ensure_ascii=False)[1:-1]
    if isinstance(value, int):
        return f"{value:,} ({size(value)})" if "bytes" in name else f"{value:,}"
    return str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2] for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()
