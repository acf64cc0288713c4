"""`x[key] = value` and `x.at[key]`: checked when called, and the array survives an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nanocupy.core as mx

WRONG: list[tuple[Any, Any]] = [
    (slice(0, 1), [1, 2]),
    (slice(0, 2), np.ones((3, 3), np.int32)),
    ((0, 0, 0), 1),
    ((0, ..., 0, ...), 1),
    (2, 1),
    (-3, 1),
    ((0, 3), 1),
    (np.array([0, 2]), 1),
    (np.array([[0], [-3]]), 1),
    ((slice(None), np.array([3])), 1),
    ((np.array([0, 1]), np.array([0, 1, 2])), 1),
    (np.array([True, False, True]), 1),
    (np.array([[True, False]]), 1),
    (np.array([[True] * 3, [False] * 3]), [1, 2]),
    (np.array([0.0, 1.0]), 1),
    ("text", 1),
    (1.0, 1),
    ({}, 1),
    (slice(None, None, 0), 1),
    (slice("a"), 1),
    (0, "text"),
    (0, None),
    (0, 2**40),
    (0, [1, 2]),
    (..., np.ones((2, 2, 3), np.int32)),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda x: str(x)[:30])
def test_what_does_not_fit_is_refused_at_once(key: Any, value: Any) -> None:
    x = mx.array([[1, 2, 3], [4, 5, 6]])
    alias, value = x.T, mx.array(value) if isinstance(value, list | np.ndarray) else value
    where = (
        tuple(mx.array(p) if isinstance(p, np.ndarray) else p for p in key)
        if isinstance(key, tuple)
        else (mx.array(key) if isinstance(key, np.ndarray) else key)
    )
    with pytest.raises((ValueError, IndexError, TypeError)):
        x[where] = value
    with pytest.raises((ValueError, IndexError, TypeError)):
        x.at[where].add(value)
    assert x.tolist() == [[1, 2, 3], [4, 5, 6]] == alias.T.tolist()
    x[0] = 7
    assert x.tolist() == [[7, 7, 7], [4, 5, 6]]


def test_an_index_that_is_still_to_be_computed_is_looked_at() -> None:
    x, index = mx.array([1, 2, 3]), mx.array([1]) * 3
    with pytest.raises(IndexError, match=r"index 3 of an axis of length 3"):
        x[index] = 5
    with pytest.raises(IndexError, match="index 3"):
        mx.put_along_axis(x, index, mx.array(5), 0)
    assert x.tolist() == [1, 2, 3]


def test_a_compiled_function_looks_when_it_runs() -> None:
    @mx.compile
    def put(x: Any, index: Any) -> Any:
        y = mx.array(x)
        y[index] = 5
        return y

    x = mx.array([1, 2, 3])
    assert put(x, mx.array([2])).tolist() == [1, 2, 5]
    with pytest.raises(IndexError):
        mx.eval(put(x, mx.array([3])))
    assert x.tolist() == [1, 2, 3] and put(x, mx.array([0])).tolist() == [5, 2, 3]


def test_none_and_ellipsis_are_keys_of_an_update() -> None:
    x = mx.array([1, 2, 3])
    assert x.at[None].add(1).tolist() == x.at[...].add(1).tolist() == [2, 3, 4]
    assert x.at[None, 0].add(1).tolist() == [2, 2, 3]
    with pytest.raises(ValueError, match=r"x.at\[indices\].add"):
        x.at.add(1)


def test_indices_outside_are_refused_where_they_are_known() -> None:
    x = mx.array([1, 2, 3])
    for call in (
        lambda: mx.take(x, 3),
        lambda: mx.take(x, mx.array([0, -4])),
        lambda: x[3],
        lambda: mx.take(mx.zeros((0,)), mx.array([0])),
    ):
        with pytest.raises(IndexError):
            call()
    for call in (
        lambda: mx.take(x, 1.0),
        lambda: mx.take(x, mx.array([True])),
        lambda: mx.take_along_axis(x, mx.array([1.0]), 0),
        lambda: mx.put_along_axis(x, mx.array([0.5]), mx.array(1), 0),
        lambda: mx.take_along_axis(mx.zeros((1, 3)), mx.array([1]), 0),
    ):
        with pytest.raises(ValueError, match=r"\[(take|put)"):
            call()


def test_putting_nothing_along_an_axis() -> None:
    x, nothing = mx.array([[1, 2]]), mx.zeros((1, 0), mx.int32)
    assert mx.put_along_axis(x, nothing, nothing, 1).tolist() == [[1, 2]]
    assert mx.put_along_axis(mx.array([]), mx.array([]), mx.array([]), None).shape == (0,)
    empty = mx.zeros((0, 3))
    assert mx.put_along_axis(empty, mx.zeros((0, 3), mx.int32), mx.array(1.0), 1).shape == (0, 3)
