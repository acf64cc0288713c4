"""A user's Numba function as a kernel: arrays in place of addresses.

The kernel's arguments are the addresses of all arrays, then their dimensions. It is compiled once
in a process and not kept on disk: what a function refers to cannot be hashed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import NumbaError
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

from nanocupy.device.cpu import jit

_numbers = itertools.count()


class CustomKernel:
    """A kernel made of a user's function.

    Args:
        function: `function(*arrays, thread, threads)`; each thread does its share. It returns
            nothing, allocates nothing and raises nothing.
        specs: (number of dimensions, dtype) of each array.
    """

    by_numba = False
    ready = True

    def __init__(
        self, name: str, function: Callable[..., None], specs: Sequence[tuple[int, Any]]
    ) -> None:
        self.name, self.source = name, f"custom:{name}:{next(_numbers)}"
        self._function, self._specs = function, tuple(specs)

    @functools.cached_property
    def address(self) -> int:
        """The address of the machine code. ValueError: Numba cannot compile the function."""
        symbol = jit.symbol(self.source)
        try:
            code = jit.compile_function(self._wrapped(), symbol)
        except NumbaError as error:
            raise ValueError(
                f"[custom_kernel] {self.name}: Numba cannot compile the function for arrays of "
                f"{', '.join(f'{d}[{n}d]' for n, d in self._specs)}:\n{error}"
            ) from error
        self._engine, address = jit.load(code, symbol)
        return int(address)

    def _wrapped(self) -> Any:
        """The function under the ABI of kernels."""
        lines, place = [], len(self._specs)
        names: dict[str, Any] = {"function": njit(error_model="numpy", _nrt=False)(self._function)}
        for i, (ndim, dtype) in enumerate(self._specs):
            names[f"view{i}"] = _view(from_dtype(np.dtype(dtype)), max(ndim, 1))
            shape = "".join(f"a[{place + axis}], " for axis in range(ndim)) or "1, "
            lines.append(f"    x{i} = view{i}(a[{i}], ({shape}))")
            place += ndim
        arrays = ", ".join(f"x{i}" for i in range(len(self._specs)))
        body = "\n".join(lines)
        text = (
            f"def kernel(a, thread, threads):\n{body}\n"
            f"    function({arrays}, thread, threads)\n    return 0\n"
        )
        exec(text, names)
        return names["kernel"]


@functools.cache
def _view(element: Any, ndim: int) -> Any:
    """`view(address, shape)`: a contiguous array on memory that it does not own."""
    kind = types.Array(element, ndim, "C")

    @intrinsic
    def view(typing_context: Any, address: Any, shape: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            made = make_array(kind)(context, builder)
            dims = cgutils.unpack_tuple(builder, values[1])
            size = context.get_constant(types.intp, context.get_abi_sizeof(made.data.type.pointee))
            strides = [size]
            for dim in reversed(dims[1:]):
                strides.insert(0, builder.mul(strides[0], dim))
            data = builder.inttoptr(values[0], made.data.type)
            populate_array(made, data, dims, strides, size, meminfo=None)
            return made._getvalue()

        return kind(types.int64, types.UniTuple(types.int64, ndim)), codegen

    return view
