"""A GGUF file: its metadata and its list of tensors, checked completely before a tensor is read.

Every count is compared with the bytes that are left before anything is read or allocated, so that a
damaged file is refused in bounded time and memory. As for llama.cpp, tensors lie one after another.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from nanocupy.quoting import quoted

T = TypeVar("T")

MAX_METADATA = 1 << 28  # bytes before the tensors
MAX_ITEMS = 1 << 22  # elements of an array: sixteen times the largest vocabularies
MAX_KEYS, MAX_TENSORS, MAX_TEXT, MAX_NAME = 1 << 16, 1 << 17, 1 << 24, 512
_STRING, _ARRAY = 8, 9
_SCALARS = dict(enumerate("BbHhIif?", 0)) | {10: "Q", 11: "q", 12: "d"}  # struct's letters

KINDS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip
"""Types of tensors by number: name, elements of a block, bytes of a block."""


class GgufTensor(NamedTuple):
    """A tensor's place: bytes [offset, offset + nbytes) of file number `part`, counted from 0.

    `shape` is in NumPy's order.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int
    part: int = 0


class GgufFile:
    """A mapped little-endian GGUF file, or all files that one was split into.

    Args:
        path: the file; of a split one, the first (`...-00001-of-00003.gguf`).

    Raises:
        ValueError: it is no GGUF file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        first = _Part(path)
        self.metadata, self.tensors = first.metadata, first.tensors
        self._maps = [first.map]
        self.read_keys: set[str] = set()
        for number, name in enumerate(self._others(), 1):
            self._add(_Part(name), number)

    def _others(self) -> list[Path]:
        """The other files of a model that was split."""
        count, number = self.get("split.count", int, 1), self.get("split.no", int, 0)
        if count < 2:
            return []
        names = part_names(self.path.name)
        if number != 0 or len(names) != count or names[0] != self.path.name:
            raise ValueError(
                f"{self.path} is file {number + 1} of {count}: give the first, "
                f"named NAME-00001-of-{count:05}.gguf, with the others beside it"
            )
        return [self.path.with_name(name) for name in names[1:]]

    def _add(self, part: _Part, number: int) -> None:
        if part.metadata.get("split.no") != number:
            raise ValueError(f"{part.path} is not file {number + 1} of {self.path}")
        if twice := self.tensors.keys() & part.tensors.keys():
            raise ValueError(f"{part.path}: tensor {min(twice)!r} is in another file, too")
        self._maps.append(part.map)
        self.tensors |= {n: tensor._replace(part=number) for n, tensor in part.tensors.items()}

    def __contains__(self, key: str) -> bool:
        return key in self.metadata

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The metadata value of `key`; ValueError if it is missing, or not a `kind`."""
        self.read_keys.add(key)
        if key not in self.metadata:
            if default is None:
                raise ValueError(f"{self.path}: the GGUF metadata has no '{key}'")
            return default
        value: Any = self.metadata[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(
                f"{self.path}: GGUF metadata '{key}' should be {kind.__name__}, "
                f"got {type(value).__name__}"
            )
        return value

    def raw(self, tensor: GgufTensor) -> NDArray[np.uint8]:
        """The bytes of a tensor as rows, uint8 [rows, bytes of a row], mapped and read-only.

        A vector is one row; a stack of matrices has the rows of all of them.
        """
        rows = int(np.prod(tensor.shape[:-1]))
        flat = np.frombuffer(self._maps[tensor.part], np.uint8, tensor.nbytes, tensor.offset)
        return flat.reshape(rows, -1)

    def release_pages(self, tensor: GgufTensor) -> None:
        """Release a tensor's pages; another read loads them again."""
        data, page = self._maps[tensor.part], mmap.PAGESIZE
        start, end = tensor.offset // page * page, tensor.offset + tensor.nbytes
        if hasattr(data, "madvise"):  # Windows has no such call
            data.madvise(mmap.MADV_DONTNEED, start, end - start)


_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def part_names(name: str) -> list[str]:
    """The names of all files that a model was split into; else the name itself."""
    found = _SPLIT.fullmatch(name)
    if not found:
        return [name]
    count = int(found[3])
    return [f"{found[1]}-{i:05}-of-{found[3]}.gguf" for i in range(1, count + 1)]


class _Part:
    """One mapped file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ValueError(f"{path} does not exist or is no file")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError(f"{path} is not a GGUF file: it does not start with 'GGUF'")
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        cursor = _Cursor(self.map)
        try:
            tensors, keys = _counts(cursor)
            self.metadata = _metadata(cursor, keys)
            self.tensors = _tensors(cursor, tensors, self.metadata, len(self.map))
        except _Bad as error:
            raise ValueError(f"{path} is not a readable GGUF file: {error}") from error


class _Bad(Exception):
    """What is wrong with the file."""


class _Cursor:
    """A reader of one value after another, never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.end = data, 4, min(len(data), MAX_METADATA)

    def take(self, nbytes: int, what: str) -> int:
        """Advance by `nbytes`; return where they start."""
        start = self.at
        if nbytes > self.end - start:
            where = "the file" if self.end == len(self.data) else f"the first {MAX_METADATA} bytes"
            raise _Bad(f"{what} at byte {start} would end outside {where}")
        self.at = start + nbytes
        return start

    def number(self, letter: str, what: str) -> Any:
        start = self.take(struct.calcsize(f"<{letter}"), what)
        return struct.unpack_from(f"<{letter}", self.data, start)[0]

    def count(self, most: int, what: str) -> int:
        found: int = self.number("Q", what)
        if found > most:
            raise _Bad(f"{what} is {found}, more than {most}")
        return found

    def text(self, what: str, most: int = MAX_TEXT) -> str:
        length = self.count(most, f"the length of {what}")
        start = self.take(length, what)
        return _decoded(self.data[start : start + length], what)

    def numbers(self, letter: str, count: int, what: str) -> list[Any]:
        start = self.take(count * struct.calcsize(f"<{letter}"), what)
        found: list[Any] = np.frombuffer(self.data, f"<{letter}", count, start).tolist()
        return found

    def texts(self, count: int, what: str) -> list[str]:
        """Read `count` texts, without a call for each."""
        if 8 * count > self.end - self.at:
            raise _Bad(f"{what} would hold {count} texts, more than fit into the file")
        unpack, data, at, end = struct.Struct("<Q").unpack_from, self.data, self.at, self.end
        found = []
        for _ in range(count):
            if at + 8 > end:
                raise _Bad(f"{what} would end outside the file")
            length = unpack(data, at)[0]
            if length > end - at - 8:
                raise _Bad(f"{what} would end outside the file")
            found.append(data[at + 8 : at + 8 + length])
            at += 8 + length
        self.at = at
        return [_decoded(raw, what) for raw in found]


def _decoded(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Bad(f"{what} is not UTF-8: {error}") from error


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """(number of tensors, number of keys)."""
    version: int = cursor.number("I", "the version")
    if version and version & 0xFFFF == 0:
        raise _Bad("it is big-endian; only little-endian files are supported")
    if version not in (2, 3):
        raise _Bad(f"it has version {version}; 2 and 3 are supported")
    tensors = cursor.count(MAX_TENSORS, "the number of tensors")
    return tensors, cursor.count(MAX_KEYS, "the number of keys")


def _metadata(cursor: _Cursor, keys: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text("a key", MAX_NAME)
        if key in found:
            raise _Bad(f"the key {key!r} is there twice")
        found[key] = _value(cursor, cursor.number("I", f"the type of {key!r}"), repr(key))
    return found


def _value(cursor: _Cursor, kind: int, what: str) -> Any:
    if kind == _STRING:
        return cursor.text(what)
    if kind == _ARRAY:
        inner: int = cursor.number("I", f"the type in {what}")
        count = cursor.count(MAX_ITEMS, f"the length of {what}")
        if inner == _STRING:
            return cursor.texts(count, what)
        return cursor.numbers(_letter(inner, what), count, what)
    return cursor.number(_letter(kind, what), what)


def _letter(kind: int, what: str) -> str:
    if kind not in _SCALARS:
        raise _Bad(f"{what} has values of the unknown or unsupported type {kind}")
    return _SCALARS[kind]


def _tensors(
    cursor: _Cursor, count: int, metadata: dict[str, Any], size: int
) -> dict[str, GgufTensor]:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment not in (8 << i for i in range(14)):
        raise _Bad(f"general.alignment {quoted(alignment)} is not a power of two from 8 to 65536")
    entries = [_entry(cursor) for _ in range(count)]
    start = -(-cursor.at // alignment) * alignment
    found: dict[str, GgufTensor] = {}
    expected = 0
    for tensor in entries:
        if tensor.name in found:
            raise _Bad(f"the tensor {tensor.name!r} is there twice")
        if tensor.offset != expected:
            raise _Bad(f"tensor {tensor.name!r} starts at {tensor.offset}, not {expected}")
        if start + expected + tensor.nbytes > size:
            raise _Bad(
                f"tensor {tensor.name!r} would end at byte {start + expected + tensor.nbytes}, "
                f"the file at {size}"
            )
        found[tensor.name] = tensor._replace(offset=start + expected)
        expected += -(-tensor.nbytes // alignment) * alignment
    return found


def _entry(cursor: _Cursor) -> GgufTensor:
    """Read an entry of the list of tensors; its offset is relative to the data."""
    name = cursor.text("the name of a tensor", MAX_NAME)
    dimensions: int = cursor.number("I", f"the dimensions of {name!r}")
    if not 1 <= dimensions <= 4:
        raise _Bad(f"tensor {name!r} has {dimensions} dimensions; 1 to 4 are supported")
    shape = [int(cursor.number("Q", f"the shape of {name!r}")) for _ in range(dimensions)]
    number: int = cursor.number("I", f"the type of {name!r}")
    if number not in KINDS:
        raise _Bad(f"tensor {name!r} has the unknown type {number}")
    kind, block, block_bytes = KINDS[number]
    elements = 1
    for length in shape:
        elements *= length
        if not 0 < elements < 1 << 50:
            raise _Bad(f"tensor {name!r} has the shape {shape}")
    if shape[0] % block:
        raise _Bad(f"tensor {name!r} has rows of {shape[0]}, not whole blocks of {block} ({kind})")
    nbytes = elements // block * block_bytes
    offset: int = cursor.number("Q", f"the offset of {name!r}")
    return GgufTensor(name, kind, tuple(reversed(shape)), nbytes, offset)
