"""The Walsh-Hadamard transform, norms and products of small vectors, contraction orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from beside_mlx import FLOATS, Pair, both


@pytest.mark.parametrize("size", [1, 2, 8, 12, 20, 28, 48, 80, 112, 1024])
def test_hadamard_transforms(size: int) -> None:
    for dtype in FLOATS:
        x = Pair(np.random.default_rng(size).normal(0, 1, (3, size)), dtype)
        both(lambda mx, of, x=x: mx.hadamard_transform(of(x)), loose=True)
        both(lambda mx, of, x=x: mx.hadamard_transform(of(x), scale=0.25), loose=True)
    if size > 1:  # of one int, MLX gives it back
        both(lambda mx, of: mx.hadamard_transform(mx.arange(size)), loose=True)


def test_sizes_without_a_hadamard_matrix() -> None:
    for size in (0, 3, 5):
        both(lambda mx, of, n=size: mx.hadamard_transform(mx.ones((2, n))))
    both(lambda mx, of: mx.hadamard_transform(mx.array(2.0)))


@pytest.mark.parametrize(
    ("a", "b", "axis"),
    [((3,), (3,), -1), ((2,), (2,), -1), ((2,), (3,), 0), ((4, 3), (3,), -1), ((3, 4), (3, 4), 0),
     ((2, 4), (3, 4), 0), ((4,), (4,), -1), ((3, 4), (3, 4), 5), ((), (3,), -1)],
)  # fmt: skip
def test_cross_products(a: Any, b: Any, axis: int) -> None:
    rng = np.random.default_rng(0)
    for dtypes in (("float32", "float32"), ("float16", "int32"), ("int32", "int32")):
        x, y = (Pair(rng.integers(-5, 6, s), d) for s, d in zip((a, b), dtypes, strict=True))
        both(lambda mx, of, x=x, y=y: mx.linalg.cross(of(x), of(y), axis))


@pytest.mark.parametrize("order", [None, 1, -1, 2, -2, np.inf, -np.inf, "fro", "nuc", "f", 3, "x"])
def test_norms_of_matrices(order: Any) -> None:
    x = Pair(np.random.default_rng(0).normal(0, 1, (2, 3, 4)), "float32")
    for axes in ((0, 2), (2, 1), (-1, 0)):
        both(lambda mx, of, a=axes: mx.linalg.norm(of(x), order, axis=a))
        both(lambda mx, of, a=axes: mx.linalg.norm(of(x), order, axis=a, keepdims=True))
    both(lambda mx, of: mx.linalg.norm(of(x)[0], order))
    both(lambda mx, of: mx.linalg.norm(of(x), order))


@pytest.mark.parametrize("text", ["ij,jk,kl", "ij,jk,kl->il", "i,i->", "ij", "a,ab,bc,cd->d"])
def test_contraction_orders(text: str) -> None:
    sizes = dict(zip("abcdijkl", range(2, 10), strict=True))
    shapes = [tuple(sizes[c] for c in part) for part in text.split("->")[0].split(",")]
    both(lambda mx, of: mx.einsum_path(text, *(mx.zeros(s) for s in shapes))[0])
    both(lambda mx, of: mx.einsum_path(text, *(mx.zeros(s) for s in shapes[1:])))


def test_normal_vectors_with_a_covariance() -> None:
    for mean, cov, shape in (
        ([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]], (5,)),
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 4.0]], ()),
        ([0.0] * 3, [[1.0, 0.0], [0.0, 1.0]], (2,)),
        ([0.0] * 2, [1.0, 0.0], (2,)),
    ):
        both(
            lambda mx, of, m=mean, c=cov, s=shape: mx.random.multivariate_normal(
                mx.array(m), mx.array(c), s, key=mx.random.key(4)
            ),
            loose=True,
        )
