"""A model file in MLX's contract, somebody else's and unchanged, as a model for the engine.

`LLM(..., model_file="mlx_lm.models.starcoder2")` names a Python module that has `Model` and
`ModelArgs`, as mlx-lm's files do. It is imported while this package goes by the name of MLX; before
and after, `mlx` is what it was for everybody else. Naming it is the caller's choice: nothing in a
model folder says which code runs.

What the engine must know of a model it sees by asking it for one token with a cache that looks on
(`Probe`). A file that does more with its caches than the engine's can is refused with the reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nanocupy import nn
from nanocupy.checkpoint import Checkpoint, ModelConfig
from nanocupy.core import array
from nanocupy.models.checkpoint_arrays import checkpoint_array, unused_biases
from nanocupy.nn import Module
from nanocupy.utils import tree_flatten

_ONE_AT_A_TIME = threading.RLock()  # sys.modules is everybody's
_CACHES = ("KVCache", "RotatingKVCache")  # of mlx-lm, whose part the engine's paged caches can take


# ---- importing


def mlx_names() -> dict[str, Any]:
    """This package's modules by the names that MLX has for them."""
    from nanocupy import core, utils
    from nanocupy.nn import distributed, layers

    return {
        "mlx": sys.modules["nanocupy"],
        "mlx.core": core,
        "mlx.nn": nn,
        "mlx.nn.layers": layers,
        "mlx.nn.layers.distributed": distributed,
        "mlx.utils": utils,
    }


@contextmanager
def known_as(aliases: dict[str, Any], home: Path | None) -> Iterator[None]:
    """While these modules are MLX, model files can be imported, anew; then all is as it was.

    Other threads see the same names meanwhile.

    Args:
        home: mlx-lm's folder; its files are imported without what its package imports. None: there
            is none.
    """

    def ours(name: str) -> bool:
        return name.partition(".")[0] in ("mlx", "mlx_lm")

    def package(name: str, path: Path) -> ModuleType:
        made = ModuleType(name)
        made.__path__ = [str(path)]
        return made

    with _ONE_AT_A_TIME:
        before = {name: module for name, module in sys.modules.items() if ours(name)}
        for name in before:
            del sys.modules[name]
        sys.modules.update(aliases)
        if home is not None:
            sys.modules["mlx_lm"] = package("mlx_lm", home)
            sys.modules["mlx_lm.models"] = package("mlx_lm.models", home / "models")
        try:
            yield
        finally:
            for name in [n for n in sys.modules if ours(n)]:
                del sys.modules[name]
            sys.modules.update(before)


def mlx_lm_home() -> Path | None:
    """The folder of mlx-lm, found without importing it, which would load much more."""
    try:
        spec = importlib.util.find_spec("mlx_lm")
    except ValueError:  # it is there, and was made by hand
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


class Door:
    """A model file under MLX's names: enter it around whatever may import or run the file.

    Args:
        name: of the module, as `import` has it.

    Raises:
        ValueError: it cannot be imported, or has no `Model` and `ModelArgs`.
    """

    def __init__(self, name: str) -> None:
        self.name, self._home = name, mlx_lm_home()
        if name.partition(".")[0] == "mlx_lm" and self._home is None:
            raise ValueError(
                f"[model_file] {name!r}: mlx-lm is not installed: pip install --no-deps mlx-lm"
            )
        self._modules: dict[str, ModuleType] = {}
        with self.open():
            try:
                self.file = importlib.import_module(name)
            except Exception as error:
                raise ValueError(
                    f"[model_file] {name!r} cannot be imported: {type(error).__name__}: {error}"
                ) from error
        lacks = [part for part in ("Model", "ModelArgs") if not hasattr(self.file, part)]
        if lacks:
            raise ValueError(f"[model_file] {name!r} has no {' and no '.join(lacks)}")

    @contextmanager
    def open(self) -> Iterator[None]:
        """The same modules every time: a file may import others as late as when it runs."""
        with known_as(mlx_names(), self._home):
            sys.modules.update(self._modules)
            yield
            self._modules = {n: m for n, m in sys.modules.items() if n.startswith("mlx_lm")}

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """What goes wrong in the file with the engine's caches is a refusal with the reason."""
        with self.open():
            try:
                yield
            except Exception as error:
                raise NotImplementedError(self._why(error)) from error

    def _why(self, error: Exception) -> str:
        calls = traceback.extract_tb(error.__traceback__)
        package = Path(str(self.file.__file__)).parent
        inside = [call for call in calls if Path(call.filename).parent == package]
        where = f" ({Path(inside[-1].filename).name}:{inside[-1].lineno})" if inside else ""
        said = str(error)
        if not isinstance(error, NotImplementedError):
            said = f"{type(error).__name__}: {said}"
        return f"[model_file] {self.name} does not fit the paged engine: {said}{where}"


# ---- what the engine must know


class Probe:
    """A cache of one layer that looks on: what the keys and values of a token are."""

    def __init__(self) -> None:
        self.offset = array(np.zeros(1, np.int32))
        self.seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def update_and_fetch(self, keys: array, values: array) -> tuple[array, array]:
        self.seen.append((keys.shape, values.shape))
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: Any = None) -> None:
        return None


