"""Arrays in files, as `mlx.core` reads and writes them: npy, npz, safetensors.

A file of safetensors that has a path is mapped, so that a tensor is read when it is used: it may be
replaced meanwhile, as `save_safetensors` does it, but not written over. Nothing in a file is run:
NumPy's object arrays are refused.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, shared
from nanocupy.dtypes import KINDS, SAFETENSORS

_READ: dict[str, Any] = {**SAFETENSORS, "F8_E4M3": np.uint8}  # codes: see `from_fp8`


def _path(name: str, file: Any, suffix: str) -> Path:
    if not isinstance(file, str | os.PathLike):
        raise ValueError(f"[{name}] file={str(file)[:60]}: expected a path or an open binary file")
    path = Path(file)
    return path if path.suffix == suffix else path.with_name(path.name + suffix)


@contextmanager
def _written(name: str, file: Any, suffix: str) -> Iterator[Any]:
    """A file to write: an open one, or one that takes the place of the path's when all is there,
    since arrays may lie in the old one."""
    if hasattr(file, "write") and not isinstance(file, TextIOBase):
        yield file
        return
    path = Path(os.path.realpath(_path(name, file, suffix)))
    if path.exists() and not path.is_file():  # a device or a pipe
        with path.open("wb") as out:
            yield out
        return
    new = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with new.open("wb") as out:
            yield out
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _plain(value: Any) -> np.ndarray:
    """An array that NumPy's formats know."""
    host = as_array(value).numpy()
    if host.dtype.kind == "V":
        raise ValueError(f"[save] {host.dtype} in NumPy's formats: use save_safetensors")
    return host


def save(file: Any, arr: Any) -> None:
    """Write an npy file, open or named; ".npy" is appended to a name without it."""
    host = _plain(arr)
    with _written("save", file, ".npy") as out:
        np.save(out, host, allow_pickle=False)


def savez(file: Any, *args: Any, **kwargs: Any) -> None:
    """Write an npz file, open or named: unnamed arrays become arr_0, arr_1 and so on."""
    _save_npz("savez", np.savez, file, args, kwargs)


def savez_compressed(file: Any, *args: Any, **kwargs: Any) -> None:
    """`savez`, compressed."""
    _save_npz("savez_compressed", np.savez_compressed, file, args, kwargs)


def _save_npz(name: str, write: Any, file: Any, args: tuple[Any, ...], named: Any) -> None:
    unnamed = {f"arr_{i}": value for i, value in enumerate(args)}
    if twice := sorted(unnamed.keys() & named.keys()):
        raise ValueError(f"[{name}] {twice[0]} is the name of an unnamed array, too: rename it")
    values: dict[str, Any] = {k: _plain(v) for k, v in {**unnamed, **named}.items()}
    with _written(name, file, ".npz") as out:
        write(out, **values)


def save_safetensors(
    file: Any, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, open or named; ".safetensors" is appended to a name without it.

    Raises:
        ValueError: a name or something in `metadata` is no text.
    """
    _of_text(arrays, metadata)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    values, end = [], 0
    for name, value in arrays.items():
        host = as_array(value).numpy()
        start, end = end, end + host.nbytes
        shape, kind = list(host.shape), KINDS[host.dtype].upper()
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        values.append(host)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _written("save_safetensors", file, ".safetensors") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for host in values:
            out.write(host.tobytes())


def _of_text(arrays: Any, metadata: Any) -> None:
    if not isinstance(arrays, Mapping) or not isinstance(metadata, Mapping | None):
        raise ValueError(
            f"[save_safetensors] arrays is {type(arrays).__name__}, metadata "
            f"{type(metadata).__name__}: expected dicts"
        )
    for name in arrays:
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"[save_safetensors] array {str(name)[:60]!r}: give it another name")
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(
                f"[save_safetensors] metadata {str(key)[:60]!r} is {type(value).__name__}: "
                "expected text"
            )


def load(file: Any, /, format: str | None = None, return_metadata: bool = False) -> Any:
    """The array of an npy file, or {name: array} of an npz or safetensors file.

    Args:
        file: a path, or an open binary file.
        format: of the file; None: what its name ends in.
        return_metadata: of a safetensors file, ({name: array}, {key: text}).

    Raises:
        ValueError: the file is damaged, or has no name to tell its format by.
        NotImplementedError: another format; GGUF files are for `nanocupy.checkpoint`.
    """
    opened = hasattr(file, "read")
    if isinstance(file, TextIOBase) or not (opened or isinstance(file, str | os.PathLike)):
        raise ValueError(f"[load] file={str(file)[:60]}: expected a path or an open binary file")
    kind = format or Path(str(getattr(file, "name", "")) if opened else file).suffix.lstrip(".")
    if not kind:
        raise ValueError(f"[load] {str(file)[:200]}: its name tells no format: give format=")
    if return_metadata and kind in ("npy", "npz"):
        raise ValueError(f"[load] return_metadata=True: {kind} files have none")
    if kind in ("npy", "npz"):
        return _load_numpy(file, kind)
    if kind == "safetensors":
        arrays, metadata = _load_safetensors(*_bytes(file, opened))
        return (arrays, metadata) if return_metadata else arrays
    raise NotImplementedError(f"[load] format {kind[:40]!r}: npy, npz or safetensors")


def _load_numpy(file: Any, kind: str) -> Any:
    found = np.load(file, allow_pickle=False)
    if isinstance(found, np.ndarray) != (kind == "npy"):
        raise ValueError(f"[load] {str(file)[:200]} is no {kind} file")
    if kind == "npy":
        return shared(found)
    with found:
        return {name: shared(found[name]) for name in found.files}


def _bytes(file: Any, opened: bool) -> tuple[str, np.ndarray]:
    """(name, bytes) of a file, which is mapped if it has a path."""
    if opened:
        return str(getattr(file, "name", "file"))[:200], np.frombuffer(file.read(), np.uint8)
    empty = not Path(file).stat().st_size
    return str(file), np.zeros(0, np.uint8) if empty else np.memmap(file, np.uint8, "r")


def _load_safetensors(path: str, raw: np.ndarray) -> tuple[dict[str, array], dict[str, str]]:
    size = int.from_bytes(raw[:8].tobytes(), "little") if len(raw) >= 8 else -1
    if not 0 < size <= len(raw) - 8:
        raise ValueError(f"[load] {path} is no safetensors file")
    header = json.loads(raw[8 : 8 + size].tobytes())
    metadata = header.pop("__metadata__", {})
    data = raw[8 + size :]
    arrays = {name: shared(_tensor(path, name, data, entry)) for name, entry in header.items()}
    return arrays, metadata


def _tensor(path: str, name: str, data: np.ndarray, entry: Any) -> np.ndarray:
    start, stop = entry["data_offsets"]
    if entry["dtype"] not in _READ:
        raise NotImplementedError(f"[load] {path}: {name} has dtype {entry['dtype']}")
    dtype, shape = np.dtype(_READ[entry["dtype"]]), tuple(entry["shape"])
    if not 0 <= start <= stop <= len(data) or stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"[load] {path}: {name} lies outside of the file or has another size")
    piece = data[start:stop]
    return np.frombuffer(piece, dtype).reshape(shape) if len(piece) else np.zeros(shape, dtype)
