"""What becomes an array, whose memory that is, and what goes out again: beside MLX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx
from beside_mlx import ALL, both, ours, theirs

# ---- memory


def test_a_buffer_that_is_used_again_changes_no_array() -> None:
    def call(mx: Any, of: Any) -> Any:
        buffer, made = np.zeros(3, np.float32), []
        for i in range(3):
            buffer[:] = i
            made += [
                mx.array(buffer) * 2,
                mx.array([1.0, 2.0, 3.0]) + buffer,
                mx.asarray(buffer, copy=True),
                mx.from_dlpack(buffer, copy=True),
                mx.array(memoryview(buffer.tobytes())),
                mx.full(3, mx.array(buffer)),
            ]
            kept = mx.zeros((2, 3))
            kept[0] = mx.array(buffer)
            made += [kept, mx.concatenate([mx.array(buffer), mx.array(buffer)])]
        buffer[:] = 9
        return made

    both(call)


def test_a_compiled_function_keeps_what_it_was_called_with() -> None:
    buffer, double = np.zeros(3, np.float32), mx.compile(lambda x: x * 2)
    made = []
    for i in range(3):
        buffer[:] = i
        made.append(double(buffer))
    buffer[:] = 9
    assert [a.tolist() for a in made] == [[0.0] * 3, [2.0] * 3, [4.0] * 3]


@pytest.mark.parametrize("dtype", [d for d in ALL if d != "bfloat16"])
def test_numpy_gets_a_copy_that_is_its_own(dtype: str) -> None:
    for make in (lambda m: m.ones(3), lambda m: m.arange(6).reshape(2, 3).T, lambda m: m.array(2)):
        x = make(mx).astype(getattr(mx, dtype))
        before, out = x.tolist(), np.array(x)
        assert out.flags.owndata and out.flags.writeable and out.dtype == x.numpy().dtype
        out[...] = 1 - out
        assert x.tolist() == before
        with pytest.raises(ValueError, match="read-only"):
            x.numpy()[...] = 0


def test_a_view_is_asked_for() -> None:
    def call(mx: Any, of: Any) -> Any:
        x = mx.array([1, 2, 3])
        view = np.asarray(x)
        view[0] = 7
        return [x, view.flags.writeable, view.flags.owndata, np.from_dlpack(x).tolist()]

    both(call)
    with pytest.raises(ValueError, match="copy"):
        np.array(mx.ones(3), dtype=np.int32, copy=False)


def test_what_cannot_be_without_a_copy_is_refused() -> None:
    for call in (
        lambda mx, of: mx.asarray(np.arange(3), copy=False),
        lambda mx, of: mx.asarray([1, 2], copy=False),
        lambda mx, of: mx.asarray(mx.arange(3), copy=False),
        lambda mx, of: mx.from_dlpack(np.arange(3), copy=False),
        lambda mx, of: [mx.asarray(np.arange(3.0)), mx.asarray(True), mx.asarray((1, 2.5))],
        lambda mx, of: [mx.asarray([1, 2], dtype=mx.float16), mx.from_dlpack(np.arange(3))],
    ):
        both(call)
    x = mx.array([1, 2, 3])
    apart = mx.asarray(x, copy=True)
    np.asarray(apart)[0] = 9
    assert x.tolist() == [1, 2, 3]


def test_an_array_keeps_no_memory_of_its_callers_alive() -> None:
    whole = np.zeros((1000, 3), np.float32)
    assert not np.shares_memory(mx.array(whole[0]).numpy(), whole)
    assert mx.array(whole.T).numpy().flags.c_contiguous


# ---- integers

WIDE = (2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**40, -(2**40), 2**62)


@pytest.mark.parametrize("value", WIDE)
def test_ints_are_as_wide_as_they_need(value: int) -> None:
    for call in (
        lambda mx, of: mx.array(value),
        lambda mx, of: mx.array([value]),
        lambda mx, of: mx.array([[1, 2], [value, 3]]),
        lambda mx, of: mx.array([True, value]),
        lambda mx, of: mx.array([value, 0.5]),
        lambda mx, of: mx.array((value,), dtype=mx.int64),
        lambda mx, of: mx.array(value, dtype=mx.float32),
        lambda mx, of: mx.full((2,), value),
        lambda mx, of: mx.add(value, 1) if value < 2**62 else mx.array(0),
        lambda mx, of: mx.arange(value, value + 3) if value < 2**62 else mx.array(0),
        lambda mx, of: mx.arange(0, value, abs(value) // 4 * (1 if value > 0 else -1)),
    ):
        both(call)


MEETING: list[Callable[[Any, int], Any]] = [
    lambda x, n: x + n, lambda x, n: n + x, lambda x, n: x * n, lambda x, n: n - x,
    lambda x, n: x < n, lambda x, n: x == n, lambda x, n: x != n, lambda x, n: x // n,
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "float32"])
@pytest.mark.parametrize("number", [-1, 127, 128, 255, 256, 3000000000, -3000000000, 2**40])
def test_an_int_that_does_not_fit_the_array_it_meets(dtype: str, number: int) -> None:
    for meet in MEETING:
        both(lambda mx, of, meet=meet: meet(mx.array([1, 2], getattr(mx, dtype)), number))
    for call in (
        lambda mx, x: mx.maximum(x, number),
        lambda mx, x: mx.clip(x, None, number),
        lambda mx, x: mx.where(mx.array([True, False]), x, number),
        lambda mx, x: mx.full_like(x, number),
        lambda mx, x: mx.pad(x, 1, constant_values=number) if abs(number) < 128 else x,
    ):
        both(lambda mx, of, call=call: call(mx, mx.array([1, 2], getattr(mx, dtype))))

    def assigned(mx: Any, of: Any) -> Any:
        x = mx.array([1, 2], getattr(mx, dtype))
        x[0] = number
        return x

    both(assigned)


def test_numpys_ints_that_do_not_fit_are_not_lost() -> None:
    x = mx.array([1, 2])
    assert (x + np.array([1, 2])).dtype == mx.int32
    assert (x + np.array([2**40, 0])).tolist() == [2**40 + 1, 2]  # MLX: [1, 2]
    assert (x + np.int64(2**40)).tolist() == [2**40 + 1, 2**40 + 2]
    assert (x + np.array([0.5, 1.5])).tolist() == [1.5, 3.5]
    assert (x.astype(mx.float16) + np.ones(2, np.float32)).dtype == mx.float16


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**400, [2**64], [1, 10**30], [-1, 2**63], [[2**63]], (2**63,)],
    ids=lambda v: type(v).__name__,
)
def test_ints_beyond_int64_are_refused(value: Any) -> None:
    both(lambda mx, of: mx.array(value))
    with pytest.raises(ValueError, match="beyond int64"):
        mx.array(value)
    if isinstance(value, int):
        with pytest.raises(ValueError, match="array"):
            mx.array([1]) + value


def test_unsigned_ints_of_64_bits() -> None:
    assert mx.array(2**63, mx.uint64).item() == mx.array([2**63], mx.uint64).item() == 2**63
    with pytest.raises(ValueError, match="does not fit"):
        mx.array([2**40], mx.int32)


# ---- other kinds of values


def test_lists_with_arrays_in_them() -> None:
    for call in (
        lambda mx, of: mx.array([mx.array([1, 2]), mx.array([3, 4])]),
        lambda mx, of: mx.array([mx.array(1), 2.5]),
        lambda mx, of: mx.array([mx.array(1.5), 2]),
        lambda mx, of: mx.array([[mx.array(1), 2], [3, mx.array(4)]]),
        lambda mx, of: mx.array([mx.array([1, 2]), [3, 4]]),
        lambda mx, of: mx.array([mx.array([1, 2]), 3]),
        lambda mx, of: mx.array([mx.array([1, 2])], dtype=mx.float16),
        lambda mx, of: mx.array([mx.array([1, 2]), mx.array([3])]),
    ):
        both(call)
    assert mx.compile(lambda x: mx.array([x, 2 * x]))(mx.array(3)).tolist() == [3, 6]


@pytest.mark.parametrize(
    "value",
    [None, "text", {}, {1: 2}, object(), [None], [1, "a"], ["a"], [[1], [2, 3]], np.array(["a"])],
    ids=str,
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    both(lambda mx, of: mx.array(value))
    with pytest.raises((TypeError, ValueError), match="array"):
        mx.array(value)


def test_bytes() -> None:
    for value in (b"abc", bytearray(b"abc"), memoryview(b"abc"), b""):
        both(lambda mx, of, value=value: mx.array(value))
    buffer = bytearray(b"abc")
    x = mx.array(buffer)
    buffer[0] = 0
    assert x.tolist() == [97, 98, 99]


def test_what_says_that_it_is_an_array() -> None:
    class Wrapped:
        def __mlx_array__(self) -> Any:
            return self.array

        def __init__(self, array: Any) -> None:
            self.array = array

    both(lambda mx, of: mx.array(Wrapped(mx.array([1, 2]))))
    assert ours.array([1]).dtype == ours.int32 and theirs.array([1]).dtype == theirs.int32
