"""Write a model folder tensor by tensor, so that a whole model is never in memory."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint.header import DTYPES


class Entry(NamedTuple):
    """A tensor to be written: safetensors dtype ("F32", "U32", ...), shape, bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, dtype: str, shape: tuple[int, ...]) -> Entry:
        return cls(dtype, shape, math.prod(shape) * DTYPES[dtype].itemsize)


def write_safetensors(
    path: Path,
    entries: Mapping[str, Entry],
    tensors: Iterable[tuple[str, NDArray[np.generic]]],
    metadata: Mapping[str, str],
) -> None:
    """Write `tensors`, which have the order and the sizes of `entries`."""
    with path.open("xb") as file:
        file.write(_header(entries, metadata))
        names = iter(entries)
        for name, array in tensors:
            assert name == next(names) and array.nbytes == entries[name].nbytes, name
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        assert next(names, None) is None


def write_shards(
    folder: Path,
    entries: Mapping[str, Entry],
    tensors: Iterable[tuple[str, NDArray[np.generic]]],
    metadata: Mapping[str, str],
    most: int,
) -> None:
    """As `write_safetensors`, in files of at most `most` bytes each, and an index of several.

    A tensor is never divided, so a larger one makes a larger file.
    """
    shards: list[dict[str, Entry]] = []
    for name, entry in entries.items():
        if not shards or sum(e.nbytes for e in shards[-1].values()) + entry.nbytes > most:
            shards.append({})
        shards[-1][name] = entry
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", entries, tensors, metadata)
        return
    rest = iter(tensors)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / file, shard, islice(rest, len(shard)), metadata)
        weight_map |= dict.fromkeys(shard, file)
    total = {"total_size": sum(entry.nbytes for entry in entries.values())}
    index = {"metadata": total, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill. It becomes `out` when the block ends, and is deleted if it raises.

    Raises:
        ValueError: `out` exists and is not empty.
        Unwritable: the system refuses a write.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; convert into a new folder")
    with scratch(out) as partial:
        yield partial
        partial.chmod(0o755)
        if out.exists():  # empty, as checked above; not every platform renames over a folder
            out.rmdir()
        partial.rename(out)


class Unwritable(OSError):
    """A folder that cannot be written; `reason` is the system's error."""

    def __init__(self, out: Path, reason: OSError) -> None:
        super().__init__(
            f"cannot write {out}: {reason}. Choose a folder where you may write, with room enough"
        )
        self.out, self.reason = out, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.out, self.reason), self.__dict__


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`, which is deleted when the block ends.

    Raises:
        Unwritable: the system refuses a write.
    """
    partial = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        yield partial
    except OSError as error:
        reason = error.reason if isinstance(error, Unwritable) else error
        raise Unwritable(out, reason) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, value: object, indent: int | None = 2) -> None:
    """Write JSON in UTF-8."""
    path.write_bytes(json.dumps(value, ensure_ascii=False, indent=indent).encode())


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
