"""Compiled functions: the bits of the function itself, on every device; and MLX's meaning."""

from __future__ import annotations

import gc
import io
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nanocupy.core as mx
from nanocupy.core.compiling.compiled import MAX_KINDS
from nanocupy.device.chain import Loops
from nanocupy.device.cpu.device import CpuDevice
from nanocupy.device.emulated import EmulatedDevice, unavailable
from nanocupy.kernels.chains.cuda import source as cuda_source

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 1e-40, 3e38, float("nan"), float("inf"), -float("inf"))
UNARY = (
    "abs", "negative", "square", "sqrt", "rsqrt", "reciprocal", "exp", "expm1", "log", "log1p",
    "log2", "log10", "sigmoid", "silu", "gelu_approx", "tanh", "erf", "floor", "ceil", "trunc",
    "sign", "isnan", "isinf", "isfinite", "logical_not",
)  # fmt: skip
BINARY = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "floor_divide", "logaddexp",
    "equal", "less", "greater_equal", "logical_and", "logical_or",
)  # fmt: skip
DTYPES = ("float32", "float32", "float16", "bfloat16", "int32", "uint8", "int64", "bool_")

some = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def bits(x: mx.array) -> bytes:
    """Of the values; every NaN is the same, whatever its sign."""
    value = x.numpy()
    if value.dtype.kind in "fV":
        value = np.where(np.isnan(value.astype(np.float64)), value.dtype.type(np.nan), value)
    return bytes(value.tobytes())


def same(x: mx.array, y: mx.array) -> None:
    assert x.shape == y.shape and x.dtype == y.dtype
    assert bits(x) == bits(y), (x.numpy(), y.numpy())


# ---- random chains


@st.composite
def programs(draw: Any) -> list[tuple[str, tuple[int, ...]]]:
    """[(operation, which values it takes)]: inputs are values 0 to 2, then one for each line."""
    lines: list[tuple[str, tuple[int, ...]]] = []
    for made in range(draw(st.integers(1, 8))):
        value = st.integers(0, 2 + made)
        name = draw(st.sampled_from([*UNARY, *BINARY, "where", "number", "cast", "mean", "turn"]))
        count = 3 if name == "where" else 2 if name in BINARY else 1
        lines.append((name, tuple(draw(value) for _ in range(count))))
    return lines


def follow(m: Any, lines: list[tuple[str, tuple[int, ...]]], *inputs: Any) -> list[Any]:
    """The values that a program makes; operations that a dtype does not have are left out."""
    values = list(inputs)
    for name, places in lines:
        x, *rest = (values[p] for p in places)
        try:
            values.append(_apply(m, name, x, rest))
        except ValueError:  # shapes that do not meet, negative bools
            values.append(x)
    return values[3:]


def _apply(m: Any, name: str, x: Any, rest: list[Any]) -> Any:
    if name == "number":
        return x * 0.75 + 2
    if name == "cast":
        return x.astype(m.float16 if x.dtype == m.float32 else m.float32)
    if name == "mean":  # no chain: it runs between two
        return x - m.mean(x.astype(m.float32), keepdims=True)
    if name == "turn":
        return x.T
    return getattr(m, name)(x, *rest)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> mx.array:
    """Random numbers; among floats special ones."""
    value = 3 * rng.standard_normal(shape)
    value = np.where(rng.random(shape) < 0.3, rng.choice(SPECIAL, shape), value)
    if "float" not in kind:
        value = rng.integers(0, 100, shape)
    return mx.array(np.asarray(value, np.float32)).astype(getattr(mx, kind))


