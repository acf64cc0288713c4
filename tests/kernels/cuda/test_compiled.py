"""The true compiler takes every kernel: nothing spills, and the table in docs is of these sources.

Needs CuPy and NVRTC, no GPU: pip install 'nanocupy[cuda-check]'. In CI they must be there.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from kernels.cuda.compiled import LIMITS, TABLE, Cost, compile_all, hashes, parse, warps
from kernels.cuda.instances import instances
from nanocupy.device.cuda import sources
from nanocupy.device.protocols import Launch

needs_cupy = pytest.mark.skipif(
    find_spec("cupy") is None and os.environ.get("CI") != "true",
    reason="needs CuPy and NVRTC: pip install 'nanocupy[cuda-check]'",
)
ARCHS = (80,)  # docs/cuda_kernels.md has all
LEAST_WARPS = 8  # of one multiprocessor: enough to keep reads under way while others wait


def test_the_table_is_of_these_sources() -> None:
    want = {path.stem: sources.source_hash(path.stem)
            for path in sorted(sources.kernel_folder().glob("*.cu"))}  # fmt: skip
    assert hashes(TABLE.read_text()) == want, "run tests/kernels/cuda/compiled.py"


def test_no_kernel_is_left_out() -> None:
    files = {path.stem for path in sources.kernel_folder().glob("*.cu")}
    assert set(instances()) == files


@needs_cupy
@pytest.mark.slow
def test_nothing_spills_and_enough_fits() -> None:
    kernels = instances()
    for (file, arch), costs in compile_all(kernels, ARCHS).items():
        for expression, cost in costs.items():
            launch = kernels[file][expression]
            assert cost.spills == 0, (expression, cost)
            assert cost.registers * launch.block <= 65536, (expression, cost)
            assert warps(cost, launch, arch) >= LEAST_WARPS, (expression, cost)


def test_what_ptxas_says() -> None:
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3addPf' for 'sm_80'
ptxas info    : Function properties for _Z3addPf
    8 bytes stack frame, 16 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_Z3mulPf' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, 400 bytes cmem[0]
"""
    assert parse(log) == {"_Z3addPf": Cost(40, 512, 20, 8), "_Z3mulPf": Cost(255, 0, 0, 0)}


def test_occupancy() -> None:
    """Against NVIDIA's own calculator."""
    launch = Launch(None, (), block=256)
    assert warps(Cost(32, 0, 0, 0), launch, 80) == 64
    assert warps(Cost(64, 0, 0, 0), launch, 80) == 32
    assert warps(Cost(65, 0, 0, 0), launch, 80) == 24  # 72 registers are taken
    assert warps(Cost(32, 48 << 10, 0, 0), launch, 80) == 24
    assert warps(Cost(32, 0, 0, 0), launch, 89) == LIMITS[89].warps
