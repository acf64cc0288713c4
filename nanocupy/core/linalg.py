"""Linear algebra, as `mlx.core.linalg` has it: norms and `cross`. The rest is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core.arrays.creation import zeros_like
from nanocupy.core.maths import elementwise, reductions
from nanocupy.core.names import refuse
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype, promote
from nanocupy.core.recorder.dtypes import floating
from nanocupy.core.recorder.graph import Op
from nanocupy.core.recorder.public import public
from nanocupy.core.recorder.shapes import reshape, slice_axis, squeeze, stack
from nanocupy.core.recorder.specs import normal_axes, normal_axis
from nanocupy.dtypes import float32

__all__ = ["cross", "norm"]


@public
def norm(
    x: Any, /, ord: float | str | None = None, axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
) -> array:  # fmt: skip
    """The norm of vectors along an axis, or of all elements; of matrices along two.

    Args:
        ord: of a vector's norm; None is 2. Of matrices 1, -1, 2, -2, inf, -inf, "nuc" or "fro",
            which None is.
    """
    x = as_array(x)
    x = astype(x, floating(x.dtype))
    if axis is None and ord is not None and x.ndim > 2:
        raise ValueError("[linalg.norm] ord without an axis: one or two dimensions")
    axes = normal_axes("linalg.norm", axis, x.ndim)
    frobenius = ord in ("fro", "f") and len(axes) == 2
    if ord is None or (ord == 2 and len(axes) == 1) or frobenius:
        return elementwise.sqrt(reductions.sum(elementwise.square(x), axes, keepdims))
    if len(axes) == 2:
        return _matrix(x, ord, (axes[0], axes[1]), keepdims)
    if len(axes) > 2 or isinstance(ord, str):
        raise ValueError(f"[linalg.norm] ord={str(ord)[:40]!r} of {len(axes)} axes")
    return _vector(elementwise.abs(x), float(ord), axes, keepdims)


def _matrix(x: array, ord: float | str, axes: tuple[int, int], keepdims: bool) -> array:
    """Sums along columns (1) or rows (inf), of singular values ("nuc"), or one of these (2)."""
    rest = [i for i in range(x.ndim) if i not in axes]
    matrices = x.transpose(*rest, *axes)
    if ord in (1, -1, float("inf"), -float("inf")):
        sums = reductions.sum(elementwise.abs(matrices), -2 if abs(float(ord)) == 1 else -1)
        value = (reductions.max if float(ord) > 0 else reductions.min)(sums, -1)
    elif ord in (2, -2, "nuc"):
        singular = record(_SINGULAR, astype(matrices, float32))
        pick = {2: reductions.max, -2: reductions.min, "nuc": reductions.sum}[ord]
        value = pick(singular, -1)
    else:
        raise ValueError(
            f'[linalg.norm] ord={str(ord)[:40]!r} of matrices: expected 1, 2, inf, "fro" or "nuc"'
        )
    shape = [1 if i in axes else d for i, d in enumerate(x.shape)]
    return reshape(value, shape) if keepdims else value


_SINGULAR = Op(
    "singular_values",
    lambda x: ((*x[0][:-2], min(x[0][-2:])), x[1]),
    lambda x: np.linalg.svd(x, compute_uv=False),
)


@public
def cross(a: Any, b: Any, axis: int = -1) -> array:
    """The cross product of vectors of 3 along an axis; of 2, with a 0 after them."""
    x, y = promote((as_array(a), as_array(b)))
    places = [normal_axis("linalg.cross", axis, v.ndim) for v in (x, y)]
    sizes = [v.shape[place] for v, place in zip((x, y), places, strict=True)]
    if not set(sizes) <= {2, 3}:
        raise ValueError(f"[linalg.cross] {x.shape} and {y.shape} along {axis}: expected 2 or 3")
    left, right = (
        [squeeze(slice_axis(v, place, i, i + 1), place) for i in range(size)]
        for v, place, size in zip((x, y), places, sizes, strict=True)
    )
    for parts in (left, right):
        if len(parts) == 2:
            parts.append(zeros_like(parts[0]))
    out = [left[i - 2] * right[i - 1] - left[i - 1] * right[i - 2] for i in range(3)]
    return stack(out, axis)


def _vector(size: array, ord: float, axes: tuple[int, ...], keepdims: bool) -> array:
    if ord == float("inf"):
        return reductions.max(size, axes, keepdims)
    if ord == -float("inf"):
        return reductions.min(size, axes, keepdims)
    if ord == 0:
        return astype(reductions.sum(elementwise.not_equal(size, 0), axes, keepdims), size.dtype)
    return elementwise.power(reductions.sum(elementwise.power(size, ord), axes, keepdims), 1 / ord)


_REFUSED = (
    "cholesky cholesky_inv det eig eigh eigvals eigvalsh inv lu lu_factor pinv qr slogdet "
    "solve solve_triangular svd tri_inv"
)
__getattr__ = refuse(__name__, "linalg", _REFUSED)
