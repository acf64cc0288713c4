"""A GGUF file's counts and places: refused for what they say, however much of a file follows."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from nanocupy.checkpoint import gguf_file
from nanocupy.checkpoint.gguf_file import GgufFile

BYTES, TEXT, ARRAY = 0, 8, 9  # types of values
F32 = 0


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def written(path: Path, tensors: int, keys: int, rest: bytes, size: int = 1 << 26) -> Path:
    """A file that says so, with zeros to its end: there is room for whatever it promises."""
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + rest)
    os.truncate(path, size)
    return path


KEY = text(b"a.key")
TOO_MANY = {
    "the number of tensors": (gguf_file.MAX_TENSORS + 1, 0, b""),
    "the number of keys": (0, gguf_file.MAX_KEYS + 1, b""),
    "the length of a.key": (
        0, 1, KEY + struct.pack("<IQ", TEXT, gguf_file.MAX_TEXT + 1),
    ),
    "the length of an array": (
        0, 1, KEY + struct.pack("<IIQ", ARRAY, BYTES, gguf_file.MAX_ITEMS + 1),
    ),
    "the length of an array of texts": (
        0, 1, KEY + struct.pack("<IIQ", ARRAY, TEXT, gguf_file.MAX_ITEMS + 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("counts", TOO_MANY.values(), ids=TOO_MANY)
def test_counts_have_limits(tmp_path: Path, counts: tuple[int, int, bytes]) -> None:
    with pytest.raises(ValueError, match=r"is \d+, more than \d+"):
        GgufFile(written(tmp_path / "m.gguf", *counts))


def test_arrays_in_arrays_of_arrays(tmp_path: Path) -> None:
    nested = struct.pack("<IQ", ARRAY, 1) * 40
    with pytest.raises(ValueError, match="not a readable GGUF file"):
        GgufFile(written(tmp_path / "m.gguf", 0, 1, KEY + struct.pack("<I", ARRAY) + nested))


def tensor(name: bytes, offset: int) -> bytes:
    """Eight floats."""
    return text(name) + struct.pack("<IQIQ", 1, 8, F32, offset)


@pytest.mark.parametrize("offset", [0, 16, 64, 1 << 40, 2**64 - 32])
def test_tensors_lie_one_after_another(tmp_path: Path, offset: int) -> None:
    """Neither on each other, nor with anything between them, nor beyond the end."""
    names = tensor(b"one", 0) + tensor(b"two", 32)
    good = GgufFile(written(tmp_path / "good.gguf", 2, 0, names, 4096))
    assert good.tensors["two"].offset - good.tensors["one"].offset == 32
    moved = tensor(b"one", 0) + tensor(b"two", offset)
    with pytest.raises(ValueError, match=rf"'two' starts at {offset}, not 32"):
        GgufFile(written(tmp_path / "m.gguf", 2, 0, moved, 4096))