@st.composite
def inputs(draw: Any, kinds: tuple[str, ...] = DTYPES, side: int = 40) -> list[mx.array]:
    """Three arrays that broadcast: some empty, some of no dimensions, some with strides."""
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, 17, side]), max_size=3)))
    out = []
    for _ in range(3):
        kept = draw(st.integers(0, 15))
        dims = tuple(1 if kept >> i & 1 else d for i, d in enumerate(shape))
        dims = dims[draw(st.integers(0, 1)) :] if kept & 8 else dims
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        x = drawn(rng, dims, draw(st.sampled_from(kinds)))
        if draw(st.booleans()) and x.ndim > 1:
            x = x.swapaxes(0, -1).astype(x.dtype) + 0 * x.swapaxes(0, -1)
            x = x.swapaxes(0, -1)
        mx.eval(x)
        out.append(x)
    return out


@given(programs(), inputs())
@some
def test_a_compiled_function_has_the_bits_of_the_function(lines: Any, arrays: Any) -> None:
    want = follow(mx, lines, *arrays)
    got = mx.compile(partial(follow, mx, lines))(*arrays)
    for x, y in zip(want, got, strict=True):
        same(x, y)


@given(programs(), inputs(side=5))
@settings(some, max_examples=25)
def test_so_has_one_on_the_cpu_device(lines: Any, arrays: Any) -> None:
    got = mx.compile(partial(follow, mx, lines), device=CpuDevice(2))(*arrays)
    for x, y in zip(follow(mx, lines, *arrays), got, strict=True):
        same(x, y)


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@pytest.mark.parametrize(
    "kinds",
    [
        ("float32", "float16", "int32"),
        ("bfloat16", "uint8", "int64"),
        ("float64", "float64", "int16"),
    ],
)
def test_and_one_in_generated_cuda(kinds: tuple[str, ...]) -> None:
    """One chain of everything, which the compiler is started for once."""
    shape, whole = (5, 3, 7), kinds[0] == "float32"

    def function(*arrays: mx.array) -> list[mx.array]:
        x, y, z = (mx.broadcast_to(a, shape) for a in arrays)
        made = [getattr(mx, name)(x) for name in (UNARY if whole else UNARY[:5])]
        made += [getattr(mx, name)(x, y) for name in (BINARY if whole else BINARY[:6])]
        made += [mx.where(x > y, x, z), x * 0.75 + 2, mx.left_shift(z, 3), ~z ^ 5, -z]
        read_all = reduce(mx.logical_or, (m.astype(mx.bool_) for m in made))
        return [*made, read_all]

    rng = np.random.default_rng(0)
    arrays = [drawn(rng, s, k) for s, k in zip((shape, (3, 1), ()), kinds, strict=True)]
    device = EmulatedDevice(order=2)
    got = mx.compile(function, device=device)(*arrays)
    for x, y in zip(function(*arrays), got, strict=True):
        same(x, y)


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@pytest.mark.parametrize("rows", [0, 1, 6])
def test_cuda_chains_broadcast_between_dense_operations(rows: int) -> None:
    def function(x: mx.array, y: mx.array) -> mx.array:
        return mx.sort(x * y + 1, axis=0) - x.reshape(rows, 1, 4) * y

    rng = np.random.default_rng(0)
    x, y = (mx.array(rng.standard_normal(s), mx.float32) for s in ((rows, 4), (4,)))
    same(mx.compile(function, device=EmulatedDevice())(x, y), function(x, y))


def test_no_two_roundings_become_one_in_cuda() -> None:
    def function(x: mx.array, y: mx.array) -> mx.array:
        return x * y + y - x / y

    for dtype, kind in ((mx.float32, "f"), (mx.float64, "d")):
        x, y = (mx.ones(3, dtype=mx.float32).astype(dtype) for _ in range(2))
        (step,) = plan_of(mx.compile(function), x, y).steps
        chain = step.attrs["run"].chain
        text = cuda_source(chain, Loops(0, ("row",) * len(chain.inputs)), "kernel")
        for name in ("add", "sub", "mul", "div"):
            assert f"__{kind}{name}_rn(" in text


# ---- against MLX


