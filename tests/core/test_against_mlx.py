"""Every operation against MLX itself: shapes, strides, dtypes, broadcasting, no elements, NaN.

See also the other tests that import `beside_mlx`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beside_mlx import ALL, FLOATS, SPECIAL, Pair, both, ours, theirs, words

VIEWS = ("", "", "turned", "reversed", "steps")
SHAPED = ("", "reversed")  # views that leave a shape as it is

some = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
many = settings(some, max_examples=100)


# ---- arrays to draw


def shapes(most: int = 3, least: int = 0, side: int = 4, empty: bool = True) -> Any:
    return st.lists(st.integers(0 if empty else 1, side), min_size=least, max_size=most).map(tuple)


@st.composite
def pairs(
    draw: Any, dtypes: Sequence[str] = ALL, shape: Any = None, special: bool = True,
    views: Sequence[str] = VIEWS,
) -> Pair:  # fmt: skip
    """
    Args:
        special: NaN, infinities and zeros among the floats.
        views: what may be done to the array: its shape is the drawn one only with "" and
            "reversed".
    """
    dims = draw(shapes() if shape is None else shape)
    dtype = draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    if dtype in FLOATS:
        values = np.where(
            rng.random(dims) < (0.3 if special else 0),
            rng.choice(SPECIAL, dims),
            rng.normal(0, 2, dims),
        )
    else:
        values = rng.integers(0 if dtype.startswith("u") else -7, 8, dims)
        values = values > 0 if dtype == "bool_" else values
    return Pair(np.asarray(values), dtype, draw(st.sampled_from(views)))


def broadcasting(shape: tuple[int, ...], bits: int) -> tuple[int, ...]:
    """A shape that broadcasts with this one: some dimensions of one, some in front left out."""
    dims = [1 if bits >> i & 1 else d for i, d in enumerate(shape)]
    return tuple(dims[bits % 3 :]) if bits & 8 else tuple(dims)


# ---- elementwise

UNARY = words(
    "abs arccos arccosh arcsin arcsinh arctan arctanh ceil cos cosh degrees erf erfinv exp "
    "expm1 floor isfinite isinf isnan isneginf isposinf log log10 log1p log2 logical_not "
    "nan_to_num negative positive radians reciprocal round rsqrt sigmoid sign sin sinh sqrt "
    "square stop_gradient tan tanh trunc bitwise_invert ones_like zeros_like"
)
BINARY = words(
    "add subtract multiply divide maximum minimum power floor_divide remainder logaddexp "
    "arctan2 equal not_equal less less_equal greater greater_equal logical_and logical_or "
    "logical_xor bitwise_and bitwise_or bitwise_xor left_shift right_shift divmod isclose "
    "allclose array_equal"
)
BY_INT = ("floor_divide", "remainder", "divmod", "left_shift", "right_shift", "power")


@pytest.mark.parametrize("name", UNARY)
@given(x=pairs())
@some
def test_of_one_array(name: str, x: Pair) -> None:
    both(lambda mx, of: getattr(mx, name)(of(x)))


@pytest.mark.parametrize("name", BINARY)
@given(st.data())
@many
def test_of_two_arrays(name: str, data: Any) -> None:
    whole = name in ("allclose", "array_equal")  # a reduction: see test_reductions_of_nothing
    x = data.draw(pairs(shape=shapes(empty=not whole), special=name != "power"))
    shape = broadcasting(x.ours.shape, data.draw(st.integers(0, 15)))
    y = data.draw(pairs(shape=st.just(shape), views=SHAPED))
    if name in BY_INT and "float" not in str((x.ours + y.ours).dtype):
        # zero divides nothing; MLX leaves it open what comes out, as of a negative power or shift
        y = Pair(np.abs(y.ours.numpy().astype(np.int64)) % 7 + 1, "uint8")
    both(lambda mx, of: getattr(mx, name)(of(x), of(y)))


@pytest.mark.parametrize("number", [2, -1.5, True, float("nan")])
@given(x=pairs())
@some
def test_of_an_array_and_a_number(number: Any, x: Pair) -> None:
    for call in (
        lambda mx, of: of(x) + number,
        lambda mx, of: number * of(x),
        lambda mx, of: mx.maximum(of(x), number),
        lambda mx, of: of(x) < number,
        lambda mx, of: mx.where(of(x), of(x), number),
        lambda mx, of: mx.clip(of(x), None, number),
    ):
        if not (isinstance(number, float) and number < 0 and "uint" in str(x.ours.dtype)):
            both(call)


@given(st.data())
@many
def test_where_and_clip(data: Any) -> None:
    x = data.draw(pairs())
    shape = x.ours.shape
    y, c, low = (
        data.draw(
            pairs(shape=st.just(broadcasting(shape, data.draw(st.integers(0, 7)))), views=SHAPED)
        )
        for _ in range(3)
    )
    both(lambda mx, of: mx.where(of(c), of(x), of(y)))
    both(lambda mx, of: mx.clip(of(x), of(low), of(y)))
    both(lambda mx, of: mx.nan_to_num(of(x), 3.0, 4.0, -5.0))
    both(lambda mx, of: mx.round(of(x), data.draw(st.shared(st.integers(0, 2), key="decimals"))))
    both(lambda mx, of: mx.isclose(of(x), of(y), equal_nan=True))


# ---- reductions, scans, order

REDUCTIONS = words("sum prod mean max min all any var std logsumexp count_nonzero minmax median")
SCANS = words("cumsum cumprod cummax cummin logcumsumexp")


def axes(ndim: int) -> Any:
    """None, an axis, or some of them."""
    one = st.integers(-ndim, ndim - 1) if ndim else st.nothing()
    return st.none() | one | st.lists(one, max_size=ndim, unique_by=lambda a: a % max(ndim, 1))


def one_axis(x: Pair) -> Any:
    """None or an axis."""
    ndim = x.ours.ndim
    return st.none() | st.integers(-ndim, ndim - 1) if ndim else st.none()


@pytest.mark.parametrize("name", REDUCTIONS)
@given(st.data())
@some
def test_reductions(name: str, data: Any) -> None:
    # MLX gives infinity for the logsumexp of uint64
    kinds = FLOATS if name == "logsumexp" else ALL
    x = data.draw(pairs(kinds, shapes(empty=False), special=name != "median"))
    axis, keep = data.draw(axes(x.ours.ndim)), data.draw(st.booleans())
    axis = None if name == "median" and axis == [] else axis  # which MLX cannot
    both(lambda mx, of: getattr(mx, name)(of(x), axis=axis, keepdims=keep))


def test_reductions_of_nothing() -> None:
    """MLX is not asked: it may loop for ever over no elements, or give what lay in memory."""
    x = ours.zeros((2, 0))
    assert x.sum().item() == 0 and x.prod().item() == 1 and np.isnan(x.mean().item())
    assert x.all().item() and not x.any().item() and x.sum(1).tolist() == [0, 0]
    assert x.max(0).shape == (0,)
    for name in ("max", "min", "logsumexp", "median", "argmax"):
        with pytest.raises(ValueError, match="no elements"):
            getattr(ours, name)(x, axis=1)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(st.data())
@some
def test_where_the_largest_is(name: str, data: Any) -> None:
    x = data.draw(pairs())
    axis, keep = data.draw(one_axis(x)), data.draw(st.booleans()) and x.ours.ndim > 0
    both(lambda mx, of: getattr(mx, name)(of(x), axis=axis, keepdims=keep))


@pytest.mark.parametrize("name", SCANS)
@given(st.data())
@some
def test_scans(name: str, data: Any) -> None:
    # MLX's running maxima of 16-bit floats forget a NaN
    x = data.draw(st.one_of(pairs(("float32",)), pairs(special=False)))
    axis = data.draw(one_axis(x))
    how = {"reverse": data.draw(st.booleans()), "inclusive": data.draw(st.booleans())}
    both(lambda mx, of: getattr(mx, name)(of(x), axis, **how), loose=True)


@given(st.data())
@many
def test_order(data: Any) -> None:
    x = data.draw(pairs())
    axis = data.draw(one_axis(x))
    both(lambda mx, of: mx.sort(of(x), axis))
    both(lambda mx, of: mx.argsort(of(x), axis))
    length = x.ours.size if axis is None else x.ours.shape[axis]
    if length:
        k = data.draw(st.integers(0, length - 1))
        both(lambda mx, of: mx.sort(mx.topk(of(x), k, axis), -1 if axis is None else axis))


def test_axes_that_are_not_there_are_refused() -> None:
    x = Pair(np.ones((2, 3)), "float32")
    for name in (*REDUCTIONS, *SCANS, "argmax", "sort", "argsort", "softmax", "flip", "squeeze"):
        for axis in (2, -3):
            both(lambda mx, of, name=name, axis=axis: getattr(mx, name)(of(x), axis=axis))


@given(pairs(FLOATS, shapes(empty=False)), st.booleans(), st.data())
@some
def test_softmax(x: Pair, precise: bool, data: Any) -> None:
    axis = data.draw(axes(x.ours.ndim))
    both(lambda mx, of: mx.softmax(of(x), axis, precise=precise))


@given(
    pairs(("int32", "float32", "uint8"), special=False), pairs(("int32", "float32"), special=False)
)
@some
def test_searchsorted(x: Pair, values: Pair) -> None:
    for side in ("left", "right"):
        both(
            lambda mx, of, side=side: mx.searchsorted(
                mx.sort(mx.flatten(of(x))), of(values), side=side
            )
        )


# ---- layout


@given(st.data())
@many
def test_dimensions_come_and_go(data: Any) -> None:
    x = data.draw(pairs(shape=shapes(4, side=3)))
    a, b = (data.draw(st.integers(-4, 3)) for _ in range(2))
    both(lambda mx, of: mx.moveaxis(of(x), a, b))
    both(lambda mx, of: mx.swapaxes(of(x), a, b))
    both(lambda mx, of: mx.flatten(of(x), a, b))
    both(lambda mx, of: mx.transpose(of(x), None))
    both(lambda mx, of: mx.expand_dims(of(x), a))
    both(lambda mx, of: mx.squeeze(of(x), a))
    both(lambda mx, of: mx.squeeze(of(x)))
    both(lambda mx, of: mx.unflatten(mx.flatten(of(x)), 0, of(x).shape))
    both(lambda mx, of: [mx.atleast_1d(of(x)), mx.atleast_2d(of(x)), mx.atleast_3d(of(x))])
    both(lambda mx, of: [of(x).T, mx.matrix_transpose(of(x)), mx.flip(of(x))])
    both(lambda mx, of: mx.flip(of(x), a))
    both(lambda mx, of: mx.unstack(of(x), axis=a))
    both(lambda mx, of: mx.broadcast_to(of(x), (2, *of(x).shape)))


@given(st.data())
@many
def test_what_is_repeated_and_joined(data: Any) -> None:
    x = data.draw(pairs())
    y = data.draw(pairs(shape=st.just(x.ours.shape), views=SHAPED))
    a, n, shift = (
        data.draw(st.integers(-3, 2)),
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(-5, 5)),
    )
    both(lambda mx, of: mx.stack([of(x), of(y)], a))
    both(lambda mx, of: mx.concatenate([of(x), of(y), of(x)], a))
    both(lambda mx, of: mx.concatenate([of(x), of(y)], None))
    both(lambda mx, of: mx.repeat(of(x), n, a))
    both(lambda mx, of: mx.repeat(of(x), n))
    both(lambda mx, of: mx.tile(of(x), n))
    both(lambda mx, of: mx.tile(of(x), (n, 1, 2, 1)))
    both(lambda mx, of: mx.roll(of(x), shift, a))
    both(lambda mx, of: mx.roll(of(x), shift))
    both(lambda mx, of: mx.broadcast_arrays(of(x), of(y)))
    both(lambda mx, of: mx.meshgrid(mx.flatten(of(x)), mx.flatten(of(y))))
    both(
        lambda mx, of: mx.meshgrid(mx.flatten(of(x)), mx.flatten(of(y)), sparse=True, indexing="ij")
    )
    if x.ours.size:
        both(lambda mx, of: mx.kron(of(x), of(y)))


@given(st.data())
@many
def test_parts_and_surroundings(data: Any) -> None:
    x = data.draw(pairs())
    k, a, n = (data.draw(st.integers(*r)) for r in ((-3, 3), (-3, 2), (1, 3)))
    both(lambda mx, of: mx.pad(of(x), n))
    both(lambda mx, of: mx.pad(of(x), (n, 0), constant_values=3))
    if x.ours.size:
        both(lambda mx, of: mx.pad(of(x), [(n, 1)] * of(x).ndim, "edge"))
    both(lambda mx, of: [mx.tril(of(x), k), mx.triu(of(x), k)])
    both(lambda mx, of: mx.split(of(x), n, a))
    both(lambda mx, of: mx.split(of(x), [1, 2], a))
    both(lambda mx, of: mx.diff(of(x), axis=a))
    if x.ours.ndim < 3:
        both(lambda mx, of: mx.diag(of(x), k))
    if x.ours.ndim > 1 and x.ours.size:
        both(lambda mx, of: mx.diagonal(of(x), k))
        both(lambda mx, of: mx.trace(of(x), min(k, 0)))


@given(pairs(("float32", "int16", "uint8", "float16"), shapes(3, 1), special=False))
@some
def test_bytes_seen_as_another_dtype(x: Pair) -> None:
    for dtype in ("int8", "float16", "uint32"):
        both(
            lambda mx, of, dtype=dtype: mx.view(mx.contiguous(of(x)), getattr(mx, dtype)).astype(
                mx.float32
            )
        )


def test_strides() -> None:
    x = Pair(np.arange(12), "int32")
    both(lambda mx, of: mx.as_strided(of(x), (3, 4), (1, 2), 1))
    both(lambda mx, of: mx.as_strided(mx.transpose(mx.reshape(of(x), (3, 4))), (2, 2), (5, 1), 2))
    both(lambda mx, of: mx.as_strided(of(x), (2, 6)))
    with pytest.raises(ValueError, match="as_strided"):
        ours.as_strided(x.ours, (3, 4), (4, 2))


# ---- indices


@st.composite
def keys(draw: Any, shape: tuple[int, ...], none: bool = True) -> Any:
    """A key for an array of this shape, with lists for arrays: see `arrays`."""
    parts: list[Any] = []
    length = draw(st.integers(1, 3))
    for size in shape:
        kinds = ["slice", "all", *(["int", "array"] if size else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "int":
            parts.append(draw(st.integers(-size, size - 1)))
        elif kind == "array":
            index = st.lists(st.integers(-size, size - 1), min_size=length, max_size=length)
            parts.append(draw(index))
        elif kind == "all":
            parts.append(slice(None))
        else:
            ends = st.none() | st.integers(-size - 1, size + 1)
            step = draw(st.sampled_from([None, 1, 2, -1, -2]))
            parts.append(slice(draw(ends), draw(ends), step))
    cut = draw(st.integers(0, len(parts)))
    if cut < len(parts) and draw(st.booleans()):
        gone = draw(st.integers(cut, len(parts)))
        parts[cut:gone] = [...]
    if none and draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    return tuple(parts)


def arrays(mx: Any, key: Any) -> Any:
    return tuple(mx.array(p) if isinstance(p, list) else p for p in key)


@given(st.data())
@settings(many, max_examples=200)
def test_indexing(data: Any) -> None:
    x = data.draw(pairs(shape=shapes(4)))
    key = data.draw(keys(x.ours.shape))
    if not x.ours.size and any(isinstance(part, list) for part in key):
        return  # MLX gives some other shape
    both(lambda mx, of: of(x)[arrays(mx, key)])


def test_keys_that_are_no_tuples() -> None:
    x = Pair(np.arange(24).reshape(2, 3, 4), "float16")
    for key in (0, -1, [1, 0], None, ..., slice(1, None), slice(None, None, -1)):
        both(lambda mx, of, key=key: of(x)[key])
    both(lambda mx, of: of(x)[mx.array([[0, 1], [1, 1]])])
    both(lambda mx, of: of(x)[mx.array(1), :, mx.array([2, 3], mx.uint8)])
    both(lambda mx, of: [a[0] for a in of(x)])
    with pytest.raises(IndexError, match="ints or bools"):
        x.ours[x.ours]


@given(st.data())
@settings(many, max_examples=200)
def test_assignment_and_updates(data: Any) -> None:
    x = data.draw(
        pairs(("float32", "float16", "int32"), shape=shapes(3, 1, empty=False), special=False)
    )
    key = data.draw(keys(x.ours.shape, none=False))  # which MLX loses on the way
    part = x.ours[arrays(ours, key)]
    if not part.size:  # MLX divides by it
        return
    one = data.draw(
        pairs(
            ("float32", "int32"), st.just(broadcasting(part.shape, 1)), special=False, views=SHAPED
        )
    )
    how = data.draw(st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum", "set"]))

    def change(mx: Any, of: Any) -> Any:
        if how != "set":
            return getattr(of(x).at[arrays(mx, key)], how)(of(one))
        changed = mx.array(of(x))
        # the first of an index that comes twice is as good as the last
        changed[arrays(mx, key)] = mx.sum(of(one)) * 0 + 3
        return changed

    both(change)


def test_updates_divide_and_masks_assign() -> None:
    x = Pair(np.arange(1, 7).reshape(2, 3), "float32")
    both(lambda mx, of: of(x).at[mx.array([0, 0]), 1:].divide(4))
    both(lambda mx, of: of(x).at[1].divide(mx.array([1, 2, 4])))

    def masked(mx: Any, of: Any) -> Any:
        y = mx.array(of(x))
        y[y > 2] = -1
        y[mx.array([True, False])] = 7.0
        return y

    both(masked)


@given(st.data())
@many
def test_take_and_put(data: Any) -> None:
    x = data.draw(pairs(shape=shapes(3, 1, empty=False), views=SHAPED))
    axis = data.draw(st.integers(-x.ours.ndim, x.ours.ndim - 1))
    size = x.ours.shape[axis]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    index = Pair(rng.integers(-size, size, (2, 2)), "int32")
    both(lambda mx, of: mx.take(of(x), of(index), axis))
    both(lambda mx, of: mx.take(of(x), of(index) % size))
    both(lambda mx, of: mx.take(of(x), 0, axis))
    shape = [*x.ours.shape]
    shape[axis] = 2
    along = Pair(np.argsort(rng.random(shape), axis) % size, "int32")
    both(lambda mx, of: mx.take_along_axis(of(x), of(along), axis))
    both(lambda mx, of: mx.put_along_axis(of(x), of(along), mx.array(3), axis))
    flat = Pair(rng.permutation(x.ours.size)[:3], "uint32")
    both(lambda mx, of: mx.take_along_axis(of(x), of(flat), None))
    both(lambda mx, of: mx.put_along_axis(of(x), of(flat), mx.array(2), None))


def test_slices_that_start_where_an_array_says() -> None:
    x = Pair(np.arange(24).reshape(4, 6), "int32")
    both(lambda mx, of: mx.slice(of(x), mx.array([1, 2]), (0, 1), (2, 3)))
    both(lambda mx, of: mx.slice(of(x), mx.array([2]), (1,), (4, 2)))
    both(lambda mx, of: mx.slice_update(of(x), mx.ones((2, 2)), mx.array([1, 3]), (0, 1)))


# ---- creation


@pytest.mark.parametrize("dtype", [None, *FLOATS, "int32", "uint8"])
def test_creation(dtype: str | None) -> None:
    def kind(mx: Any) -> Any:
        return dtype if dtype is None else getattr(mx, dtype)

    for call in (
        lambda mx, of: mx.arange(5, dtype=kind(mx)),
        lambda mx, of: mx.arange(2, 9, 3, dtype=kind(mx)),
        lambda mx, of: mx.arange(9, 2, -3, dtype=kind(mx)),
        lambda mx, of: mx.arange(0.5, 3, dtype=kind(mx)),
        lambda mx, of: mx.arange(3, 1, dtype=kind(mx)),
        lambda mx, of: mx.linspace(0, 5, 4, dtype=kind(mx) or mx.float32),
        lambda mx, of: mx.linspace(1, 2, 1),
        lambda mx, of: mx.linspace(0, 1, 5, endpoint=False),
        lambda mx, of: mx.eye(3, dtype=kind(mx) or mx.float32),
        lambda mx, of: mx.eye(2, 4, 1),
        lambda mx, of: mx.identity(2),
        lambda mx, of: mx.tri(3, 4, -1, dtype=kind(mx) or mx.float32),
        lambda mx, of: mx.full((2, 3), 7, dtype=kind(mx)),
        lambda mx, of: mx.full(3, mx.array([1, 2, 3])),
        lambda mx, of: mx.full_like(mx.ones(3), 2, dtype=kind(mx)),
        lambda mx, of: mx.zeros((0, 2)),
        lambda mx, of: [getattr(mx, w)(7) for w in ("hanning", "hamming", "blackman", "bartlett")],
        lambda mx, of: mx.asarray([[1, 2], [3, 4]], dtype=kind(mx)),
        lambda mx, of: mx.array(np.linspace(0, 1, 3)),
        lambda mx, of: mx.array([True, False]),
    ):
        both(call)


# ---- products


@given(st.data())
@settings(many, max_examples=150)
def test_matmul(data: Any) -> None:
    rows, inner, columns = (data.draw(st.integers(0, 4)) for _ in range(3))
    batch = data.draw(shapes(2))
    x, y = (
        data.draw(pairs((*FLOATS, "int32"), st.just(shape), special=False, views=SHAPED))
        for shape in ((*batch, rows, inner), (*broadcasting(batch, 9), inner, columns))
    )
    both(lambda mx, of: of(x) @ of(y))
    both(lambda mx, of: mx.matmul(of(x), of(y)[..., 0]) if columns == inner else of(x))
    both(lambda mx, of: mx.addmm(of(x)[..., :1], of(x), of(y), 2.0, 0.5))
    both(lambda mx, of: mx.inner(of(x), mx.swapaxes(of(y), -1, -2)))
    both(lambda mx, of: mx.outer(of(x), of(y)))
    if x.ours.size:
        both(lambda mx, of: mx.vecdot(of(x), of(x), axis=-2))


@pytest.mark.parametrize(
    "text",
    ["ij,jk->ik", "ij,jk", "ij,kj->ki", "...ij,jk->...ik", "ij,jk,k->i", "ij->ji", "ij->", "ii->i"],
)
def test_einsum(text: str) -> None:
    sizes = {"ij": (3, 3), "jk": (3, 4), "kj": (4, 3), "k": (4,), "ii": (3, 3), "...ij": (2, 5, 3)}
    rng = np.random.default_rng(0)
    arrays = [Pair(rng.normal(0, 1, sizes[p]), "float32") for p in text.split("->")[0].split(",")]
    both(lambda mx, of: mx.einsum(text, *(of(a) for a in arrays)))


def test_tensordot() -> None:
    rng = np.random.default_rng(0)
    x, y = (
        Pair(rng.normal(0, 1, (2, 3, 4)), "float32"),
        Pair(rng.normal(0, 1, (4, 3, 5)), "float32"),
    )
    both(lambda mx, of: mx.tensordot(of(x), of(y), 1))
    both(lambda mx, of: mx.tensordot(of(x), of(y), [[1, 2], [1, 0]]))
    both(lambda mx, of: mx.tensordot(of(x), of(y), 0))


def test_some_matrices_of_many() -> None:
    rng = np.random.default_rng(0)
    a, b = (
        Pair(rng.normal(0, 1, (4, 1, 3)), "float32"),
        Pair(rng.normal(0, 1, (5, 3, 2)), "float32"),
    )
    i, j = Pair(np.array([[0, 3]]), "uint32"), Pair(np.array([[4, 1]]), "uint32")
    both(lambda mx, of: mx.gather_mm(of(a), of(b), of(i), of(j)))
    both(lambda mx, of: mx.gather_mm(of(a)[:1], of(b), rhs_indices=of(j)))
    both(lambda mx, of: mx.gather_mm(of(a), of(b)[:1], lhs_indices=of(i)))
    x, y = (Pair(rng.normal(0, 1, (64, 64)), "float32") for _ in range(2))
    mask = Pair(np.array([[1, 0], [1, 1]]), "bool_")
    weight = Pair(rng.normal(0, 1, (2, 2)), "float32")
    both(lambda mx, of: mx.block_masked_mm(of(x), of(y), 32, of(mask), of(mask), of(mask)))
    both(lambda mx, of: mx.block_masked_mm(of(x), of(y), 32, mask_lhs=of(weight)))
    ends = Pair(np.array([[0, 16], [16, 64]]), "uint32")
    both(lambda mx, of: mx.segmented_mm(of(x), of(y), of(ends)))


@given(st.data())
@some
def test_convolutions(data: Any) -> None:
    rank, groups, each = (data.draw(st.integers(*r)) for r in ((1, 2), (1, 2), (1, 3)))
    stride, padding, dilation = (data.draw(st.integers(*r)) for r in ((1, 3), (0, 2), (1, 2)))
    rng = np.random.default_rng(each)
    x = Pair(rng.normal(0, 1, (2, *[7] * rank, groups * each)), "float32")
    w = Pair(rng.normal(0, 1, (groups * 2, *[3] * rank, each)), "float32")
    how = (stride, padding, dilation, groups)
    both(lambda mx, of: getattr(mx, f"conv{rank}d")(of(x), of(w), *how))
    full = Pair(rng.normal(0, 1, (2, *[3] * rank, groups * each)), "float32")
    how = (stride, padding, dilation, 0)
    both(lambda mx, of: getattr(mx, f"conv_transpose{rank}d")(of(x), of(full), *how))
    mode = data.draw(st.sampled_from(["full", "same", "valid"]))
    both(lambda mx, of: mx.convolve(of(x)[0].flatten(), of(w)[0].flatten(), mode))


# ---- fused operations


@given(st.data())
@some
def test_norms(data: Any) -> None:
    x = data.draw(pairs(FLOATS, shapes(3, 1, empty=False), special=False, views=SHAPED))
    w, b = (Pair(np.linspace(-1, 2, x.ours.shape[-1]), str(x.ours.dtype)) for _ in range(2))
    both(lambda mx, of: mx.fast.rms_norm(of(x), of(w), 1e-5))
    both(lambda mx, of: mx.fast.rms_norm(of(x), None, 1e-5))
    both(lambda mx, of: mx.fast.layer_norm(of(x), of(w), of(b), 1e-5))
    both(lambda mx, of: mx.fast.layer_norm(of(x), None, None, 1e-5))


@given(st.data())
@some
def test_rope(data: Any) -> None:
    shape = data.draw(st.sampled_from([(1, 2, 3, 8), (2, 3, 8), (3, 1, 1, 8), (2, 1, 2, 3, 8)]))
    x = data.draw(pairs(FLOATS, st.just(shape), special=False, views=SHAPED))
    dims, traditional = data.draw(st.sampled_from([8, 4])), data.draw(st.booleans())
    offset = Pair(np.arange(shape[0]) * 5, "int32")
    how = {"traditional": traditional, "scale": 0.5}
    both(lambda mx, of: mx.fast.rope(of(x), dims, base=1e4, offset=3, **how))
    both(lambda mx, of: mx.fast.rope(of(x), dims, base=1e4, offset=of(offset), **how))
    freqs = Pair(np.linspace(1, 9, dims // 2), "float32")
    both(lambda mx, of: mx.fast.rope(of(x), dims, base=None, offset=2, freqs=of(freqs), **how))


@given(st.data())
@many
def test_attention(data: Any) -> None:
    heads, kv_heads, length, past = (
        4,
        data.draw(st.sampled_from([1, 2, 4])),
        *(data.draw(st.integers(*r)) for r in ((1, 4), (0, 3))),
    )
    dtype = data.draw(st.sampled_from(FLOATS))
    rng = np.random.default_rng(past)
    q = Pair(rng.normal(0, 1, (2, heads, length, 8)), dtype)
    k, v = (Pair(rng.normal(0, 1, (2, kv_heads, length + past, 8)), dtype) for _ in range(2))
    seen = rng.random((data.draw(st.sampled_from([1, 2])), 1, length, length + past)) < 0.7
    seen[..., 0] = True
    added = Pair(rng.normal(0, 1, (length, length + past)), dtype)
    sinks = Pair(rng.normal(0, 1, heads), dtype) if data.draw(st.booleans()) else None
    for mask in (None, "causal", Pair(seen, "bool_"), added):
        both(
            lambda mx, of, mask=mask: mx.fast.scaled_dot_product_attention(
                of(q), of(k), of(v), scale=0.3,
                mask=of(mask) if isinstance(mask, Pair) else mask,
                sinks=None if sinks is None else of(sinks),
            )
        )  # fmt: skip


# ---- quantised weights


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("dtype", FLOATS)
def test_quantised_weights(bits: int, dtype: str) -> None:
    rng = np.random.default_rng(bits)
    w, x = Pair(rng.normal(0, 1, (8, 128)), dtype), Pair(rng.normal(0, 1, (3, 128)), dtype)
    form = {"group_size": 64, "bits": bits}
    if dtype == "float32":  # of 16-bit floats, MLX rounds as it goes
        both(lambda mx, of: mx.quantize(of(w), **form))
    words, scales, biases = (
        np.array(a.astype(theirs.float32) if i else a)
        for i, a in enumerate(theirs.quantize(w.theirs, **form))
    )
    parts = [Pair(words, "uint32"), Pair(scales, dtype), Pair(biases, dtype)]
    both(lambda mx, of: mx.dequantize(*map(of, parts), **form))
    both(lambda mx, of: mx.quantized_matmul(of(x), *map(of, parts), **form), loose=True)
    y = Pair(rng.normal(0, 1, (3, 8)), dtype)
    both(
        lambda mx, of: mx.quantized_matmul(of(y), *map(of, parts), transpose=False, **form),
        loose=True,
    )


def test_quantised_matrices_of_many() -> None:
    rng = np.random.default_rng(0)
    w, x = (
        Pair(rng.normal(0, 1, (3, 8, 64)), "float32"),
        Pair(rng.normal(0, 1, (4, 1, 64)), "float32"),
    )
    i, j = Pair(np.array([0, 3]), "uint32"), Pair(np.array([2, 0]), "uint32")
    both(
        lambda mx, of: mx.gather_qmm(
            of(x), *mx.quantize(of(w)), lhs_indices=of(i), rhs_indices=of(j)
        )
    )
    with pytest.raises(ValueError, match="the last a multiple of group_size=32"):
        ours.quantize(ours.zeros((4, 48)), 32, 4)
    with pytest.raises(NotImplementedError, match="mxfp4"):
        ours.quantize(w.ours, mode="mxfp4")
    with pytest.raises(NotImplementedError, match="global scale"):
        ours.quantize(w.ours, global_scale=2.0)


@given(pairs(FLOATS))
@some
def test_floats_of_8_bits(x: Pair) -> None:
    both(lambda mx, of: mx.to_fp8(of(x)))
    both(lambda mx, of: mx.from_fp8(mx.to_fp8(of(x)), mx.float16))


@given(
    pairs(FLOATS, shapes(2, 1, empty=False), special=False),
    st.sampled_from([None, 1, 2, 3, float("inf")]),
)
@some
def test_norms_of_vectors(x: Pair, order: Any) -> None:
    both(lambda mx, of: mx.linalg.norm(of(x), order, axis=-1, keepdims=True))
    both(lambda mx, of: mx.linalg.norm(of(x)))


# ---- random numbers: the same bits of the same key


@given(st.integers(0, 2**40), shapes(3))
@many
def test_the_same_key_gives_the_same_numbers(seed: int, shape: tuple[int, ...]) -> None:
    def draw(name: str, **how: Any) -> Callable[[Any, Any], Any]:
        return lambda mx, of: getattr(mx.random, name)(shape=shape, key=mx.random.key(seed), **how)

    both(lambda mx, of: [mx.random.key(seed), mx.random.split(mx.random.key(seed), 3)])
    for dtype in FLOATS:
        kind = {"dtype": dtype}
        for name in ("uniform", "normal", "gumbel", "laplace"):
            both(
                lambda mx, of, name=name, kind=kind: getattr(mx.random, name)(
                    shape=shape, key=mx.random.key(seed), dtype=getattr(mx, kind["dtype"])
                ),
                loose=True,
            )
    both(draw("uniform", low=-2, high=3.5), exact=False)
    both(draw("randint", low=-1000, high=70000), exact=True)
    both(draw("bernoulli", p=0.3), exact=True)
    both(draw("truncated_normal", lower=-1.0, upper=2.0), loose=True)
    both(lambda mx, of: mx.random.permutation(9, key=mx.random.key(seed)), exact=True)


def test_categorical_and_the_global_key() -> None:
    logits = Pair(np.random.default_rng(0).normal(0, 1, (2, 3, 4)), "float32")
    for how in (
        {},
        {"axis": 1},
        {"num_samples": 5},
        {"shape": (7, 2, 3)},
        {"shape": (3, 4), "axis": 0},
    ):
        both(lambda mx, of, how=how: mx.random.categorical(of(logits), key=mx.random.key(3), **how))

    def twice(mx: Any, of: Any) -> Any:
        mx.random.seed(11)
        return [mx.random.uniform(shape=(3,)), mx.random.permutation(of(logits), 2)]

    both(twice)


# ---- dtypes, files, names


def test_questions_about_dtypes() -> None:
    kinds = [
        "generic",
        "number",
        "integer",
        "signedinteger",
        "unsignedinteger",
        "inexact",
        "floating",
    ]
    names = ("bool", "integral", "real floating", "numeric", "signed integer", "unsigned integer")
    for a in ALL:
        mine, other = getattr(ours, a), getattr(theirs, a)
        for kind in kinds:
            want = theirs.issubdtype(other, getattr(theirs, kind))
            assert ours.issubdtype(mine, getattr(ours, kind)) == want
        for name in names:
            assert ours.isdtype(mine, name) == theirs.isdtype(other, name)
        for b in ALL:
            want = str(theirs.result_type(other, getattr(theirs, b)))
            assert f"mlx.core.{ours.result_type(mine, getattr(ours, b))}" == want
            assert ours.can_cast(mine, getattr(ours, b)) == theirs.can_cast(
                other, getattr(theirs, b)
            )
    for a in FLOATS:
        mine, other = ours.finfo(getattr(ours, a)), theirs.finfo(getattr(theirs, a))
        assert (float(mine.max), float(mine.eps)) == (other.max, other.eps)
    assert ours.iinfo(ours.int16).max == theirs.iinfo(theirs.int16).max


@pytest.mark.parametrize("writer", [ours, theirs], ids=["ours", "theirs"])
def test_files_are_read_on_both_sides(writer: Any, tmp_path: Any) -> None:
    arrays = {d: Pair(np.arange(6).reshape(2, 3) % 2, d) for d in ALL} | {
        "none": Pair(np.zeros((0, 3)), "float32")
    }
    side = (lambda pair: pair.ours) if writer is ours else (lambda pair: pair.theirs)
    values = {name: side(pair) for name, pair in arrays.items()}
    writer.save_safetensors(str(tmp_path / "a"), values, {"format": "mlx"})
    both(lambda mx, of: [mx.load(str(tmp_path / "a.safetensors"))[name] for name in values])
    assert ours.load(tmp_path / "a.safetensors", return_metadata=True)[1] == {"format": "mlx"}
    values.pop("bfloat16")
    writer.savez(str(tmp_path / "b"), **values)
    writer.savez_compressed(str(tmp_path / "c"), values["int32"])
    both(lambda mx, of: [mx.load(str(tmp_path / "b.npz"))[name] for name in values])
    both(lambda mx, of: mx.load(str(tmp_path / "c.npz"))["arr_0"])
    writer.save(str(tmp_path / "d"), values["float16"])
    both(lambda mx, of: mx.load(str(tmp_path / "d.npy")))


MODULES = ("", "distributed", "fast", "linalg", "metal", "random")


def names(module: str) -> tuple[Any, Any, list[str]]:
    mine, other = (getattr(m, module) if module else m for m in (ours, theirs))
    return mine, other, [n for n in dir(other) if not n.startswith("_")]


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_mlx_is_here_or_refused_by_name(module: str) -> None:
    mine, _, known = names(module)
    for name in known:
        try:
            getattr(mine, name)
        except NotImplementedError as refused:
            assert name in str(refused)


def test_the_count_of_names_only_grows() -> None:
    here = 0
    for module in MODULES:
        mine, _, known = names(module)
        here += sum(hasattr_or_refused(mine, n) for n in known)
    assert here >= HERE


HERE = 317


def hasattr_or_refused(module: Any, name: str) -> bool:
    try:
        return hasattr(module, name)
    except NotImplementedError:
        return False


_NOT_METHODS = words("conj real imag __complex__ __getstate__ __setstate__ __release_buffer__")


def test_every_method_of_mlx_is_here() -> None:
    missing = {n for n in dir(theirs.array) if not hasattr(ours.array, n)}
    assert missing <= set(_NOT_METHODS)
