"""A GGUF file: its metadata and its tensors as raw rows. The one place that imports gguf."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class GgufTensor(NamedTuple):
    """A tensor as it lies in the file: `shape` in NumPy's order, `raw` mapped, read-only."""

    name: str
    kind: str
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]

    @property
    def rows(self) -> NDArray[np.uint8]:
        """uint8 [N, bytes of a row]; a vector is one row."""
        return self.raw.reshape(self.shape[0] if len(self.shape) == 2 else 1, -1)


class GgufFile:
    """Metadata and tensors of a little-endian GGUF file, mapped.

    Raises ValueError when it is not one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = _open(path)
        self._fields = reader.fields
        self.tensors = {t.name: _tensor(path, t) for t in reader.tensors}

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The metadata value of `key`, which must be a `kind`; ValueError if it is missing."""
        if key not in self._fields:
            if default is None:
                raise ValueError(f"{self.path}: the GGUF metadata has no '{key}'")
            return default
        value: Any = self._fields[key].contents()
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(
                f"{self.path}: GGUF metadata '{key}' should be {kind.__name__}, "
                f"got {type(value).__name__}"
            )
        return value


def _open(path: Path) -> Any:
    from gguf import GGUFReader

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file: it does not start with 'GGUF'")
    try:
        reader = GGUFReader(path)
    except (ValueError, KeyError, IndexError, OverflowError, MemoryError, TypeError) as error:
        raise ValueError(f"{path} is not a readable GGUF file: {error}") from error
    if reader.byte_order != "I":
        raise ValueError(f"{path} is a big-endian GGUF file; only little-endian ones are supported")
    return reader


def _tensor(path: Path, tensor: Any) -> GgufTensor:
    shape = tuple(int(n) for n in reversed(tensor.shape))
    raw = np.asarray(tensor.data).reshape(-1).view(np.uint8)
    if len(shape) > 2:
        raise ValueError(f"{path}: tensor {tensor.name} has {len(shape)} dimensions, at most 2 do")
    return GgufTensor(tensor.name, tensor.tensor_type.name, shape, raw)
