"""Trees of dicts, lists and tuples, as `mlx.utils` has them. Dotted names are checkpoint names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from itertools import zip_longest
from typing import Any


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Any = None) -> Any:
    """The tree with `function` applied to every leaf (and to the same leaf of `rest`)."""
    return tree_map_with_path(lambda _, *leaves: function(*leaves), tree, *rest, is_leaf=is_leaf)


def tree_map_with_path(
    function: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Any = None, path: str = ""
) -> Any:
    """As `tree_map`, with function(dotted name, leaf, ...)."""

    def below(key: Any, child: Any) -> Any:
        name = f"{path}.{key}" if path else str(key)
        others = (other[key] for other in rest)
        return tree_map_with_path(function, child, *others, is_leaf=is_leaf, path=name)

    if is_leaf is None or not is_leaf(tree):
        if isinstance(tree, list | tuple):
            return _like(tree, [below(i, child) for i, child in enumerate(tree)])
        if isinstance(tree, dict):
            return {key: below(key, child) for key, child in tree.items()}
    return function(path, tree, *rest)


def tree_reduce(
    function: Callable[[Any, Any], Any], tree: Any, initializer: Any = None, is_leaf: Any = None
) -> Any:
    """`function(so far, leaf)` over all leaves, from `initializer` or else from the first leaf;
    None of no leaves."""
    leaves = [leaf for _, leaf in tree_flatten(tree, is_leaf=is_leaf)]
    if initializer is None and not leaves:
        return None
    return reduce(function, leaves, *([] if initializer is None else [initializer]))


def tree_flatten(tree: Any, prefix: str = "", is_leaf: Any = None, destination: Any = None) -> Any:
    """[(dotted name, leaf), ...]; or `destination`, a list or dict, with them added.

    Args:
        prefix: of all names, after its first character, which is the dot.
    """
    flat = [] if destination is None else destination
    if not isinstance(flat, list | dict):
        raise ValueError(f"[tree_flatten] destination={flat!r}: expected a list, a dict or None")
    if is_leaf is None or not is_leaf(tree):
        if isinstance(tree, list | tuple):
            tree = dict(enumerate(tree))
        if isinstance(tree, dict):
            for key, value in tree.items():
                tree_flatten(value, f"{prefix}.{key}", is_leaf, flat)
            return flat
    name = prefix[1:]
    flat.update({name: tree}) if isinstance(flat, dict) else flat.append((name, tree))
    return flat


def tree_unflatten(items: Iterable[tuple[str, Any]] | dict[str, Any]) -> Any:
    """The tree that flattens to `items`; a level whose names are numbers, each another, becomes a
    list, with {} in the places of numbers left out."""
    found = list(items.items() if isinstance(items, dict) else items)
    return _tree(found) if found else []


_FURTHEST = 1 << 20  # places of a list that nothing is in


def _tree(items: list[tuple[str, Any]]) -> Any:
    if len(items) == 1 and items[0][0] == "":
        return items[0][1]
    branches: dict[str, list[tuple[str, Any]]] = {}
    for name, value in items:
        first, _, rest = name.partition(".")
        branches.setdefault(first, []).append((rest, value))
    places = {int(k): v for k, v in branches.items() if k.isdecimal()}
    if not places or len(places) < len(branches):
        return {key: _tree(value) for key, value in branches.items()}
    last = max(places)
    if last > len(places) + _FURTHEST:
        raise ValueError(f"[tree_unflatten] a list of {len(places)} with a place {last}")
    return [_tree(places[i]) if i in places else {} for i in range(last + 1)]


def tree_merge(tree_a: Any, tree_b: Any, merge_fn: Callable[[Any, Any], Any] | None = None) -> Any:
    """What is in either tree; leaves that are in both by merge_fn(a, b).

    Raises:
        ValueError: both have something in one place, and there is no `merge_fn`.
    """
    if _is_nothing(tree_a):
        if tree_a is not None and tree_b is not None and _is_nothing(tree_b):
            _same_kind(tree_a, tree_b)
        return tree_a if tree_b is None else tree_b
    if _is_nothing(tree_b):
        return tree_a
    if isinstance(tree_a, list | tuple) and isinstance(tree_b, list | tuple):
        pairs = zip_longest(tree_a, tree_b)
        return _like(tree_a, [tree_merge(a, b, merge_fn) for a, b in pairs])
    if isinstance(tree_a, dict) and isinstance(tree_b, dict):
        keys = dict.fromkeys([*tree_a, *tree_b])
        return {k: tree_merge(tree_a.get(k), tree_b.get(k), merge_fn) for k in keys}
    if merge_fn is None:
        raise ValueError("[tree_merge] both trees have something in one place: give merge_fn")
    return merge_fn(tree_a, tree_b)


def _is_nothing(tree: Any) -> bool:
    return tree is None or (isinstance(tree, list | dict | tuple) and not tree)


def _same_kind(*trees: Any) -> None:
    if len({type(tree) for tree in trees}) > 1:
        raise ValueError(f"[tree_merge] {' and '.join(map(str, trees))} are of different kinds")


def _like(tree: Any, children: list[Any]) -> Any:
    """A list or tuple of the kind that `tree` is."""
    return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
