"""Arrays in files, as `mlx.core` reads and writes them: npy, npz, safetensors.

A file of safetensors is mapped, so that a tensor is read when it is used. Nothing in a file is run:
NumPy's object arrays are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from nanocupy.core.array import array, as_array

_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def _path(file: Any, suffix: str) -> Path:
    path = Path(file)
    return path if path.suffix == suffix else path.with_name(path.name + suffix)


def _plain(value: Any) -> np.ndarray:
    """An array that NumPy's formats know."""
    host = as_array(value).numpy()
    if host.dtype.kind == "V":
        raise ValueError(f"[save] {host.dtype} in NumPy's formats: use save_safetensors")
    return host


def save(file: Any, arr: Any) -> None:
    """Write an npy file; ".npy" is appended to a name without it."""
    np.save(_path(file, ".npy"), _plain(arr), allow_pickle=False)


def savez(file: Any, *args: Any, **kwargs: Any) -> None:
    """Write an npz file: unnamed arrays become arr_0, arr_1 and so on."""
    named: dict[str, Any] = {k: _plain(v) for k, v in kwargs.items()}
    np.savez(_path(file, ".npz"), *(_plain(v) for v in args), **named)


def savez_compressed(file: Any, *args: Any, **kwargs: Any) -> None:
    """`savez`, compressed."""
    named: dict[str, Any] = {k: _plain(v) for k, v in kwargs.items()}
    np.savez_compressed(_path(file, ".npz"), *(_plain(v) for v in args), **named)


def save_safetensors(
    file: Any, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; ".safetensors" is appended to a name without it."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    values, end = [], 0
    for name, value in arrays.items():
        host = as_array(value).numpy()
        start, end = end, end + host.nbytes
        shape, kind = list(host.shape), _NAMES[host.dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        values.append(host)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _path(file, ".safetensors").open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for host in values:
            out.write(host.tobytes())


def load(file: Any, /, format: str | None = None, return_metadata: bool = False) -> Any:
    """The array of an npy file, or {name: array} of an npz or safetensors file.

    Args:
        format: of the file; None: what its name ends in.
        return_metadata: of a safetensors file, ({name: array}, {key: text}).

    Raises:
        NotImplementedError: another format; GGUF files are for `nanocupy.checkpoint`.
    """
    kind = format or Path(file).suffix.lstrip(".")
    if kind == "npy":
        return array(np.load(file, allow_pickle=False))
    if kind == "npz":
        with np.load(file, allow_pickle=False) as found:
            return {name: array(found[name]) for name in found.files}
    if kind == "safetensors":
        arrays, metadata = _load_safetensors(Path(file))
        return (arrays, metadata) if return_metadata else arrays
    raise NotImplementedError(f"[load] format {kind!r}: npy, npz or safetensors")


def _load_safetensors(path: Path) -> tuple[dict[str, array], dict[str, str]]:
    raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    size = int.from_bytes(raw[:8].tobytes(), "little") if len(raw) >= 8 else -1
    if not 0 < size <= len(raw) - 8:
        raise ValueError(f"[load] {path} is no safetensors file")
    header = json.loads(raw[8 : 8 + size].tobytes())
    metadata = header.pop("__metadata__", {})
    data = raw[8 + size :]
    arrays = {name: array(_tensor(path, name, data, entry)) for name, entry in header.items()}
    return arrays, metadata


def _tensor(path: Path, name: str, data: np.ndarray, entry: Any) -> np.ndarray:
    start, stop = entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:
        raise NotImplementedError(f"[load] {path}: {name} has dtype {entry['dtype']}")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if not 0 <= start <= stop <= len(data) or stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"[load] {path}: {name} lies outside of the file or has another size")
    piece = data[start:stop]
    return np.frombuffer(piece, dtype).reshape(shape) if len(piece) else np.zeros(shape, dtype)
