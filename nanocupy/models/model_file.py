"""Model files in MLX's contract, such as mlx-lm's, run unchanged as models of the engine.

`LLM(..., model_file="mlx_lm.models.starcoder2")` names a Python module that has `Model` and
`ModelArgs`. While it is imported and while it runs, this package's modules are found under MLX's
names; other code finds `mlx` as it was. The caller chooses the module: nothing in a model folder
says which code runs.

What the engine must know of a model (layers, KV heads, head size) is seen by running one token with
caches that record shapes. A file that needs other caches than the engine's is refused with the
reason.
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
from nanocupy.distributed import Group
from nanocupy.models.checkpoint_arrays import checkpoint_array, unused_biases
from nanocupy.nn import Module
from nanocupy.utils import tree_flatten

_LOCK = threading.RLock()  # sys.modules belongs to all threads
_PAGED = ("KVCache", "RotatingKVCache")  # mlx-lm's caches that a paged cache can stand for


# ---- importing


def mlx_modules() -> dict[str, Any]:
    """This package's modules by MLX's names for them."""
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


def _is_mlx(name: str) -> bool:
    return name.partition(".")[0] in ("mlx", "mlx_lm")


def _package(name: str, path: Path) -> ModuleType:
    made = ModuleType(name)
    made.__path__ = [str(path)]
    return made


@contextmanager
def aliased(aliases: dict[str, Any], home: Path | None) -> Iterator[None]:
    """Put modules into `sys.modules` under MLX's names, then restore what was there.

    Other threads see the aliases meanwhile.

    Args:
        home: mlx-lm's folder. Its files are imported without running the package's own __init__,
            which needs more. None: mlx-lm is not installed.
    """
    with _LOCK:
        before = {name: module for name, module in sys.modules.items() if _is_mlx(name)}
        for name in before:
            del sys.modules[name]
        sys.modules.update(aliases)
        if home is not None:
            sys.modules["mlx_lm"] = _package("mlx_lm", home)
            sys.modules["mlx_lm.models"] = _package("mlx_lm.models", home / "models")
        try:
            yield
        finally:
            for name in [n for n in sys.modules if _is_mlx(n)]:
                del sys.modules[name]
            sys.modules.update(before)


def mlx_lm_home() -> Path | None:
    """The folder of mlx-lm, found without importing it."""
    try:
        spec = importlib.util.find_spec("mlx_lm")
    except ValueError:  # a module that was made by hand
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


class ModelFile:
    """An imported model file.

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
        with self.active():
            try:
                self.module = importlib.import_module(name)
            except Exception as error:
                raise ValueError(
                    f"[model_file] {name!r} cannot be imported: {type(error).__name__}: {error}"
                ) from error
        lacks = [part for part in ("Model", "ModelArgs") if not hasattr(self.module, part)]
        if lacks:
            raise ValueError(f"[model_file] {name!r} has no {' and no '.join(lacks)}")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make MLX's names available to the file, which may import modules as late as when it runs.

        The modules it imported before are found again.
        """
        with aliased(mlx_modules(), self._home):
            sys.modules.update(self._modules)
            yield
            self._modules = {n: m for n, m in sys.modules.items() if n.startswith("mlx_lm")}

    @contextmanager
    def running(self) -> Iterator[None]:
        """As `active`; an error of the file is raised as NotImplementedError with the reason."""
        with self.active():
            try:
                yield
            except Exception as error:
                raise NotImplementedError(self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        calls = traceback.extract_tb(error.__traceback__)
        package = Path(str(self.module.__file__)).parent
        inside = [call for call in calls if Path(call.filename).parent == package]
        where = f" ({Path(inside[-1].filename).name}:{inside[-1].lineno})" if inside else ""
        text = str(error)
        if not isinstance(error, NotImplementedError):
            text = f"{type(error).__name__}: {text}"
        return f"[model_file] {self.name} does not fit the paged engine: {text}{where}"


# ---- what the engine must know


class ShapeCache:
    """A cache of one layer that records the shapes of a token's keys and values."""

    def __init__(self) -> None:
        self.offset = array(np.zeros(1, np.int32))
        self.shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def update_and_fetch(self, keys: array, values: array) -> tuple[array, array]:
        self.shapes.append((keys.shape, values.shape))
        return keys, values

    def make_mask(self, length: int, return_array: bool = False, window_size: Any = None) -> None:
        return None


