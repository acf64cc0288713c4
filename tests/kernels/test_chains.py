"""Chains as kernels: functions against doubles, arrays that lie in any way, numbers of threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocupy.device.chain import Chain, Loops
from nanocupy.device.cpu import jit
from nanocupy.device.protocols import Rows
from nanocupy.kernels import chains, launches_of
from nanocupy.kernels.chains import cpu, cuda, functions
from nanocupy.kernels.chains.functions import Build

ERF = np.vectorize(math.erf, otypes=[np.float64])
FUNCTIONS: dict[
    str, tuple[Callable[..., Any], float]
] = {  # in doubles, and units of the last place
    "exp": (np.exp, 1.1),
    "expm1": (np.expm1, 2.5),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 2.5),
    "log2": (np.log2, 2.5),
    "log10": (np.log10, 2.5),
    "tanh": (np.tanh, 2.0),
    "erf": (ERF, 1.5),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 2.5),
    "silu": (lambda x: x / (1 + np.exp(-x)), 3.5),
}


def chain_of(function: Any, kinds: tuple[str, ...], out: str) -> Chain:
    build = Build(kinds)
    values = [build.load(i) for i in range(len(kinds))]
    return build.chain([(function(*values).cast(out), out)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_close_to_doubles(name: str) -> None:
    rng = np.random.default_rng(0)
    sizes = (1e-6, 1e-3, 0.1, 1, 5, 30)
    x = np.concatenate([rng.standard_normal(20_000) * s for s in sizes]).astype(np.float32)
    if name.startswith("log"):
        x = np.concatenate([np.abs(x), 10 ** rng.uniform(-44, 38, 20_000)]).astype(np.float32)
    exact, units = FUNCTIONS[name]
    got = cpu.HostChain(chain_of(getattr(functions, name), ("f32",), "f32"))(x)[0]
    with np.errstate(all="ignore"):
        want = exact(x.astype(np.float64))
    # where e**x is below the normal numbers, some of these are zero
    seen = (np.abs(want) < 3e38) & (np.abs(want) > 1e-35)
    apart = np.abs(got - want)[seen] / np.spacing(np.abs(want[seen]).astype(np.float32))
    assert apart.max() <= units
    assert np.all(np.abs(got - want)[~seen & (np.abs(want) < 1)] < 1e-35)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_at_the_edges(name: str) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-44, 200, -200, 3e38], np.float32)
    got = cpu.HostChain(chain_of(getattr(functions, name), ("f32",), "f32"))(x)[0]
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name][0](x.astype(np.float64)).astype(np.float32)
    if name == "silu":
        want[3] = np.nan  # -inf * 0
        got[3] = np.nan
    np.testing.assert_allclose(got, want, rtol=3e-7, atol=2e-44)


def mixed(x: Any, y: Any, z: Any) -> Any:
    return (x * y + z.cast("f32")).cast("f16") - y


@st.composite
def cases(draw: Any) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """Three arrays, f32, f16 and i32, that broadcast to a shape: turned, reversed, in steps."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 33]), min_size=1, max_size=4)))
    arrays = []
    for dtype in (np.float32, np.float16, np.int32):
        bits = draw(st.integers(0, 63))
        dims = [1 if bits >> i & 1 else d for i, d in enumerate(shape)]
        step = 2 if bits & 32 else 1
        full = np.random.default_rng(bits).integers(-9, 9, [d * step for d in dims]).astype(dtype)
        x = full[tuple(slice(None, None, -step if bits & 16 else step) for _ in dims)]
        arrays.append(x.T.copy().T if bits & 8 else x)
    return shape, arrays


@given(cases())
def test_arrays_may_lie_in_any_way(case: Any) -> None:
    _, (x, y, z) = case
    run = cpu.HostChain(chain_of(mixed, ("f32", "f16", "i32"), "f32"))
    half = (x * y.astype(np.float32) + z.astype(np.float32)).astype(np.float16).astype(np.float32)
    assert np.array_equal(run(x, y, z)[0], half - y)