@pytest.mark.skipif(sys.platform != "linux", reason="MLX is a test dependency on Linux only")
@given(programs(), inputs(kinds=("float32", "int32", "bool_")))
@settings(some, max_examples=40)
def test_a_compiled_function_gives_what_mlx_gives(lines: Any, arrays: Any) -> None:
    import mlx.core as mlx

    other = {"gelu_approx": "sigmoid", "silu": "tanh", "sign": "square", "floor_divide": "add"}
    lines = [(other.get(n, n), p) for n, p in lines]
    theirs = [mlx.array(a.numpy()) for a in arrays]
    try:
        want = follow(mlx, lines, *theirs)
        mlx.eval(want)
    except (ValueError, RuntimeError, AttributeError):
        return
    got = mx.compile(partial(follow, mx, lines))(*arrays)
    for x, y in zip(want, got, strict=True):
        assert tuple(x.shape) == y.shape
        a, b = np.array(x.astype(mlx.float32)), y.numpy().astype(np.float32)
        close = np.isclose(a, b, 1e-3, 1e-3, equal_nan=True)
        assert close.mean() >= 0.9 if close.size else True  # what jumps may jump elsewhere


# ---- what a call is


def test_a_record_is_made_once_for_every_kind_of_call() -> None:
    calls: list[Any] = []

    @mx.compile
    def function(tree: dict[str, Any], scale: float = 1.0, *, name: str = "") -> Any:
        calls.append((tree["x"].shape, tree["x"].dtype, scale, name))
        return {"y": [tree["x"] * scale, scale], "z": None}

    x = mx.array([1.0, 2.0])
    for _ in range(2):
        assert function({"x": x})["y"][0].tolist() == [1, 2]
        assert function({"x": x}, 2.0)["y"][0].tolist() == [2, 4]
        assert function({"x": x}, 2.0, name="a")["y"][1] == 2.0
        assert function({"x": x.astype(mx.int32)}, 2)["y"][0].tolist() == [2, 4]
        assert function({"x": mx.zeros((1, 2))})["z"] is None
    assert len(calls) == 5
    with pytest.raises(ValueError, match="not object"):
        function({"x": x}, object())
    with pytest.raises(ValueError, match="dicts and lists"):
        mx.compile(lambda: None, inputs=x)()


def test_state_is_read_and_written() -> None:
    state = {"count": mx.array(1.0), "many": [mx.array([1.0, 2.0])]}

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x: mx.array) -> mx.array:
        state["count"] = state["count"] + 1
        state["many"][0] += x
        return state["many"][0] * state["count"]

    assert step(mx.array(1.0)).tolist() == [4, 6]
    assert state["count"].item() == 2 and state["many"][0].tolist() == [2, 3]
    state["count"] = mx.array(10.0)
    assert step(mx.array(1.0)).tolist() == [33, 44]
    assert state["many"][0].tolist() == [3, 4]


def test_state_may_have_one_array_in_two_places() -> None:
    one = mx.array([2.0])
    state = {"a": one, "b": one}
    function = mx.compile(lambda x: x * state["a"] - state["b"], inputs=state)
    assert function(mx.array([3.0])).item() == 4 and state["a"] is state["b"] is one
    state["b"] = mx.array([5.0])
    assert function(mx.array([3.0])).item() == 1


def test_random_numbers_are_drawn_anew_where_the_key_is_state() -> None:
    state = mx.random.state
    draw = mx.compile(lambda: mx.random.uniform(shape=(3,)), inputs=state, outputs=state)
    mx.random.seed(7)
    want = [mx.random.uniform(shape=(3,)).tolist() for _ in range(3)]
    mx.random.seed(7)
    assert [draw().tolist() for _ in range(3)] == want and want[0] != want[1]
    frozen = mx.compile(lambda: mx.random.uniform(shape=(3,)))
    assert frozen().tolist() == frozen().tolist()


