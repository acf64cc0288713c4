"""The methods and operators of `array`: the functions of the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from nanocupy.core.arrays import indexing, interchange
from nanocupy.core.recorder import casting, elementwise, shapes
from nanocupy.core.recorder.arrays import array
from nanocupy.core.recorder.public import public


def _loaded(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is first called."""

    def method(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"nanocupy.core.{module}"), name)(*args, **kwargs)

    method.__name__ = name
    return public(method)


# ---- operators: their other side is an array, a number, or what says that it is an array


_SAY_SO = ("__mlx_array__", "__array__")
_ARRAYS = (array, bool, int, float, np.ndarray, np.generic)


def _is_operand(other: Any) -> bool:
    return (
        isinstance(other, _ARRAYS) or hasattr(other, "__mlx_array__") or hasattr(other, "__array__")
    )


def _refused(name: str, other: Any) -> Exception:
    """For None a TypeError, as MLX has it, for anything else a ValueError."""
    if other is None:
        return TypeError(f"[{name}] of an array and None")
    return ValueError(f"[{name}] of an array and {type(other).__name__}: make an array of it")


def _operator(name: str, function: Callable[..., array]) -> Callable[..., array]:
    def call(self: array, other: Any) -> array:
        if type(other) is not array and not _is_operand(other):
            raise _refused(name, other)
        return function(self, other)

    return call


def _reverse(name: str, function: Callable[..., array]) -> Callable[..., array]:
    return _operator(name, lambda self, other: function(other, self))


def _in_place(name: str, function: Callable[..., array]) -> Callable[..., array]:
    """x += y: from now on `x`, under all its names, is a new array."""

    def update(self: array, other: Any) -> array:
        if name == "truediv" and self.dtype.kind not in "fV":
            raise ValueError(f"[{name}] in place of {self.dtype}: it would be no {self.dtype}")
        self.node = function(self, other).node
        return self

    return _operator(name, update)


def _equality(name: str, function: Callable[..., array], unlike: bool) -> Callable[..., Any]:
    """Elementwise; what is no array is unlike one."""

    def call(self: array, other: Any) -> Any:
        if type(other) is array or _is_operand(other):
            return function(self, other)
        if other is None:
            raise _refused(name, other)
        return unlike

    return call


def _flexible(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape


def _iterate(x: array) -> Iterator[array]:
    return (x[i] for i in range(len(x)))


_OPERATORS: dict[str, Callable[..., array]] = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "div": elementwise.divide,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "pow": elementwise.power,
    "matmul": _loaded("maths.products", "matmul"),
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
    "lshift": elementwise.left_shift,
    "rshift": elementwise.right_shift,
}
_METHODS: dict[str, Any] = {
    "__invert__": elementwise.bitwise_invert,
    "__neg__": elementwise.negative,
    "__pos__": elementwise.positive,
    "__abs__": elementwise.abs,
    "__eq__": _equality("equal", elementwise.equal, False),
    "__ne__": _equality("not_equal", elementwise.not_equal, True),
    "__lt__": _operator("less", elementwise.less),
    "__le__": _operator("less_equal", elementwise.less_equal),
    "__gt__": _operator("greater", elementwise.greater),
    "__ge__": _operator("greater_equal", elementwise.greater_equal),
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "__iter__": _iterate,
    "at": property(indexing.ArrayAt),
    "T": property(shapes.transpose),
    "mT": property(_loaded("arrays.layout", "matrix_transpose")),
    "astype": public(casting.astype),
    "reshape": public(lambda self, *shape: shapes.reshape(self, _flexible(shape))),
    "transpose": public(lambda self, *axes: shapes.transpose(self, _flexible(axes))),
}
_SAME_NAMES = {  # module: its functions that are methods, too
    "recorder.elementwise": (
        "abs cos exp log log10 log1p log2 reciprocal round rsqrt sin sqrt square"
    ),
    "maths.reductions": "all any argmax argmin logsumexp max mean min prod std sum var",
    "maths.scans": "cummax cummin cumprod cumsum logcumsumexp",
    "recorder.shapes": "split squeeze",
    "arrays.layout": "diag diagonal flatten moveaxis swapaxes view",
}
for _name, _function in _OPERATORS.items():
    setattr(array, f"__{_name}__", _operator(_name, _function))
    setattr(array, f"__r{_name}__", _reverse(_name, _function))
    setattr(array, f"__i{_name}__", _in_place(_name, _function))
for _name, _method in (_METHODS | interchange.METHODS).items():
    setattr(array, _name, _method)
for _module, _names in _SAME_NAMES.items():
    for _name in _names.split():
        setattr(array, _name, _loaded(_module, _name))