def look(door: Door, model: Any, config: ModelConfig) -> ModelConfig:
    """The configuration with what a token of the model shows; its "layers" are those with a cache.

    Raises:
        NotImplementedError: its layers are not all alike, or want other caches.
    """
    with door.refusing():
        windows = _windows(model)
        probes = [Probe() for _ in windows]
        logits = model(array(np.zeros((1, 1), np.int32)), cache=probes)
        counts = [len(probe.seen) for probe in probes]
        shapes = {shape for probe in probes for shape in probe.seen}
        if len(shapes) != 1 or {*counts} != {1}:
            raise NotImplementedError(
                "the engine keeps one kind of keys and values for each cache; it was given some "
                f"{counts} times, of the shapes {sorted(shapes)}"
            )
        ((keys, values),) = shapes
        alike = keys[:3] == values[:3] == (1, keys[1], 1) and len(keys) == len(values) == 4
        if not alike or values[3] > keys[3]:
            raise NotImplementedError(
                f"keys {keys} and values {values}: the engine keeps [1, heads, 1, size], values of "
                "which are not larger"
            )
    return replace(
        config,
        vocab_size=logits.shape[-1],
        num_hidden_layers=len(probes),
        num_attention_heads=keys[1],
        num_key_value_heads=keys[1],
        head_dim=keys[3],
        windows=windows,
    )


def _windows(model: Any) -> tuple[int, ...]:
    """Of each cache that the file itself would make; 0 for none."""
    if not hasattr(model, "make_cache"):
        return (0,) * len(model.layers)
    caches = model.make_cache()
    others = {type(cache).__name__: None for cache in caches if type(cache).__name__ not in _CACHES}
    if others:
        raise NotImplementedError(
            f"it wants caches of its own ({', '.join(others)}): the engine has keys and values"
        )
    if any(getattr(cache, "keep", 0) for cache in caches):
        raise NotImplementedError("a window that keeps the first tokens")
    return tuple(int(getattr(cache, "max_size", 0)) for cache in caches)


# ---- the model


class FileModel(Module):
    """The file's model, in this engine's terms."""

    def __init__(self, door: Door, inner: Any, windows: Sequence[int], kv_heads: int) -> None:
        super().__init__()
        self.inner = inner
        self._door, self._windows, self._kv_heads = door, tuple(windows), kv_heads

    def __call__(self, tokens: array, cache: Any = None) -> array:
        if cache is not None:
            both = zip(cache, self._windows, strict=True)
            cache = [replace(c, window=window) for c, window in both]
        with self._door.refusing():
            logits: array = self.inner(tokens, cache=cache)
        return logits

    @property
    def layers(self) -> Sequence[Any]:
        """One for each cache."""
        return self._windows

    def shard(self, group: Any) -> None:
        """By the file's own `shard`, which divides evenly.

        Raises:
            ValueError: it has none, or the KV heads do not divide.
        """
        if group.size() == 1:
            return
        heads = self._kv_heads
        if not hasattr(self.inner, "shard") or heads % group.size():
            why = f"{heads} KV heads" if hasattr(self.inner, "shard") else "it has no `shard`"
            raise ValueError(
                f"[model_file] {self._door.name} cannot be divided over {group.size()} ranks "
                f"({why}): start one process"
            )
        with self._door.open():
            self.inner.shard(group)


def build(name: str, checkpoint: Checkpoint) -> tuple[FileModel, ModelConfig]:
    """The model of a file, without weights, and the configuration that the engine needs.

    Raises:
        ValueError: the file cannot be imported, or config.json lacks what it wants.
        NotImplementedError: it does not fit the engine.
    """
    door = Door(name)
    with door.open():
        try:
            inner = door.file.Model(door.file.ModelArgs.from_dict(checkpoint.config.raw))
        except Exception as error:
            raise ValueError(
                f"[model_file] {name} makes no model of {checkpoint.folder / 'config.json'}: "
                f"{type(error).__name__}: {error}"
            ) from error
    config = look(door, inner, checkpoint.config)
    model = FileModel(door, inner, config.windows, config.num_key_value_heads)
    return model, replace(config, windows=())


def load(model: FileModel, checkpoint: Checkpoint) -> FileModel:
    """Put the checkpoint's weights in their places, by the file's own `sanitize`.

    Raises:
        ValueError: names every tensor that is missing, unexpected or of another shape.
        NotImplementedError: a layer of the file's own has codes.
    """
    weights = {name: checkpoint_array(checkpoint, name) for name in checkpoint.names()}
    inner, quantization = model.inner, checkpoint.config.quantization

    def form(path: str, layer: Module) -> tuple[int, int] | None:
        if not quantization or f"{path}.scales" not in weights:
            return None
        if not hasattr(layer, "coded"):
            raise NotImplementedError(
                f"[model_file] {model._door.name}: {path} ({type(layer).__name__}) has codes, and "
                "only nn.Linear and nn.Embedding can: give a model of floats"
            )
        return quantization.for_module(path)

    with model._door.open():
        if hasattr(inner, "sanitize"):
            weights = inner.sanitize(weights)
        nn.replace_with_quantized(inner, form, lambda path: f"{path}.order" in weights)
        for name in unused_biases(checkpoint, dict(tree_flatten(inner.parameters()))):
            weights.pop(name, None)
        try:
            inner.load_weights(list(weights.items()))
        except ValueError as error:
            raise ValueError(
                f"[model_file] {model._door.name}: the tensors of {checkpoint.folder} do not fit: "
                f"{error}"
            ) from error
    return model
