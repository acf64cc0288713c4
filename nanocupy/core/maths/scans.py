"""Running sums and their like along one axis, as `mlx.core` has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.dtypes import floating
from nanocupy.core.recorder.graph import Op
from nanocupy.core.recorder.shapes import flat
from nanocupy.core.recorder.specs import Becomes, normal_axis, same_dtype, same_spec, upcast
from nanocupy.dtypes import bool_, int32


class Scan(Protocol):
    def __call__(
        self, x: Any, /, axis: int | None = None, *, reverse: bool = False, inclusive: bool = True,
        dtype: Any = None,
    ) -> array: ...  # fmt: skip


def _scan(
    name: str,
    function: np.ufunc,
    nothing: Callable[[np.dtype[Any]], Any],
    becomes: Becomes = same_dtype,
) -> Scan:
    """A scan: `function` of all elements up to each, starting from `nothing(dtype)`."""

    def run(x: np.ndarray, *, axis: int, reverse: bool, inclusive: bool) -> np.ndarray:
        along = np.moveaxis(upcast(x), axis, 0)
        along = along[::-1] if reverse else along
        out = function.accumulate(along, dtype=along.dtype)
        if not inclusive:
            out = np.concatenate([np.full_like(out[:1], nothing(x.dtype)), out[:-1]])
        return np.moveaxis(out[::-1] if reverse else out, 0, axis).astype(x.dtype)

    op = Op(name, same_spec, run)

    def call(
        x: Any, /, axis: int | None = None, *, reverse: bool = False, inclusive: bool = True,
        dtype: Any = None,
    ) -> array:  # fmt: skip
        x = as_array(x) if dtype is None else astype(x, dtype)
        x, axis = flat(astype(x, becomes(x.dtype)), axis)
        place = normal_axis(name, axis, x.ndim)
        return record(op, x, axis=place, reverse=reverse, inclusive=inclusive)

    call.__name__ = name
    call.__doc__ = f"""{name} of all elements up to each.

        Args:
            axis: None: in one dimension.
            reverse: from the end.
            inclusive: whether the element itself counts.
            dtype: to scan in. Default: x's.
        """
    return call


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "fV":
        return -np.inf
    return False if dtype == bool_ else np.iinfo(dtype).min


def _highest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "fV":
        return np.inf
    return True if dtype == bool_ else np.iinfo(dtype).max


def _counted(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return int32 if dtype == bool_ else dtype


cumsum = cumulative_sum = _scan("cumsum", np.add, lambda _: 0, _counted)
cumprod = cumulative_prod = _scan("cumprod", np.multiply, lambda _: 1)
cummax, cummin = _scan("cummax", np.maximum, _lowest), _scan("cummin", np.minimum, _highest)
logcumsumexp = _scan("logcumsumexp", np.logaddexp, lambda _: -np.inf, floating)
