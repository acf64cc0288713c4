"""Trees of dicts, lists and tuples, as `mlx.utils` has them. Dotted names are checkpoint names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Any = None) -> Any:
    """The tree with `function` applied to every leaf (and to the same leaf of `rest`)."""
    if is_leaf is not None and is_leaf(tree):
        return function(tree, *rest)
    if isinstance(tree, list | tuple):
        kind = type(tree)
        return kind(
            tree_map(function, child, *(r[i] for r in rest), is_leaf=is_leaf)
            for i, child in enumerate(tree)
        )
    if isinstance(tree, dict):
        return {
            k: tree_map(function, v, *(r[k] for r in rest), is_leaf=is_leaf)
            for k, v in tree.items()
        }
    return function(tree, *rest)


def tree_reduce(
    function: Callable[[Any, Any], Any], tree: Any, initializer: Any = None, is_leaf: Any = None
) -> Any:
    """`function(so far, leaf)` over all leaves, from `initializer` or else from the first leaf."""
    leaves = [leaf for _, leaf in tree_flatten(tree, is_leaf=is_leaf)]
    return reduce(function, leaves, *([] if initializer is None else [initializer]))


def tree_flatten(tree: Any, prefix: str = "", is_leaf: Any = None) -> list[tuple[str, Any]]:
    """[(dotted name, leaf), ...]."""
    if is_leaf is None or not is_leaf(tree):
        if isinstance(tree, list | tuple):
            tree = dict(enumerate(tree))
        if isinstance(tree, dict):
            flat: list[tuple[str, Any]] = []
            for key, value in tree.items():
                flat += tree_flatten(value, f"{prefix}.{key}" if prefix else str(key), is_leaf)
            return flat
    return [(prefix, tree)]


def tree_unflatten(items: Iterable[tuple[str, Any]]) -> Any:
    """The tree that flattens to `items`; a level whose names are numbers becomes a list,
    with {} in the places of numbers left out."""
    branches: dict[str, list[tuple[str, Any]]] = {}
    for name, value in items:
        first, _, rest = name.partition(".")
        branches.setdefault(first, []).append((rest, value))
    if list(branches) == [""]:
        return branches[""][0][1]
    if branches and all(key.isdigit() for key in branches):
        places = {int(k): v for k, v in branches.items()}
        return [tree_unflatten(places.get(i, [])) for i in range(max(places) + 1)]
    return {key: tree_unflatten(value) for key, value in branches.items()}
