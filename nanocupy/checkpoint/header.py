"""The header of a safetensors file, checked completely before anything is mapped.

Accepts what the safetensors library accepts, except for three things that no writer produces and
readers could understand differently: a name given twice, a tensor described by an array instead of
an object, and a header that does not start with `{`.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nanocupy.dtypes import SAFETENSORS, float8_e4m3
from nanocupy.quoting import quoted

MAX_HEADER = 100_000_000
MAX_NAME = 512  # characters of a tensor's name
_U64 = 1 << 64

DTYPES = SAFETENSORS | {"F8_E4M3": float8_e4m3}
"""The NumPy dtype of each dtype of the format that is read."""
BITS = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} | {
    **dict.fromkeys(("F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64},
}
"""Bits of one element of each dtype of the format."""
FLOATS = {name: DTYPES[name] for name in ("F16", "BF16", "F32")}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""The format's name of each NumPy dtype."""


class TensorInfo(NamedTuple):
    """A tensor's place: bytes [offset, offset + nbytes) of `file`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: Path
    offset: int


def read_header(path: Path, file: BinaryIO, size: int) -> dict[str, TensorInfo]:
    """The tensors of an open safetensors file of `size` bytes; ValueError names what is wrong."""
    try:
        text, start = _header_bytes(file, size)
        return _tensors(path, _parse(text), start, size)
    except (_Bad, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a valid safetensors file: {error}") from error


class _Bad(Exception):
    """A header is not valid, and why."""


def _header_bytes(file: BinaryIO, size: int) -> tuple[bytes, int]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8:
        raise _Bad(f"it has {size} bytes, too few for a header")
    if length > MAX_HEADER:
        raise _Bad(f"its header would have {length} bytes, more than {MAX_HEADER}")
    if 8 + length > size:
        raise _Bad(f"its header would end at byte {8 + length}, the file at {size}")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise _Bad("its header does not start with '{'")
    return text, 8 + length


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_unsigned,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise _Bad(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _Bad("its header is not a JSON object")
    return header


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(name for name, times in Counter(n for n, _ in pairs).items() if times > 1)
        raise _Bad(f"its header gives {quoted(twice)} twice")
    if any("\ud800" <= letter <= "\udfff" for name in value for letter in name):
        raise _Bad("its header holds half a surrogate pair")
    return value


def _unsigned(text: str) -> int | float:
    """Read a JSON integer. One that does not fit 64 unsigned bits is no size, so a float."""
    if text.startswith("-") or len(text) > 20 or int(text) >= _U64:
        return _float(text)
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Bad(f"number out of range: {text[:40]}")
    return value


def _constant(text: str) -> float:
    raise _Bad(f"its header holds {text}, which is not JSON")


def _tensors(path: Path, header: dict[str, Any], start: int, size: int) -> dict[str, TensorInfo]:
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    ):
        raise _Bad("__metadata__ is not a map of strings")
    found = {name: _tensor(path, name, info, start) for name, info in header.items()}
    end = start
    for info in sorted(found.values(), key=lambda t: (t.offset, t.offset + t.nbytes)):
        if info.offset != end:
            raise _Bad(
                f"tensor {info.name!r} starts at byte {info.offset - start}, not {end - start}"
            )
        end += info.nbytes
    if end != size:
        raise _Bad(f"its tensors end at byte {end}, the file at {size}")
    return found


def _tensor(path: Path, name: str, info: object, start: int) -> TensorInfo:
    if len(name) > MAX_NAME:
        raise _Bad(f"tensor {quoted(name)} has a name of {len(name):,} characters")
    if not isinstance(info, dict):
        raise _Bad(f"tensor {name!r} is not described by an object")
    dtype = info.get("dtype")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Bad(f"tensor {name!r} has the unknown dtype {quoted(dtype)}")
    shape, offsets = (_sizes(name, key, info) for key in ("shape", "data_offsets"))
    if len(offsets) != 2:
        raise _Bad(f"tensor {name!r} has {len(offsets)} data_offsets, not 2")
    begin, end = offsets
    nbytes = _nbytes(name, dtype, shape)
    if end - begin != nbytes:
        raise _Bad(f"tensor {name!r} needs {nbytes} bytes but has data_offsets {quoted(offsets)}")
    return TensorInfo(name, dtype, tuple(shape), nbytes, path, start + begin)


def _sizes(name: str, key: str, info: dict[str, Any]) -> list[int]:
    value = info.get(key)
    if not isinstance(value, list) or any(type(n) is not int for n in value):
        raise _Bad(f"tensor {name!r} has no valid {key}")
    return value


def _nbytes(name: str, dtype: str, shape: list[int]) -> int:
    bits = 1
    for factor in (*shape, BITS[dtype]):
        bits *= factor
        if bits >= _U64:
            raise _Bad(f"tensor {name!r} is too large: {quoted(shape)}")
    if bits % 8:
        raise _Bad(f"tensor {name!r} does not fill whole bytes")
    return bits // 8
