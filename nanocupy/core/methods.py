"""The methods and operators of `array`: the functions of the same names.

What a step does without is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from nanocupy.core.recorder import casting, elementwise, shapes
from nanocupy.core.recorder.arrays import array
from nanocupy.core.recorder.public import public


def _loaded(module: str, name: str) -> Callable[..., Any]:
    """Return a function whose module is imported when it is first called."""
    function: Callable[..., Any] | None = None

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal function
        if function is None:
            function = getattr(import_module(f"nanocupy.core.{module}"), name)
        return function(*args, **kwargs)

    call.__name__ = name
    return call


# ---- operators: their other side is an array, a number, or what says that it is an array


_SAY_SO = ("__mlx_array__", "__array__")
_ARRAYS = (array, bool, int, float, np.ndarray, np.generic)


def _is_operand(other: Any) -> bool:
    return (
        isinstance(other, _ARRAYS) or hasattr(other, "__mlx_array__") or hasattr(other, "__array__")
    )


def _refused(name: str, other: Any) -> Exception:
    """Return the error for an operand: a TypeError for None, as in MLX, else a ValueError."""
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
    """x += y: the object `x` gets the new value."""

    def update(self: array, other: Any) -> array:
        if name == "truediv" and self.dtype.kind not in "fV":
            raise ValueError(f"[{name}] in place of {self.dtype}: it would be no {self.dtype}")
        self.node = function(self, other).node
        return self

    return _operator(name, update)


def _equality(name: str, unlike: bool) -> Callable[..., Any]:
    """Return the elementwise comparison; `unlike` for operands that are no arrays."""
    function = _loaded("maths.elementwise", name)

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


def _item(x: array, key: Any) -> array:
    return shapes.view_of(x, key) if shapes.is_basic(key) else _gathered(x, key)


_gathered = _loaded("arrays.indexing", "gathered")
_OPERATORS: dict[str, Callable[..., array]] = {
    "add": elementwise.add,
    "mul": elementwise.multiply,
    "matmul": _loaded("maths.products", "matmul"),
    **{
        operator: _loaded("maths.elementwise", name)
        for operator, name in {
            "sub": "subtract", "truediv": "divide", "div": "divide", "floordiv": "floor_divide",
            "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or",
            "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
        }.items()
    },
}  # fmt: skip
_METHODS: dict[str, Any] = {
    "__eq__": _equality("equal", unlike=False),
    "__ne__": _equality("not_equal", unlike=True),
    "__lt__": _operator("less", _loaded("maths.elementwise", "less")),
    "__le__": _operator("less_equal", _loaded("maths.elementwise", "less_equal")),
    "__gt__": _operator("greater", _loaded("maths.elementwise", "greater")),
    "__ge__": _operator("greater_equal", _loaded("maths.elementwise", "greater_equal")),
    "__getitem__": _item,
    "__setitem__": _loaded("arrays.indexing", "setitem"),
    "__iter__": _iterate,
    "_stack": staticmethod(shapes.stack),
    "at": property(_loaded("arrays.indexing", "ArrayAt")),
    "T": property(shapes.transpose),
    "mT": property(public(_loaded("arrays.layout", "matrix_transpose"))),
    "astype": public(casting.astype),
    "reshape": public(lambda self, *shape: shapes.reshape(self, _flexible(shape))),
    "transpose": public(lambda self, *axes: shapes.transpose(self, _flexible(axes))),
    "split": public(shapes.split),
    "squeeze": public(shapes.squeeze),
}
_LOADED = {  # module: its functions that are methods, too: the name, or method=function
    "maths.elementwise": (
        "abs cos exp log log10 log1p log2 reciprocal round rsqrt sin sqrt square "
        "__invert__=bitwise_invert __neg__=negative __pos__=positive __abs__=abs"
    ),
    "maths.reductions": "all any argmax argmin logsumexp max mean min prod std sum var",
    "maths.scans": "cummax cummin cumprod cumsum logcumsumexp",
    "arrays.layout": "diag diagonal flatten moveaxis swapaxes view",
    "arrays.interchange": (
        "__format__=formatted __bytes__=as_bytes __buffer__=buffer "
        "__array_namespace__=namespace __reduce__=reduced"
    ),
}
for _name, _function in _OPERATORS.items():
    setattr(array, f"__{_name}__", _operator(_name, _function))
    setattr(array, f"__r{_name}__", _reverse(_name, _function))
    setattr(array, f"__i{_name}__", _in_place(_name, _function))
for _name, _method in _METHODS.items():
    setattr(array, _name, _method)
for _module, _names in _LOADED.items():
    for _entry in _names.split():
        _name, _, _function_name = _entry.partition("=")
        _function = _loaded(_module, _function_name or _name)
        setattr(array, _name, _function if _function_name else public(_function))
