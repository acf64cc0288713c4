"""`Module`: a dict of arrays and modules with a `__call__`. Mirrors `mlx.nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nanocupy.core import array
from nanocupy.utils import tree_flatten, tree_map, tree_unflatten


class Module(dict[str, Any]):
    """The base of layers and models.

    Arrays, lists, dicts and modules set as attributes are children, found by name; everything else
    is an ordinary attribute. Parameters are the arrays whose names do not start with an underscore.
    """

    training = False  # always: this engine only infers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, array | dict | list | tuple):
            self.__dict__.pop(name, None)
            self[name] = value
        else:
            self.pop(name, None)
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if name in self:
            del self[name]
        else:
            super().__delattr__(name)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        inner = "".join(
            f"\n  ({n}): {m!r}".replace("\n", "\n  ") for n, m in self._named_children()
        )
        return f"{type(self).__name__}({self._extra_repr()}{inner}{chr(10) if inner else ''})"

    def _extra_repr(self) -> str:
        return ""

    # ---- walking

    def _named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in self.items():
            yield from _modules(name, value)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted path, module) of this module and all inside it, parents first."""
        yield prefix, self
        for name, child in self._named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> list[Module]:
        return [module for _, module in self.named_modules()]

    def children(self) -> dict[str, Any]:
        """The direct children that are modules, or lists or dicts of them."""
        return {k: v for k, v in self.items() if any(True for _ in _modules(k, v))}

    def parameters(self) -> Any:
        """The tree of parameters."""
        return _parameters(self)

    def apply(self, function: Callable[[array], array]) -> Module:
        """Replace every parameter by `function` of it."""
        return self.update(tree_map(function, self.parameters()))

    # ---- loading

    def update(self, tree: Any) -> Module:  # type: ignore[override]
        """Put the tree's arrays in the places of the same names."""
        _update(self, tree)
        return self

    def load_weights(self, weights: list[tuple[str, array]], strict: bool = True) -> Module:
        """Put named arrays in their places.

        Raises:
            ValueError: with `strict`, naming every missing, unexpected and misshapen array.
        """
        if strict:
            _account(dict(tree_flatten(self.parameters())), dict(weights))
        if weights:
            self.update(tree_unflatten(weights))
        return self

    def replace(self, path: str, module: Module) -> None:
        """Put another module at a dotted path."""
        *parents, last = path.split(".")
        place: Any = self
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place[int(last)] = module
        else:
            place[last] = module

    def train(self, mode: bool = True) -> Module:
        """There is nothing to switch: this engine only infers."""
        if mode:
            raise NotImplementedError("[train] nanocupy only infers")
        return self

    def eval(self) -> Module:
        return self


def _modules(name: str, value: Any) -> Iterator[tuple[str, Module]]:
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _modules(f"{name}.{key}", child)


def _parameters(value: Any) -> Any:
    if isinstance(value, dict):
        found = {k: _parameters(v) for k, v in value.items() if not str(k).startswith("_")}
        return {k: v for k, v in found.items() if v is not None}
    if isinstance(value, list | tuple):
        return [{} if (found := _parameters(v)) is None else found for v in value]
    return value if isinstance(value, array) else None


def _update(place: Any, tree: Any) -> None:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list):
            if key in place if isinstance(place, dict) else key < len(place):
                _update(place[key], value)
        elif value is not None:
            place[key] = value


def _account(expected: dict[str, array], given: dict[str, array]) -> None:
    problems = [f"missing {n} {list(a.shape)}" for n, a in expected.items() if n not in given]
    problems += [f"unexpected {n} {list(a.shape)}" for n, a in given.items() if n not in expected]
    problems += [
        f"{n} is {list(given[n].shape)} where the model has {list(a.shape)}"
        for n, a in expected.items()
        if n in given and given[n].shape != a.shape
    ]
    if problems:
        more = f" and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(
            f"[load_weights] {len(problems)} problems: {'; '.join(problems[:20])}{more}"
        )