def test_captured_arrays_are_constants_unless_they_are_named() -> None:
    weight = [mx.array(2.0)]
    frozen, live = (
        mx.compile(lambda x: x * weight[0]),
        mx.compile(lambda x: x * weight[0], inputs=weight),
    )
    assert frozen(mx.array(3.0)).item() == live(mx.array(3.0)).item() == 6
    weight[0] = mx.array(5.0)
    assert frozen(mx.array(3.0)).item() == 6 and live(mx.array(3.0)).item() == 15


@pytest.mark.parametrize(
    "look", [print, mx.eval, np.asarray, bool, float, lambda x: x.tolist(), lambda x: x.item()]
)
def test_values_are_not_to_be_looked_at(look: Callable[[Any], Any], capsys: Any) -> None:
    @mx.compile
    def curious(x: mx.array) -> mx.array:
        look(x * 2)
        return x

    with pytest.raises(ValueError, match="curious has no value while"):
        curious(mx.array(1.0))
    assert mx.compile(lambda x: x + mx.array([1.0]).item())(mx.array(1.0)).item() == 2


def test_what_leaves_a_function_by_another_way_says_so() -> None:
    left: list[mx.array] = []
    function = mx.compile(lambda x: (left.append(x + 1), x)[1])
    assert function(mx.array(1.0)).item() == 1
    with pytest.raises(ValueError, match="`outputs`"):
        left[0].item()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_sums_have_the_same_bits_however_their_terms_lie(dtype: str) -> None:
    def function(x: mx.array) -> list[mx.array]:
        turned = (x * 3).T
        values = [turned + turned, turned.astype(mx.float32), mx.where(x > 0, x, 1).T * 1, -turned]
        return [v.sum(axis=axis) for v in (*values, mx.exp(turned)) for axis in (0, 1)]

    x = mx.array(np.random.default_rng(0).standard_normal((40, 37)), mx.float32)
    x = x.astype(getattr(mx, dtype))
    for a, b in zip(function(x), mx.compile(function)(x), strict=True):
        same(a, b)


def test_what_is_captured_is_computed_once() -> None:
    large = mx.array(np.random.default_rng(0).random((600, 600), np.float32))
    weight = mx.cumsum(large, axis=0)  # not computed yet, and larger than what is folded
    function = mx.compile(lambda x: x @ weight)
    first = function(mx.ones((2, 600)))
    mx.eval(first, weight)
    same(first, function(mx.ones((2, 600))))
    assert names(first_plan := plan_of(function, mx.ones((2, 600)))) == ["matmul"], first_plan.steps


def test_what_is_recorded_may_be_computed_elsewhere() -> None:
    left: list[mx.array] = []
    large = mx.array(np.random.default_rng(0).random((600, 600), np.float32))
    function = mx.compile(lambda x: (left.append(mx.cumsum(large, axis=0)), x @ left[-1])[1])
    first = function(mx.ones((2, 600)))
    mx.eval(first, left)
    same(first, function(mx.ones((2, 600))))


def test_arrays_made_of_a_shape_bind_a_record_to_it() -> None:
    function = mx.compile(lambda x: x + mx.ones_like(x).sum(), shapeless=True)
    assert function(mx.zeros((1, 1))).tolist() == [[1]]
    assert function(mx.zeros((2, 2))).tolist() == [[4, 4], [4, 4]]
    normal = mx.compile(lambda x: mx.fast.rms_norm(x, None, 1e-5), shapeless=True)
    for size in (3, 5):
        same(normal(mx.ones((2, size))), mx.fast.rms_norm(mx.ones((2, size)), None, 1e-5))


def test_state_has_no_places_of_a_function_that_failed() -> None:
    state: dict[str, Any] = {"old": mx.array(1.0), "inner": {}}

    def fails(x: mx.array) -> None:
        state["old"] = state["new"] = state["inner"]["new"] = x
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        mx.compile(fails, outputs=state)(mx.array(2.0))
    assert state["old"].item() == 1 and [*state] == ["old", "inner"] and not state["inner"]
    assert mx.compile(lambda x: x + 1)(mx.array(1.0)).item() == 2


