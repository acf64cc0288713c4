"""Trees of dicts, lists and tuples, as `mlx.utils` has them. Dotted names are checkpoint names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """The tree that flattens to `items`; a level whose names are 0, 1, ... becomes a list."""
    branches: dict[str, list[tuple[str, Any]]] = {}
    for name, value in items:
        first, _, rest = name.partition(".")
        branches.setdefault(first, []).append((rest, value))
    if list(branches) == [""]:
        return branches[""][0][1]
    if branches and all(key.isdigit() for key in branches):
        return [tree_unflatten(branches[k]) for k in sorted(branches, key=int)]
    return {key: tree_unflatten(value) for key, value in branches.items()}
