"""What the real compiler makes of every CUDA kernel: registers, shared memory, spills, occupancy.

NVRTC needs no GPU. The table is `docs/cuda_kernels.md`, keyed by a hash of each source with its
headers; a test holds it to the sources, and compiles two architectures again.

    python tests/kernels/cuda/compiled.py              what has changed, for all architectures
    python tests/kernels/cuda/compiled.py --all        everything anew
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.device.cuda import sources
from nanocupy.device.cuda.compiler import compile_file
from nanocupy.device.cuda.toolkit import cuda_headers
from nanocupy.device.protocols import Launch

TABLE = Path(__file__).parents[3] / "docs" / "cuda_kernels.md"
ARCHITECTURES = (80, 86, 87, 89, 90, 100, 120)


class SM(NamedTuple):
    """What one multiprocessor holds (CUDA programming guide, technical specifications)."""

    warps: int
    blocks: int
    shared: int  # bytes
    registers: int = 65536


LIMITS = {
    80: SM(64, 32, 164 << 10), 86: SM(48, 16, 100 << 10), 87: SM(48, 16, 164 << 10),
    89: SM(48, 24, 100 << 10), 90: SM(64, 32, 228 << 10), 100: SM(64, 32, 228 << 10),
    120: SM(48, 24, 100 << 10),
}  # fmt: skip


class Cost(NamedTuple):
    """Of one kernel on one architecture; bytes are a block's, spills a thread's."""

    registers: int
    static_shared: int
    spills: int
    stack: int


def warps(cost: Cost, launch: Launch, arch: int) -> int:
    """Warps that a multiprocessor holds at once: registers come by 256 a warp."""
    sm, each = LIMITS[arch], -(-launch.block // 32)
    used = 1024 + launch.shared + -(-cost.static_shared // 128) * 128
    by_registers = sm.registers // (-(-cost.registers * 32 // 256) * 256) // each
    return each * min(sm.blocks, sm.warps // each, sm.shared // used, by_registers)


def costs_of(file: str, expressions: Iterable[str], arch: int) -> dict[str, Cost]:
    """Every expression's cost. Raises KernelError with the compiler's log."""
    from cupy.cuda import nvrtc

    made = compile_file(nvrtc, file, expressions, arch, cuda_headers(), "--ptxas-options=-v")
    found = parse(made.log)
    return {expression: found[name] for expression, name in made.names.items()}


def parse(log: str) -> dict[str, Cost]:
    """Costs by lowered name, from what ptxas says."""
    costs = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.partition("'")[0]

        def number(pattern: str, part: str = part) -> int:
            found = re.search(pattern, part)
            return int(found[1]) if found else 0

        spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        stack = number(r"(\d+) bytes stack frame")
        used = number(r"Used (\d+) registers"), number(r"(\d+) bytes smem")
        costs[name] = Cost(*used, spills, stack)
    return costs


def compile_all(
    kernels: dict[str, dict[str, Launch]],
    architectures: Iterable[int],
    say: Callable[[str], Any] | None = None,
) -> dict[tuple[str, int], dict[str, Cost]]:
    """(file, architecture) -> expression -> cost."""
    jobs = [(file, arch) for file in kernels for arch in architectures]

    def job(place: tuple[str, int]) -> dict[str, Cost]:
        made = costs_of(place[0], kernels[place[0]], place[1])
        if say:
            say(f"{place[0]}.cu for sm_{place[1]}: {len(made)} kernels")
        return made

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(jobs, pool.map(job, jobs), strict=True))


def text(kernels: dict[str, dict[str, Launch]], old: str = "") -> str:
    """The table; sections of `old` whose sources and kernels are the same are kept."""
    from cupy.cuda import nvrtc

    kept = {f: part for f, part in sections(old).items() if f in kernels and fits(part, f, kernels)}
    new = {f: launches for f, launches in kernels.items() if f not in kept}
    costs = compile_all(new, ARCHITECTURES, partial(print, file=sys.stderr, flush=True))
    version = ".".join(map(str, nvrtc.getVersion()))
    about = (
        f"By NVRTC {version}, on a machine without a GPU: `tests/kernels/cuda/compiled.py`\n"
        "writes this page, and a test holds it to the sources. Threads and shared memory\n"
        "(static + dynamic, bytes) are a block's; registers are a thread's; warps are those that\n"
        "one multiprocessor holds at once, of the most it could. Spills are bytes, over all\n"
        "architectures.\n"
    )
    parts = [kept.get(f) or section(f, kernels[f], costs) for f in kernels]
    return "\n".join(["# What the compiler makes of the CUDA kernels\n", about, *parts])


def section(
    file: str, launches: dict[str, Launch], costs: dict[tuple[str, int], dict[str, Cost]]
) -> str:
    """The part of the table about one file."""
    archs = " | ".join(f"sm_{arch}" for arch in ARCHITECTURES)
    lines = [
        f"## {file}.cu", "", f"source `{sources.source_hash(file)}`", "",
        f"| kernel | threads | shared | spills | registers: {archs} | warps of sm_80 | of sm_89 | "
        "of sm_90 |",
        "|---|--:|--:|--:|" + "--:|" * (len(ARCHITECTURES) + 3),
    ]  # fmt: skip
    for expression, launch in launches.items():
        each = {arch: costs[file, arch][expression] for arch in ARCHITECTURES}
        lines.append(_row(expression, launch, each))
    return "\n".join([*lines, ""])


def sections(table: str) -> dict[str, str]:
    """file -> its part of the table."""
    parts = re.split(r"(?m)^(?=## )", table)[1:]
    return {part[3 : part.index(".cu")]: part.rstrip() + "\n" for part in parts}


def fits(part: str, file: str, kernels: dict[str, dict[str, Launch]]) -> bool:
    """Whether a part of the table is of today's source and kernels."""
    names = re.findall(r"(?m)^\| `([^`]+)`", part)
    same = names == [short(expression) for expression in kernels[file]]
    return same and hashes(part) == {file: sources.source_hash(file)}


def _row(expression: str, launch: Launch, each: dict[int, Cost]) -> str:
    static = max(cost.static_shared for cost in each.values())
    spills = sum(cost.spills for cost in each.values())
    cells = [
        f"`{short(expression)}`", str(launch.block), f"{static} + {launch.shared}", str(spills),
        *(str(cost.registers) for cost in each.values()),
        *(f"{warps(each[arch], launch, arch)}/{LIMITS[arch].warps}" for arch in (80, 89, 90)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def short(expression: str) -> str:
    """Types by their short names, as the sources have them."""
    return expression.replace("__nv_bfloat16", "bf16").replace("__half", "f16")


def hashes(table: str) -> dict[str, str]:
    """file -> the hash that the table was made from."""
    return dict(re.findall(r"## (\w+)\.cu\n\nsource `(\w+)`", table))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from kernels.cuda.instances import instances

    old = TABLE.read_text() if TABLE.exists() and "--all" not in sys.argv else ""
    TABLE.write_text(text(instances(), old))
