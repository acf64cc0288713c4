"""What files of weights say of counts and places is refused for itself, whatever follows."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from nanocupy.checkpoint.gguf import file as gguf_file
from nanocupy.checkpoint.gguf.file import GgufFile
from nanocupy.checkpoint.header import MAX_HEADER, read_header

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


@pytest.mark.parametrize("length", [8, 4096, 2**40, 2**64 - 1])
def test_a_text_that_ends_outside_the_file(tmp_path: Path, length: int) -> None:
    """The last of an array, where nothing after it would be missed."""
    array = struct.pack("<IIQ", ARRAY, TEXT, 2) + text(b"") + struct.pack("<Q", length)
    rest = KEY + array + b"1234567"
    with pytest.raises(ValueError, match=r"'a.key' would end outside the file"):
        GgufFile(written(tmp_path / "m.gguf", 0, 1, rest, 24 + len(rest)))


def test_more_texts_than_a_file_holds(tmp_path: Path) -> None:
    rest = KEY + struct.pack("<IIQ", ARRAY, TEXT, 1 << 20)
    with pytest.raises(ValueError, match="1048576 texts, more than fit into the file"):
        GgufFile(written(tmp_path / "m.gguf", 0, 1, rest, 1 << 20))


def test_a_safetensors_header_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", MAX_HEADER + 1) + b"{}")
    os.truncate(path, MAX_HEADER + 64)
    with path.open("rb") as file, pytest.raises(ValueError, match=f"more than {MAX_HEADER}"):
        read_header(path, file, MAX_HEADER + 64)


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
