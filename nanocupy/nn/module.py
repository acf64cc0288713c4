"""`Module`: a dict of arrays and modules with a `__call__`. Mirrors `mlx.nn.Module`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from nanocupy import core
from nanocupy.core import array
from nanocupy.utils import tree_flatten, tree_unflatten

Filter = Callable[["Module", str, Any], bool]


def _is_floating(dtype: Any) -> bool:
    return core.issubdtype(dtype, core.floating)


class Module(dict[str, Any]):
    """The base of layers and models.

    Arrays, lists, dicts and modules set as attributes are items of the dict; other values are
    ordinary attributes. Parameters are the arrays whose names do not start with an underscore.
    """

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

    @staticmethod
    def is_module(value: Any) -> bool:
        return isinstance(value, Module)

    @staticmethod
    def valid_child_filter(module: Module, key: str, value: Any) -> bool:
        """Whether a value may contain modules: a filter for `filter_and_map`."""
        return isinstance(value, dict | list)

    @staticmethod
    def valid_parameter_filter(module: Module, key: str, value: Any) -> bool:
        """Whether a value is a parameter, or may contain parameters."""
        return isinstance(value, dict | list | array) and not key.startswith("_")

    @staticmethod
    def trainable_parameter_filter(module: Module, key: str, value: Any) -> bool:
        """As `valid_parameter_filter`, without frozen parameters."""
        return Module.valid_parameter_filter(module, key, value) and key not in module._frozen

    def filter_and_map(
        self,
        filter_fn: Filter,
        map_fn: Callable[[Any], Any] | None = None,
        is_leaf_fn: Filter | None = None,
    ) -> dict[str, Any]:
        """The tree of this module's values.

        Args:
            filter_fn: filter_fn(module, key, value) says whether a value is in the tree.
            map_fn: applied to the leaves. None: the identity.
            is_leaf_fn: as `filter_fn`, whether a value is a leaf. None: all but modules, dicts and
                lists are.
        """
        how = filter_fn, map_fn or (lambda x: x), is_leaf_fn or _is_leaf
        return {k: _mapped(self, k, v, *how) for k, v in self.items() if filter_fn(self, k, v)}

    def parameters(self) -> dict[str, Any]:
        """The tree of parameters."""
        return self.filter_and_map(self.valid_parameter_filter)

    def trainable_parameters(self) -> dict[str, Any]:
        """The tree of parameters that are not frozen."""
        return self.filter_and_map(self.trainable_parameter_filter)

    def children(self) -> dict[str, Any]:
        """The tree of modules directly in this one."""
        return self.filter_and_map(self.valid_child_filter, is_leaf_fn=lambda m, k, v: is_module(v))

    def leaf_modules(self) -> dict[str, Any]:
        """The tree of modules without modules inside."""
        return self.filter_and_map(
            self.valid_child_filter,
            is_leaf_fn=lambda m, k, v: is_module(v) and not v._named_children(),
        )

    def _named_children(self) -> list[tuple[str, Module]]:
        return [(n, m) for n, m in tree_flatten(self.children(), is_leaf=is_module) if is_module(m)]

    def named_modules(self) -> list[tuple[str, Module]]:
        """(dotted path, module) of this module and all inside it, parents first."""
        found: list[tuple[str, Module]] = [("", self)]
        for name, child in self._named_children():
            found += [(f"{name}.{path}" if path else name, m) for path, m in child.named_modules()]
        return found

    def modules(self) -> list[Module]:
        return [module for _, module in self.named_modules()]

    def apply_to_modules(self, apply_fn: Callable[[str, Module], Any]) -> Module:
        """Call apply_fn(path, module) for this module and all inside it."""
        for path, module in self.named_modules():
            apply_fn(path, module)
        return self

    # ---- updating

    def apply(self, map_fn: Callable[[array], array], filter_fn: Filter | None = None) -> Module:
        """Replace every parameter (or value that `filter_fn` accepts) by `map_fn` of it."""
        return self.update(self.filter_and_map(filter_fn or self.valid_parameter_filter, map_fn))

    def set_dtype(self, dtype: Any, predicate: Callable[[Any], bool] | None = _is_floating) -> None:
        """Cast the parameters whose dtype `predicate` accepts; None: all."""
        self.apply(lambda x: x.astype(dtype) if predicate is None or predicate(x.dtype) else x)

    def update(self, parameters: Any, strict: bool = True) -> Module:  # type: ignore[override]
        """Replace arrays by those of the same names in a tree.

        Raises:
            ValueError: with `strict`, for a name that this module does not have, or no array.
        """
        _update(self, parameters, strict, array)
        return self

    def update_modules(self, modules: Any, strict: bool = True) -> Module:
        """As `update`, for modules."""
        _update(self, modules, strict, Module)
        return self

    @property
    def state(self) -> Module:
        """This module, as a dict for `compile(inputs=...)`."""
        return self

    # ---- files

    def load_weights(
        self, file_or_weights: str | os.PathLike[str] | list[tuple[str, array]], strict: bool = True
    ) -> Module:
        """Load parameters from pairs of names and arrays, or from an .npz or .safetensors file.

        Raises:
            ValueError: with `strict`, naming every missing, unexpected and misshapen array.
        """
        given = _named_arrays(file_or_weights)
        if strict:
            _account(dict(tree_flatten(self.parameters())), given)
        if given:
            self.update(tree_unflatten(given), strict=False)
        return self

    def save_weights(self, file: str | os.PathLike[str]) -> None:
        """Write the parameters to an .npz or a .safetensors file."""
        path = os.fspath(file)
        writers = {".npz": core.savez, ".safetensors": core.save_safetensors}
        if (write := writers.get(os.path.splitext(path)[1])) is None:
            raise ValueError(f"[save_weights] file={path!r}: expected a name in {list(writers)}")
        parameters = dict(tree_flatten(self.parameters()))
        write(path, parameters) if write is core.save_safetensors else write(path, **parameters)

    def replace(self, path: str, module: Module) -> None:
        """Replace the module at a dotted path."""
        *parents, last = path.split(".")
        place: Any = self
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place[int(last)] = module
        else:
            place[last] = module

    # ---- flags

    @property
    def training(self) -> bool:
        """False: there is no training."""
        return False

    def train(self, mode: bool = True) -> Module:
        if mode:
            raise NotImplementedError("[train] nanocupy only infers: there are no gradients")
        return self

    def eval(self) -> Module:
        """Do nothing: see `training`."""
        return self

    @property
    def _frozen(self) -> set[str]:
        return self.__dict__.setdefault("_frozen_keys", set())

    def freeze(
        self, *, recurse: bool = True, keys: str | list[str] | None = None, strict: bool = False
    ) -> Module:
        """Leave parameters out of `trainable_parameters`.

        Args:
            recurse: also those of modules inside.
            keys: the names of the parameters. None: all.
            strict: raise KeyError for a key that no module has.
        """
        for module in self._with(keys, recurse, strict):
            module._frozen.update(module._own() if keys is None else _names(keys))
        return self

    def unfreeze(
        self, *, recurse: bool = True, keys: str | list[str] | None = None, strict: bool = False
    ) -> Module:
        """Undo `freeze`."""
        for module in self._with(keys, recurse, strict):
            module._frozen.difference_update(list(module._frozen) if keys is None else _names(keys))
        return self

    def _own(self) -> list[str]:
        """The names of the parameters that are in no module inside."""
        found = self.filter_and_map(
            lambda m, k, v: not is_module(v) and self.valid_parameter_filter(m, k, v)
        )
        return [name for name, _ in tree_flatten(found)]

    def _with(self, keys: str | list[str] | None, recurse: bool, strict: bool) -> list[Module]:
        """This module, with `recurse` also those inside; with `strict` each key must exist."""
        modules = self.modules() if recurse else [self]
        if strict and keys is not None:
            for key in _names(keys):
                if not any(key in module for module in modules):
                    raise KeyError(f"[freeze] no module here has {key!r}")
        return modules


is_module = Module.is_module


def _named_arrays(given: Any) -> dict[str, array]:
    """{name: array} of a file or of pairs."""
    if isinstance(given, str | os.PathLike):
        given = core.load(os.fspath(given))
    pairs = given.items() if isinstance(given, dict) else given
    try:
        found: list[Any] = [(name, value) for name, value in pairs]
    except (TypeError, ValueError):
        found = [(None, None)]
    for name, value in found:
        if not isinstance(name, str) or not isinstance(value, array):
            raise ValueError(
                f"[load_weights] {type(given).__name__} given: expected a path, or pairs of a name "
                "and an array"
            )
    if len(named := dict(found)) < len(found):
        raise ValueError("[load_weights] a name comes twice")
    return named


def _names(keys: str | list[str]) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys)


def _is_leaf(module: Module, key: str, value: Any) -> bool:
    return not isinstance(value, dict | list)


def _mapped(
    module: Module, key: str, value: Any, keep: Filter, change: Callable[[Any], Any], leaf: Filter
) -> Any:
    """`filter_and_map` of one value; in lists and dicts, {} stands for what is left out."""
    if leaf(module, key, value):
        return change(value)
    if isinstance(value, Module):
        return value.filter_and_map(keep, change, leaf)
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inner = {
        k: _mapped(module, f"{key}.{k}", v, keep, change, leaf)
        if keep(module, f"{key}.{k}", v)
        else {}
        for k, v in items
    }
    return inner if isinstance(value, dict) else list(inner.values())


def _update(place: Any, tree: Any, strict: bool, kind: type) -> None:
    """Replace the values of a kind in `place` by the tree's."""
    if not isinstance(tree, dict | list):
        if strict:
            raise ValueError(f"[update] {type(tree).__name__} given: expected a dict or a list")
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if not (key in place if isinstance(place, dict) else key < len(place)):
            if strict:
                raise ValueError(f"[update] there is no {key!r} in {type(place).__name__}")
        elif isinstance(place[key], kind) and (isinstance(value, kind) or kind is array):
            if strict and not isinstance(value, kind):
                raise ValueError(f"[update] {type(value).__name__} given for the array {key!r}")
            place[key] = value
        elif isinstance(place[key], dict | list):
            _update(place[key], value, strict, kind)
        elif strict and value != {}:
            raise ValueError(f"[update] {type(value).__name__} given for {key!r}")


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
