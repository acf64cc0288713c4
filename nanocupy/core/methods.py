"""The methods and operators of `array`: the functions of the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from nanocupy.core import dtypes, indexing, ops, shapes
from nanocupy.core.array import array


def _loaded(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is first called."""

    def method(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"nanocupy.core.{module}"), name)(*args, **kwargs)

    method.__name__ = name
    return method


def _reverse(function: Callable[..., array]) -> Callable[..., array]:
    return lambda self, other: function(other, self)


def _in_place(function: Callable[..., array]) -> Callable[..., array]:
    """x += y: from now on `x`, under all its names, is a new array."""

    def update(self: array, other: Any) -> array:
        self.node = function(self, other).node
        return self

    return update


def _flexible(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


def _iterate(x: array) -> Iterator[array]:
    return (x[i] for i in range(len(x)))


_OPERATORS: dict[str, Callable[..., array]] = {
    "add": ops.add,
    "sub": ops.subtract,
    "mul": ops.multiply,
    "truediv": ops.divide,
    "floordiv": ops.floor_divide,
    "mod": ops.remainder,
    "pow": ops.power,
    "matmul": _loaded("products", "matmul"),
    "and": ops.bitwise_and,
    "or": ops.bitwise_or,
    "xor": ops.bitwise_xor,
    "lshift": ops.left_shift,
    "rshift": ops.right_shift,
}
_METHODS: dict[str, Any] = {
    "__invert__": ops.bitwise_invert,
    "__neg__": ops.negative,
    "__pos__": ops.positive,
    "__abs__": ops.abs,
    "__eq__": ops.equal,
    "__ne__": ops.not_equal,
    "__lt__": ops.less,
    "__le__": ops.less_equal,
    "__gt__": ops.greater,
    "__ge__": ops.greater_equal,
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "__iter__": _iterate,
    "at": property(indexing.ArrayAt),
    "T": property(shapes.transpose),
    "mT": property(_loaded("layout", "matrix_transpose")),
    "astype": dtypes.astype,
    "reshape": lambda self, *shape: shapes.reshape(self, _flexible(shape)),
    "transpose": lambda self, *axes: shapes.transpose(self, _flexible(axes)),
}
_SAME_NAMES = {  # module: its functions that are methods, too
    "ops": "abs cos exp log log10 log1p log2 reciprocal round rsqrt sin sqrt square",
    "reductions": "all any argmax argmin logsumexp max mean min prod std sum var",
    "scans": "cummax cummin cumprod cumsum logcumsumexp",
    "shapes": "split squeeze",
    "layout": "diag diagonal flatten moveaxis swapaxes view",
}
for _name, _function in _OPERATORS.items():
    setattr(array, f"__{_name}__", _function)
    setattr(array, f"__r{_name}__", _reverse(_function))
    setattr(array, f"__i{_name}__", _in_place(_function))
for _name, _method in _METHODS.items():
    setattr(array, _name, _method)
for _module, _names in _SAME_NAMES.items():
    for _name in _names.split():
        setattr(array, _name, _loaded(_module, _name))
