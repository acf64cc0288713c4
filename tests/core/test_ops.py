"""Operations against NumPy and against MLX's rules, in their NumPy forms."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx

DTYPES = {
    "bool": mx.bool_,
    "u8": mx.uint8,
    "u32": mx.uint32,
    "i8": mx.int8,
    "i32": mx.int32,
    "i64": mx.int64,
    "f16": mx.float16,
    "bf16": mx.bfloat16,
    "f32": mx.float32,
}
# What MLX's table of types says (mlx/dtype.cpp); the order does not matter.
TOGETHER = [
    "bool u8 u8",
    "bool f16 f16",
    "u32 i32 i64",
    "i32 f16 f16",
    "i64 bf16 bf16",
    "i32 f32 f32",
    "f16 bf16 f32",
    "f16 f32 f32",
]


@pytest.mark.parametrize("rule", TOGETHER)
def test_arrays_meet_in_the_dtype_mlx_gives_them(rule: str) -> None:
    first, second, result = (DTYPES[name] for name in rule.split())
    x, y = mx.array([1, 0], first), mx.array([1, 1], second)
    for a, b in ((x, y), (y, x)):
        assert (a + b).dtype == (a + b).numpy().dtype == result
        assert mx.where(mx.array([True, False]), a, b).dtype == result
        assert mx.concatenate([a, b]).dtype == result


def test_small_ints_of_both_signs_meet_in_16_bits() -> None:
    assert (mx.array([1], mx.uint8) + mx.array([-1], mx.int8)).dtype == np.int16


@pytest.mark.parametrize(
    ("dtype", "number", "result"),
    [
        ("f16", 2, "f16"),
        ("bf16", 0.5, "bf16"),
        ("i32", 2, "i32"),
        ("u8", 2, "u8"),
        ("i32", 0.5, "f32"),
        ("bool", 2, "i32"),
        ("bool", 0.5, "f32"),
        ("f16", True, "f16"),
    ],
)
def test_a_number_takes_the_dtype_of_the_array(dtype: str, number: Any, result: str) -> None:
    x = mx.array([1, 1], DTYPES[dtype])
    assert (x * number).dtype == (number * x).dtype == DTYPES[result]
    assert mx.where(mx.array([True, False]), x, number).dtype == DTYPES[result]
    assert np.array_equal((x * number).numpy().astype(np.float32), [float(number)] * 2)


def test_ints_become_float32_where_a_fraction_comes_out() -> None:
    x = mx.arange(1, 4)
    for y in (x / 2, 1 / x, x / x, mx.exp(x), mx.sqrt(x), mx.mean(x), mx.softmax(x), 2.0**x):
        assert y.dtype == mx.float32 == y.numpy().dtype
    assert mx.exp(x.astype(mx.float16)).dtype == mx.float16


def test_reductions_keep_their_dtype_but_count_in_32_bits() -> None:
    x = mx.array([[3, 200], [255, 7]], mx.uint8)
    assert x.sum().dtype == mx.uint32 and x.sum().item() == 465
    assert (x > 5).sum().dtype == mx.int32
    assert x.max(axis=1).dtype == mx.uint8 and x.argmax(axis=1).dtype == mx.uint32


def test_a_precise_softmax_rounds_once() -> None:
    x = mx.array(np.linspace(-4, 4, 50), mx.float16)
    exact = np.exp(x.numpy().astype(np.float32))
    got = mx.softmax(x, precise=True)
    assert got.dtype == mx.float16
    assert np.array_equal(got.numpy(), (exact / exact.sum()).astype(np.float16))


KEYS: list[Any] = [
    0,
    -1,
    (1, 2),
    (slice(None), -1),
    (..., 0),
    (..., None),
    (None, ..., 1, None),
    (0, None),
    (slice(1, None), None, slice(-2, None)),
    (slice(None, None, 2),),
    (..., slice(3, 1), slice(None)),
    (slice(1, 2), ..., slice(0, 9)),
    [1, 0],
    (slice(None), [2, 0]),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_numpys(key: Any) -> None:
    x = np.arange(24).reshape(2, 3, 4)
    got = mx.array(x)[key]
    assert got.shape == x[key].shape and np.array_equal(got.numpy(), x[key])


@pytest.mark.parametrize("key", [2, (0, -4), (0, 0, 0, 0), (..., ...)], ids=str)
def test_indices_outside_are_refused(key: Any) -> None:
    with pytest.raises(IndexError):
        mx.array(np.zeros((2, 3, 4)))[key]


@pytest.mark.parametrize("key", [0, (..., slice(1, 3), slice(None)), np.array([1, 0])], ids=str)
def test_assigning_to_a_part_changes_this_array_and_no_other(key: Any) -> None:
    x, want = mx.zeros((2, 4, 3), mx.float16), np.zeros((2, 4, 3), np.float16)
    before, part = x + 1, x[0]
    x[key] = mx.array(2.5)
    want[key] = 2.5
    assert x.dtype == mx.float16 and np.array_equal(x.numpy(), want)
    assert (before.numpy() == 1).all() and (part.numpy() == 0).all()


def test_dimensions_of_one_come_and_go_at_several_places() -> None:
    x = mx.array(np.zeros((2, 3)))
    assert mx.expand_dims(x, (0, -1)).shape == np.expand_dims(x.numpy(), (0, -1)).shape
    assert mx.expand_dims(x, (1, 2, 3)).squeeze().shape == (2, 3)
    assert mx.expand_dims(x, (1, 2)).squeeze((1, -2)).shape == (2, 3)
    with pytest.raises(ValueError, match="not one"):
        x.squeeze(0)


@pytest.mark.parametrize("name", ["and_", "or_"])
def test_masks_combine(name: str) -> None:
    x, y = np.arange(8) > 3, np.arange(8) % 2 == 0
    combine = getattr(operator, name)
    assert np.array_equal(combine(mx.array(x), mx.array(y)).numpy(), combine(x, y))
    assert np.array_equal((~mx.array(x)).numpy(), ~x)


def test_clip_and_full() -> None:
    x = np.linspace(-30, 30, 7, dtype=np.float32)
    assert np.array_equal(mx.clip(mx.array(x), -10, None).numpy(), np.maximum(x, -10))
    assert np.array_equal(mx.clip(x, -10, 10).numpy(), np.clip(x, -10, 10))
    assert mx.full((2, 3), 7).dtype == mx.int32 and mx.full(2, 1.5).tolist() == [1.5, 1.5]
    assert mx.full((2, 2), mx.array([1, 2]), mx.float16).tolist() == [[1, 2], [1, 2]]


def test_a_compiled_function_takes_keywords() -> None:
    @partial(mx.compile, shapeless=True)
    def swiglu(gate: mx.array, up: mx.array, *, limit: float = 7.0) -> mx.array:
        return mx.silu(mx.minimum(gate, limit)) * up

    x = np.linspace(-2, 2, 6, dtype=np.float32)
    want = np.minimum(x, 1) / (1 + np.exp(-np.minimum(x, 1))) * 2
    np.testing.assert_allclose(swiglu(mx.array(x), 2.0, limit=1.0).numpy(), want, rtol=1e-6)


def test_a_group_of_one_changes_nothing() -> None:
    group, x = mx.distributed.init(), mx.arange(3)
    assert (group.rank(), group.size()) == (0, 1)
    assert mx.distributed.all_sum(x, group=group) is mx.distributed.all_gather(x) is x


def test_rms_norm_can_do_without_a_weight() -> None:
    x = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    want = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(mx.fast.rms_norm(x, None, 1e-5).numpy(), want, rtol=1e-6)


def test_a_number_seen_as_another_dtype_is_a_number() -> None:
    seen = mx.array(1.0).view(mx.int32)
    assert seen.numpy().shape == seen.shape == () and seen.item() == 0x3F800000


def test_a_python_number_takes_the_dtype_of_doubles() -> None:
    """np.dtype(float64) == None is true: NumPy's own default."""
    x = mx.array([1.0]).astype(mx.float64)
    for made in (x * 0.1, mx.compile(lambda x: x * 0.1)(x)):
        assert made.dtype == mx.float64 and made.item() == 0.1
    assert mx.array(mx.array(1.0), mx.float64).dtype == mx.float64


def test_arrays_have_dtypes_that_there_are() -> None:
    assert mx.exp(mx.array(np.zeros(2, ">f4"))).dtype == mx.float32
    for value in (np.array([1j]), np.array([1], object), np.array(["1"]), [1j]):
        with pytest.raises(ValueError, match=r"dtype|given"):
            mx.array(value)
