"""Trees of dicts, lists and tuples with arrays at their ends, as compiled functions take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array
from nanocupy.core.recorder.dtypes import Dtype

Place = tuple[Any, Any, array]
"""A container, a key in it, and the array there."""


def flatten(tree: Any, arrays: list[array]) -> Any:
    """Append the tree's arrays to a list; return the rest of it as something to compare and hash.

    Raises:
        ValueError: something in it is neither an array nor a constant.
    """
    if isinstance(tree, array):
        arrays.append(tree)
        return array
    if isinstance(tree, np.ndarray):
        arrays.append(array(tree))
        return array
    if type(tree) is list or isinstance(tree, tuple):
        return type(tree), tuple([flatten(child, arrays) for child in tree])
    if type(tree) is dict:
        return dict, tuple([(key, flatten(child, arrays)) for key, child in tree.items()])
    if tree is None or isinstance(tree, bool | int | float | str | np.generic | np.dtype | Dtype):
        return type(tree), repr(tree)
    raise ValueError(
        "[compile] arguments and results are trees of arrays and constants (numbers, strings, "
        f"dtypes, None), not {type(tree).__name__}: give it to the function in another way"
    )


def replaced(tree: Any, arrays: Iterator[Any]) -> Any:
    """Return the tree with other values in place of its arrays, in order."""
    if isinstance(tree, array | np.ndarray):
        return next(arrays)
    if isinstance(tree, dict):
        return {key: replaced(child, arrays) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [replaced(child, arrays) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return tree


def places(tree: Any) -> list[Place]:
    """Return the places of the arrays in a tree of state, which may hold other values, too."""
    if not isinstance(tree, dict | list | tuple):
        raise ValueError(
            f"[compile] inputs and outputs are dicts and lists of arrays, not {type(tree).__name__}"
        )
    found: list[Place] = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, child in items:
        if isinstance(child, array):
            found.append((tree, key, child))
        elif isinstance(child, dict | list | tuple):
            found += places(child)
    return found