@pytest.mark.parametrize("rows", [0, 1, 3, 7])
@pytest.mark.parametrize("width", [1, 15, 16, 40, 1000])
def test_rows_are_counted_where_a_kernel_runs(run: Any, rows: int, width: int) -> None:
    """On one, two and three threads; rows above the count are left alone."""
    rng = np.random.default_rng(width)
    x, y = rng.standard_normal((7, width)).astype(np.float32), rng.standard_normal(width)
    y = y.astype(np.float32)
    chain = chain_of(lambda a, b: functions.tanh(a) * b, ("f32", "f32"), "f32")

    def build(device: Any) -> Any:
        out = device.asarray(np.full((7, width), 7, np.float32))
        count = Rows(7, device.asarray(np.array([rows])))
        how = chains.layout((count, width), [(4 * width, 4), (0, 4)], chain.inputs)
        ins = [device.asarray(x), device.asarray(y)]
        return [launches_of(device.kind).chains.launch(device, chain, [out], ins, count, how)], [
            out
        ]

    out = run(build)[0]
    want = cpu.HostChain(chain)(x, y)[0]
    assert np.array_equal(out[:rows], want[:rows]) and np.all(out[rows:] == 7)


def test_neighbouring_dimensions_become_one() -> None:
    kinds = ("f32", "f32")
    one = chains.layout((4, 5, 6), [(120, 24, 4), (120, 24, 4)], kinds)
    assert (one.scale, one.dims, one.ways) == (30, (), ("row", "row"))
    two = chains.layout((4, 5, 6), [(120, 24, 4), (0, 24, 4)], kinds)
    assert (two.scale, two.dims, two.ways) == (1, (30,), ("row", "row"))
    three = chains.layout((1, 5, 6), [(0, 24, 4), (0, 4, 0)], kinds)
    assert (three.scale, three.dims, three.ways) == (5, (6,), ("row", "one"))
    assert chains.layout((1,), [(0,)], ("f32",)).ways == ("all",)


def test_a_kernel_is_kept_for_later_starts(tmp_path: Any, monkeypatch: Any) -> None:
    chain = chain_of(lambda x: x * 1.2345 + 0.5, ("f32",), "f32")
    kernel = cpu.kernel_of(chain, Loops(0, ("row",)))
    assert kernel.address and kernel.ready
    code = jit.cached(kernel.source)
    assert code is not None
    assert b"Py" not in code and chain.key in kernel.name
    again = type(kernel)(chain, kernel.loops)
    monkeypatch.setattr(again, "_compile", lambda: pytest.fail("compiled again"))
    monkeypatch.setattr(jit, "_loaded", {})
    assert again.address


@pytest.mark.skipif(find_spec("cupy") is None, reason="needs CuPy and NVRTC, no GPU")
def test_the_true_compiler_takes_generated_cuda() -> None:
    """A chain of every sort of step, over every way of lying."""
    from cupy.cuda import nvrtc

    from nanocupy.device.cuda.compiler import compile_file
    from nanocupy.device.cuda.toolkit import cuda_headers

    def everything(x: Any, y: Any, z: Any, b: Any) -> Any:
        floats = [getattr(functions, n)(x) for n in (*FUNCTIONS, "gelu", "rsqrt", "sign", "isinf")]
        floats += [functions.rounding(op)(y) for op in ("floor", "ceil", "trunc", "rint")]
        ints = [functions.bitwise(op)(z, z + 3) for op in ("and", "or", "xor", "shl", "shr")]
        total = functions.maximum(x, y).cast("bf16")
        for value in (*floats, *ints, ~z, -z, z.abs(), ~b, functions.where(b, x, y)):
            total = total + value.cast("f32").cast("f16")
        return total / y - functions.floor_divide(x, y)

    chain = chain_of(everything, ("f32", "bf16", "i64", "bool"), "f16")
    loops = Loops(2, ("row", "far", "one", "all"))
    source = cuda.source(chain, loops, "everything")
    made = compile_file(nvrtc, "everything", ["everything"], 80, cuda_headers(), text=source)
    assert made.code and "error" not in made.log