def inspect_model(file: ModelFile, model: Any, config: ModelConfig) -> ModelConfig:
    """Run one token, and return the configuration with the sizes that it shows.

    The "layers" of the result are those with a cache.

    Raises:
        NotImplementedError: the layers' keys and values differ in shape, or need other caches.
    """
    with file.running():
        windows = _windows(model)
        caches = [ShapeCache() for _ in windows]
        logits = model(array(np.zeros((1, 1), np.int32)), cache=caches)
        counts = [len(cache.shapes) for cache in caches]
        shapes = {shape for cache in caches for shape in cache.shapes}
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
        num_hidden_layers=len(caches),
        num_attention_heads=keys[1],
        num_key_value_heads=keys[1],
        head_dim=keys[3],
        windows=windows,
    )


def _windows(model: Any) -> tuple[int, ...]:
    """The window of each cache that the file itself would make; 0 for none."""
    if not hasattr(model, "make_cache"):
        return (0,) * len(model.layers)
    caches = model.make_cache()
    others = {type(cache).__name__: None for cache in caches if type(cache).__name__ not in _PAGED}
    if others:
        raise NotImplementedError(
            f"it wants caches of its own ({', '.join(others)}): the engine has keys and values"
        )
    if any(getattr(cache, "keep", 0) for cache in caches):
        raise NotImplementedError("a window that keeps the first tokens")
    return tuple(int(getattr(cache, "max_size", 0)) for cache in caches)


# ---- the model


class FileModel(Module):
    """The file's model `inner`, with the engine's caches."""

    def __init__(self, file: ModelFile, inner: Any, windows: Sequence[int], kv_heads: int) -> None:
        super().__init__()
        self.inner = inner
        self._file, self._windows, self._kv_heads = file, tuple(windows), kv_heads

    def __call__(self, tokens: array, cache: Any = None) -> array:
        if cache is not None:
            both = zip(cache, self._windows, strict=True)
            cache = [replace(c, window=window) for c, window in both]
        with self._file.running():
            logits: array = self.inner(tokens, cache=cache)
        return logits

    @property
    def layers(self) -> Sequence[Any]:
        """One item for each cache."""
        return self._windows

    def shard(self, group: Group) -> None:
        """Keep this rank's part, by the file's own `shard`, which divides evenly.

        Raises:
            ValueError: it has none, or the KV heads do not divide.
        """
        if group.size() == 1:
            return
        heads = self._kv_heads
        if not hasattr(self.inner, "shard") or heads % group.size():
            why = f"{heads} KV heads" if hasattr(self.inner, "shard") else "it has no `shard`"
            raise ValueError(
                f"[model_file] {self._file.name} cannot be divided over {group.size()} ranks "
                f"({why}): start one process"
            )
        with self._file.active():
            self.inner.shard(group)


def build(name: str, checkpoint: Checkpoint) -> tuple[FileModel, ModelConfig]:
    """Make the model of a file, without weights, and the configuration that the engine needs.

    Raises:
        ValueError: the file cannot be imported, or config.json lacks what it wants.
        NotImplementedError: it does not fit the engine.
    """
    file = ModelFile(name)
    with file.active():
        try:
            inner = file.module.Model(file.module.ModelArgs.from_dict(checkpoint.config.raw))
        except Exception as error:
            raise ValueError(
                f"[model_file] {name} makes no model of {checkpoint.folder / 'config.json'}: "
                f"{type(error).__name__}: {error}"
            ) from error
    config = inspect_model(file, inner, checkpoint.config)
    model = FileModel(file, inner, config.windows, config.num_key_value_heads)
    return model, replace(config, windows=())


def load(model: FileModel, checkpoint: Checkpoint) -> FileModel:
    """Load the checkpoint's weights, renamed by the file's own `sanitize`.

    Raises:
        ValueError: names every tensor that is missing, unexpected or of another shape.
        NotImplementedError: a layer class of the file's own has quantised weights.
    """
    weights = {name: checkpoint_array(checkpoint, name) for name in checkpoint.names()}
    inner, quantization = model.inner, checkpoint.config.quantization

    def form(path: str, layer: Module) -> tuple[int, int] | None:
        if not quantization or f"{path}.scales" not in weights:
            return None
        if not hasattr(layer, "empty_quantized"):
            raise NotImplementedError(
                f"[model_file] {model._file.name}: {path} ({type(layer).__name__}) has codes, and "
                "only nn.Linear and nn.Embedding can: give a model of floats"
            )
        return quantization.for_module(path)

    with model._file.active():
        if hasattr(inner, "sanitize"):
            weights = inner.sanitize(weights)
        nn.replace_with_quantized(inner, form, lambda path: f"{path}.order" in weights)
        for name in unused_biases(checkpoint, dict(tree_flatten(inner.parameters()))):
            weights.pop(name, None)
        try:
            inner.load_weights(list(weights.items()))
        except ValueError as error:
            raise ValueError(
                f"[model_file] {model._file.name}: the tensors of {checkpoint.folder} do not fit: "
                f"{error}"
            ) from error
    return model
