"""Write a safetensors file tensor by tensor, so that a whole model is never in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Entry(NamedTuple):
    """A tensor to be written: safetensors dtype ("F32", "U32", ...), shape, bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def write_safetensors(
    path: Path,
    entries: Mapping[str, Entry],
    tensors: Iterable[tuple[str, NDArray[np.generic]]],
    metadata: Mapping[str, str],
) -> None:
    """Write `tensors`, which come in the order of `entries` with exactly its sizes."""
    with path.open("xb") as file:
        file.write(_header(entries, metadata))
        names = iter(entries)
        for name, array in tensors:
            assert name == next(names) and array.nbytes == entries[name].nbytes, name
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        assert next(names, None) is None


def _header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, entry in entries.items():
        end = offset + entry.nbytes
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data starts aligned
    return len(text).to_bytes(8, "little") + text
