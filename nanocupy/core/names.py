"""Names of a module that are loaded with their first use, and names of MLX that are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def homes_of(homes: Mapping[str, str]) -> dict[str, str]:
    """Turn {module: "name name ..."} into {name: module}."""
    return {name: module for module, names in homes.items() for name in names.split()}


def finder(
    package: str, home_of: Mapping[str, str], missing: Callable[[str], Any]
) -> Callable[[str], Any]:
    """Return what a package's `__getattr__` calls: it loads a name from its module, and keeps it.

    Args:
        home_of: the module of the package that has a name.
        missing: called with a name that has no home; it raises.
    """

    def find(name: str) -> Any:
        if name not in home_of:
            return missing(name)
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find


# ---- refused: names of `mlx.core` that raise NotImplementedError when they are asked for, so that
# nothing runs on a wrong answer. A name that MLX does not have either is an AttributeError.

_NO_GRADIENTS = "nanocupy only infers: there are no function transforms"
_NO_COMPLEX = "there are no complex numbers"
_NO_LIMITS = "memory is not wired here, and its pieces have no sizes of their own"
_NO_EXPORT = "functions cannot be written to files"
_NO_KERNELS = "a kernel of one's own is fast.custom_kernel, of Numba and CUDA"

REFUSED: dict[str, str] = {
    "grad value_and_grad vjp jvp vmap checkpoint custom_function": _NO_GRADIENTS,
    "complex64 complexfloating real imag conj conjugate fft": _NO_COMPLEX,
    "get_array_buffer_size set_wired_limit": _NO_LIMITS,
    "export_function import_function exporter FunctionExporter": _NO_EXPORT,
    "cuda_kernel metal_kernel precompiled_cuda_kernel": _NO_KERNELS,
    "save_gguf": "GGUF files are read, by nanocupy.checkpoint, and not written",
    "qqmm gather_qqmm": "products of two quantised matrices",
    "PrintOptions get_printoptions set_printoptions printoptions": "arrays print as NumPy's do",
    "cross_entropy gated_delta_update": "no such kernel yet",
    "unique": "the number of unique values is not known before they are computed",
    "matrix_norm": "linalg.norm has them",
    "ArrayIterator ArrayLike": "use collections.abc.Iterator and typing.Any",
}


def refuse(module: str, prefix: str, names: str = "") -> Callable[[str], Any]:
    """Return a module's `__getattr__` that raises for the names of MLX that are not here.

    Args:
        prefix: of the names in what it says.
        names: further names it refuses.
    """
    why = {name: reason for some, reason in REFUSED.items() for name in some.split()}
    why |= dict.fromkeys(names.split(), "not in this engine yet")

    def missing(name: str) -> Any:
        if name in why:
            raise NotImplementedError(f"[{prefix}.{name}] {why[name]}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return missing
