"""Linear algebra, as `mlx.core.linalg` has it: norms. The rest is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanocupy.core import ops, reductions
from nanocupy.core.array import array, as_array
from nanocupy.core.devices import on_stream
from nanocupy.core.dtypes import astype, floating
from nanocupy.core.specs import normal_axes
from nanocupy.core.unsupported import refuse

__all__ = ["norm"]


@on_stream
def norm(
    x: Any, /, ord: float | str | None = None, axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
) -> array:  # fmt: skip
    """The norm of vectors along an axis, or of all elements; of matrices, the Frobenius norm.

    Args:
        ord: of a vector's norm; None is 2. Of matrices, None or "fro".
    """
    x = as_array(x)
    x = astype(x, floating(x.dtype))
    if axis is None and ord is not None and x.ndim > 2:
        raise ValueError("[linalg.norm] ord without an axis: one or two dimensions")
    axes = normal_axes("linalg.norm", axis, x.ndim)
    if ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2):
        return ops.sqrt(reductions.sum(ops.square(x), axes, keepdims))
    if len(axes) > 1 or isinstance(ord, str):
        raise NotImplementedError(f"[linalg.norm] ord={ord!r} of {len(axes)} axes")
    return _vector(ops.abs(x), float(ord), axes, keepdims)


def _vector(size: array, ord: float, axes: tuple[int, ...], keepdims: bool) -> array:
    if ord == float("inf"):
        return reductions.max(size, axes, keepdims)
    if ord == -float("inf"):
        return reductions.min(size, axes, keepdims)
    if ord == 0:
        return astype(reductions.sum(ops.not_equal(size, 0), axes, keepdims), size.dtype)
    return ops.power(reductions.sum(ops.power(size, ord), axes, keepdims), 1 / ord)


_REFUSED = (
    "cholesky cholesky_inv cross det eig eigh eigvals eigvalsh inv lu lu_factor pinv qr slogdet "
    "solve solve_triangular svd tri_inv"
)
__getattr__ = refuse(__name__, "linalg", _REFUSED)