def in_threads(work: Callable[[int], Any], count: int = 4) -> list[Any]:
    """work(0), work(1), ... at once, switching as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, range(count)))
    finally:
        sys.setswitchinterval(before)


def test_threads_may_call_what_is_being_recorded() -> None:
    for _ in range(10):
        state = {"weight": mx.array(np.full(300, 2.0, np.float32))}

        def follow(x: mx.array, state: Any = state) -> mx.array:
            for _ in range(20):
                x = x * state["weight"] / 2 + 0
            return x

        functions = [mx.compile(partial(follow), inputs=state) for _ in range(2)]
        results = in_threads(lambda i, f=functions: f[i % 2](mx.full((300,), i)).numpy())
        for i, result in enumerate(results):
            assert np.all(result == i)


def test_threads_may_compute_the_same_arrays() -> None:
    for _ in range(30):
        x, y = mx.compile(lambda x: (mx.exp(x) + 1, x * 2))(mx.zeros(300))
        total = x + y
        for result in in_threads(lambda _, t=total, x=x: t.numpy() + x.numpy()):
            assert np.all(result == 4)


def test_threads_have_a_device_one_after_the_other() -> None:
    function = mx.compile(lambda x: mx.exp(x) * 2 + x, device=CpuDevice(2))
    inputs = [mx.full((300,), float(i)) for i in range(4)]
    wanted = [(mx.exp(x) * 2 + x).numpy() for x in inputs]
    function(inputs[0]).numpy()

    def work(i: int) -> bool:
        return all(np.array_equal(function(inputs[i]).numpy(), wanted[i]) for _ in range(200))

    assert all(in_threads(work))


def test_one_record_serves_all_shapes_where_it_can() -> None:
    calls: list[Any] = []

    def function(x: mx.array) -> list[mx.array]:
        calls.append(x.shape)
        return [mx.exp(x) + x.sum(axis=-1, keepdims=True), x.T * 2]

    bound = mx.compile(lambda x: (calls.append(x.shape), x.reshape(-1) + 1)[1], shapeless=True)
    free = mx.compile(function, shapeless=True)
    for shape in ((2, 3), (4, 1), (1, 5), (0, 2)):
        x = mx.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        for a, b in zip(function(x), free(x), strict=True):
            same(a, b)
        assert bound(x).shape == (shape[0] * shape[1],)
    assert calls.count((2, 3)) == 3 and len(calls) == 4 + 1 + 4
    free(mx.zeros(3))
    assert calls[-1] == (3,)


def test_compiled_functions_nest_and_can_be_switched_off() -> None:
    inner = mx.compile(lambda x: x * 2)
    outer = mx.compile(lambda x: inner(x) + 1)
    assert outer(mx.array([1.0])).item() == 3
    seen: list[bool] = []
    mx.disable_compile()
    try:
        mx.compile(lambda x: (seen.append(x.item() == 1), x)[1])(mx.array(1.0))
    finally:
        mx.enable_compile()
    assert seen == [True]


# ---- what is made of it


def plan_of(function: Any, *arrays: mx.array) -> Any:
    node = function(*arrays).node
    return node.attrs["schedule"]


def names(plan: Any) -> list[str]:
    return [step.node.attrs.get("names", step.node.op.name) for step in plan.steps]


def test_equal_parts_are_done_once_and_dead_ones_not_at_all() -> None:
    def function(x: mx.array) -> mx.array:
        _ = mx.softmax(x)
        return (x * 2 + 1) * (x * 2 + mx.exp(mx.array(0.0)))

    assert names(plan_of(mx.compile(function), mx.array([1.0]))) == ["multiply add multiply"]


def test_dense_operations_stand_between_chains() -> None:
    def function(x: mx.array) -> mx.array:
        return mx.sort(x * 2 + 1) - mx.exp(x)

    plan = plan_of(mx.compile(function), mx.array([1.0, 2.0]))
    assert names(plan) == ["multiply add", "sort", "exp subtract"]


def test_no_chain_runs_through_what_needs_its_result() -> None:
    """x -> sort -> with x again: the chain that makes x cannot be the one that ends."""

    def function(x: mx.array) -> mx.array:
        y = x * 2
        return mx.sort(y) + y

    plan = plan_of(mx.compile(function), mx.array([1.0, 2.0]))
    assert names(plan) == ["multiply", "sort", "add"]


def test_what_is_smaller_is_computed_before_and_once() -> None:
    plan = plan_of(mx.compile(lambda x, s: x * mx.exp(s + 1)), mx.zeros((8, 8)), mx.zeros((8, 1)))
    assert names(plan) == ["add exp", "multiply"]


def test_large_outputs_go_past_the_caches_with_the_same_bits() -> None:
    x = mx.array(np.random.default_rng(0).standard_normal(5_000_017).astype(np.float32))
    function = lambda x: mx.tanh(x) * 3 - x  # noqa: E731
    same(mx.compile(function)(x), function(x))


# ---- memory


def test_a_donated_argument_is_gone_and_its_memory_used() -> None:
    double = mx.compile(lambda x, y: x * 2 + y, donate=(0,))
    x = mx.array(np.arange(6, dtype=np.float32).copy())
    x = mx.compile(lambda x: x + 0)(x)
    mx.eval(x)
    where, other = x.node.attrs["value"].ctypes.data, mx.array(1.0)
    y = double(x, other)
    assert y.node.attrs["value"].ctypes.data == where
    assert y.tolist() == [1, 3, 5, 7, 9, 11] and other.item() == 1
    with pytest.raises(ValueError, match="donated"):
        x.tolist()
    with pytest.raises(ValueError, match="donated"):
        (x + 1).item()
    assert mx.compile(mx.cumsum, donate=(0,))(mx.array([3e38, 3e38])).tolist()[1] == mx.inf
    z = mx.array([1.0])
    assert mx.compile(lambda x, y: x + y, donate=(0, 1))(z, z).item() == 2


def test_memory_that_somebody_sees_is_not_donated() -> None:
    double = mx.compile(lambda x: x * 2, donate=(0,))
    for see in (lambda x: x.numpy(), lambda x: x[1:], lambda x: x.T):
        x = mx.compile(lambda x: x + 0)(mx.array(np.ones((4, 4), np.float32)))
        mx.eval(x)
        seen = see(x)
        mx.eval(seen)
        double(x)
        assert np.all(np.asarray(seen) == 1)


def test_memory_that_is_not_numpys_is_not_donated() -> None:
    memory = bytearray(np.ones(64, np.float32).tobytes())
    x = mx.array(np.frombuffer(memoryview(memory), np.float32))
    y = mx.compile(lambda x: x + 1, donate=(0,))(x)
    assert set(memory) == {*np.ones(1, np.float32).tobytes()} and y.tolist() == [2] * 64


def test_memory_figures_are_those_of_arrays() -> None:
    mx.clear_cache()
    before, size = mx.get_active_memory(), 1 << 20

    def now() -> int:
        return (mx.get_active_memory() - before) // size

    x = mx.array(np.zeros(size, np.float32))
    assert now() == 4
    y = x + 1
    view = y[: size // 2]
    mx.eval(y, view)
    assert now() == 8
    del y
    assert now() == 8  # the part holds the whole
    mx.reset_peak_memory()
    twice = mx.compile(lambda v: mx.exp(v) * 2)
    z = twice(x)
    mx.eval(z)
    assert (mx.get_peak_memory() - before) // size == 12
    del view, z
    assert now() == 4 and mx.get_cache_memory() == 4 * size
    z = twice(x)
    mx.eval(z)
    assert mx.get_cache_memory() == 0
    old = mx.set_cache_limit(0)
    del z
    assert mx.get_cache_memory() == 0 and mx.set_cache_limit(old) == 0
    limit = mx.set_memory_limit(10**9)
    assert mx.get_memory_limit() == 10**9 and mx.set_memory_limit(limit) == 10**9
    with pytest.raises(ValueError, match="set_memory_limit"):
        mx.set_memory_limit(-1)


# ---- for people


def test_graphs_and_kernels_are_printed(monkeypatch: Any, capsys: Any) -> None:
    for level, least in ((1, "fused[multiply add]"), (2, "GB/s"), (3, "define i64")):
        monkeypatch.setenv("NANOCUPY_DEBUG", str(level))
        for device in (None, CpuDevice(1)):
            mx.compile(lambda x: x * 2 + 1, device=device)(mx.array([1.0, 2.0])).tolist()
            said = capsys.readouterr().err
            assert least in said and (level < 2 or ("at most" in said) == (device is not None))
    monkeypatch.setenv("NANOCUPY_DEBUG", "high")
    with pytest.raises(ValueError, match="NANOCUPY_DEBUG"):
        mx.compile(lambda x: x + 1)(mx.array(1.0))


def test_graphs_are_written_as_dot(tmp_path: Any) -> None:
    x = mx.array([1.0])
    mx.export_to_dot(tmp_path / "graph.dot", [mx.exp(x + 1)], result=x * 2)
    text = (tmp_path / "graph.dot").read_text()
    assert text.startswith("digraph {") and text.endswith("}\n")
    assert all(f'label="{name}"' in text for name in ("add", "exp", "multiply"))
    assert '"result"' in text and text.count("rectangle") == 3
    buffer = io.StringIO()
    mx.export_to_dot(buffer, x)
    assert "float32[1]" in buffer.getvalue()
    with pytest.raises(ValueError, match="no arrays"):
        mx.export_to_dot(buffer)


def test_bfloat16_is_rounded_between_the_operations_of_a_chain() -> None:
    x = mx.array(np.linspace(0, 3, 1001, dtype=np.float32)).astype(mx.bfloat16)
    got = mx.compile(lambda x: (x * 1.1 + x) * x)(x).numpy()
    v = x.numpy()
    step = (v.astype(np.float32) * np.float32(ml_dtypes.bfloat16(1.1))).astype(ml_dtypes.bfloat16)
    step = (step.astype(np.float32) + v.astype(np.float32)).astype(ml_dtypes.bfloat16)
    want = (step.astype(np.float32) * v.astype(np.float32)).astype(ml_dtypes.bfloat16)
    assert np.array_equal(got, want)


def test_the_plans_that_are_kept_are_those_used_last() -> None:
    """A number in a call makes it another kind: with one for every step, plans would pile up."""
    recorded, alive = [], []

    def function(x: mx.array, k: float) -> mx.array:
        recorded.append(k)
        value = mx.array(np.full(3, k))
        alive.append(weakref.ref(value.node.attrs["value"]))
        return x + value

    call, x = mx.compile(function), mx.array([1.0, 2.0, 3.0])
    for k in range(MAX_KINDS + 40):
        assert call(x, float(k)).tolist() == [1 + k, 2 + k, 3 + k]
        assert call(x, 0.0).tolist() == [1.0, 2.0, 3.0]  # used all the time: recorded once
    assert recorded == [float(k) for k in range(MAX_KINDS + 40)]
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= MAX_KINDS
    assert call(x, 1.0).tolist() == [2.0, 3.0, 4.0]  # gone, and recorded anew
    assert len(recorded) == MAX_KINDS + 41


def test_records_of_all_shapes_are_bounded_too() -> None:
    recorded = []

    def function(x: mx.array, k: int) -> mx.array:
        recorded.append(k)
        return x * k

    call = mx.compile(function, shapeless=True)
    for k in range(MAX_KINDS + 5):
        for length in (2, 3):
            assert call(mx.ones(length), k).tolist() == [k] * length
    assert recorded == list(range(MAX_KINDS + 5))
    call(mx.ones(4), 0)
    assert recorded[-1] == 0
