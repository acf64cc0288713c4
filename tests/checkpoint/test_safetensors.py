from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nanocupy.checkpoint import Checkpoint
from nanocupy.checkpoint.header import BITS, TensorInfo, read_header
from nanocupy.checkpoint.writer import Entry, write_safetensors

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 8,
    "max_position_embeddings": 8,
}
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def file_of(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def header_of(path: Path) -> dict[str, TensorInfo]:
    with path.open("rb") as file:
        return read_header(path, file, path.stat().st_size)


def ours(path: Path) -> bool:
    try:
        header_of(path)
    except ValueError as error:
        assert str(path) in str(error)
        return False
    return True


def theirs(path: Path) -> bool:
    try:
        with safe_open(path, "np"):
            return True
    except SafetensorError:
        return False


def folder_with(folder: Path, **files: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


# --- the header, against the safetensors library ---------------------------------------------


def cases() -> list[tuple[bytes, bytes]]:
    """Hand-made headers on both sides of every rule."""
    four, info = b"\0" * 4, json.dumps(F32).encode()
    made: list[tuple[Any, bytes]] = [
        ({}, b""),
        ({}, four),
        ({"__metadata__": None}, b""),
        ({"__metadata__": {"a": "b"}, "a": F32}, four),
        ({"__metadata__": {"a": 1}}, b""),
        ({"__metadata__": []}, b""),
        ({"a": {**F32, "extra": [1, {"b": None}]}}, four),
        ({"a": {"dtype": "F32", "shape": [1]}}, four),
        ({"a": {**F32, "dtype": "f32"}}, four),
        ({"a": {**F32, "dtype": None}}, four),
        ({"a": {**F32, "shape": []}}, four),
        ({"a": {**F32, "shape": 1}}, four),
        ({"a": {**F32, "shape": [1.0]}}, four),
        ({"a": {**F32, "shape": [True]}}, four),
        ({"a": {**F32, "shape": [-1]}}, four),
        ({"a": {**F32, "shape": ["1"]}}, four),
        ({"a": {**F32, "data_offsets": [0, 4, 4]}}, four),
        ({"a": {**F32, "data_offsets": [4, 0]}}, four),
        ({"a": {**F32, "data_offsets": [0, 5]}}, four + b"\0"),
        ({"a": F32, "b": F32}, four),
        ({"a": F32, "b": {**F32, "data_offsets": [4, 8]}}, four * 2),
        ({"b": {**F32, "data_offsets": [4, 8]}, "a": F32}, four * 2),
        ({"a": F32, "b": {**F32, "data_offsets": [5, 9]}}, four * 3),
        ({"a": F32}, four * 2),
        ({"a": F32}, b"\0" * 3),
        ({"a": {**F32, "shape": [0, 5], "data_offsets": [0, 0]}}, b""),
        ({"a": F32, "b": {**F32, "shape": [0], "data_offsets": [2, 2]}}, four),
        ({"a": F32, "b": {**F32, "shape": [0], "data_offsets": [0, 0]}}, four),
        ({"a": F32, "b": {**F32, "shape": [0], "data_offsets": [4, 4]}}, four),
        ({"a": {**F32, "shape": [1 << 63, 2, 0], "data_offsets": [0, 0]}}, b""),
        ({"a": {**F32, "shape": [0, 1 << 63, 2], "data_offsets": [0, 0]}}, b""),
        ({"a": {**F32, "shape": [1 << 64, 0], "data_offsets": [0, 0]}}, b""),
        ({"a": {**F32, "shape": [1 << 62], "data_offsets": [0, 1 << 64]}}, b""),
        ({"": F32}, four),
        ({"\0": F32}, four),
        ({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        ([], b""),
        (7, b""),
        (None, b""),
    ]
    raw = [
        (b"", b""),
        (b"{", b""),
        (b'{"a":' + info + b"}   ", four),
        (b'{"a":' + info + b"}\n\t", four),
        (b'{"a":' + info + b"}\0", four),
        (b'\xef\xbb\xbf{"a":' + info + b"}", four),
        (b'{"\xff":' + info + b"}", four),
        (b'{"\\ud800":' + info + b"}", four),
        (b'{"\\ud83d\\ude00":' + info + b"}", four),
        (b'{"a\n":' + info + b"}", four),
        (b'{"a":{"dtype":"F\\u00332","shape":[1],"data_offsets":[0,4]}}', four),
        (b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four),
        (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[-0,0]}}', b""),
        (b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', four),
        (b'{"a":{"dtype":"F32","shape":[01],"data_offsets":[0,4]}}', four),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":NaN}}', four),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1e999}}', four),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":' + b"[" * 200_000, four),
        (b'{"__metadata__":{},"__metadata__":{}}', b""),
        (b"{'a':1}", b""),
        (b"{}{}", b""),
    ]
    return [(json.dumps(h).encode(), data) for h, data in made] + raw


def test_hand_made_headers_are_accepted_as_the_library_does(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    sides = set()
    for header, data in cases():
        path.write_bytes(file_of(header, data))
        assert ours(path) == theirs(path), header[:200]
        sides.add(ours(path))
    assert sides == {True, False}


@pytest.mark.parametrize("dtype", list(BITS))
def test_every_dtype_has_the_librarys_size(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.safetensors"
    for nbytes in (4, 6, 8, 16, 32, 64):
        info = {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, nbytes]}
        path.write_bytes(file_of(json.dumps({"a": info}).encode(), b"\0" * nbytes))
        assert ours(path) == theirs(path) == (BITS[dtype] == nbytes)


@pytest.mark.parametrize("length", [0, 1, 100_000_000, 100_000_001, 1 << 40, (1 << 64) - 1])
def test_header_lengths(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    for tail in (b"", b"{}", b'{"a":1}'):
        path.write_bytes(length.to_bytes(8, "little") + tail)
        assert ours(path) == theirs(path)
    path.write_bytes(b"\0" * 7)
    assert not ours(path) and not theirs(path)


def test_stricter_than_the_library_only_where_said(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    info = json.dumps(F32).encode()
    for header in (
        b'{"a":' + info + b',"a":' + info + b"}",
        b'{"__metadata__":{"a":"1","a":"2"}}',
        b'{"a":["F32",[1],[0,4]]}',
        b' {"a":' + info + b"}",
    ):
        path.write_bytes(file_of(header, b"\0" * 4 if b"F32" in header else b""))
        assert theirs(path) and not ours(path)


def valid_file() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]},
        "scale": {"dtype": "F32", "shape": [], "data_offsets": [12, 16]},
        "none": {"dtype": "I64", "shape": [4, 0], "data_offsets": [16, 16]},
        "q": {"dtype": "U32", "shape": [2], "data_offsets": [16, 24]},
    }
    return file_of(json.dumps(header).encode(), bytes(24))


def test_flipped_bytes_are_accepted_as_the_library_does(tmp_path: Path) -> None:
    whole, path, rng = valid_file(), tmp_path / "x.safetensors", random.Random(5)
    alphabet = b'{}[]",:0123456789-.eE\\ \nFUIB\x00\xff'
    accepted = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data[rng.randrange(8, len(data) - 24)] = rng.choice(alphabet)
        path.write_bytes(bytes(data))
        same = ours(path) == theirs(path)
        assert same or said_to_differ(bytes(data)), bytes(data)
        accepted += ours(path)
    assert accepted > 50


def said_to_differ(data: bytes) -> bool:
    """Whether the header gives a name twice (the mutations above cannot make the other two)."""
    pairs: list[list[str]] = []
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    json.loads(header, object_pairs_hook=lambda p: pairs.append([k for k, _ in p]))
    return any(len(set(names)) < len(names) for names in pairs)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole, path = valid_file(), tmp_path / "x.safetensors"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert not ours(path)
    path.write_bytes(whole + b"\0")
    assert not ours(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3) | st.floats(-1, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
sizes = st.lists(st.integers(0, 3), max_size=3)
infos = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F4", "BF16"]) | json_values,
        "shape": sizes | json_values,
        "data_offsets": st.tuples(st.integers(0, 8), st.integers(0, 24)).map(list) | json_values,
    }
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.text(max_size=3), infos | json_values, max_size=3), st.integers(0, 24))
def test_generated_headers(tmp_path: Path, header: dict[str, Any], nbytes: int) -> None:
    if any(isinstance(info, list) for info in header.values()):
        return  # a tensor as an array: refused by us alone, see above
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of(json.dumps(header).encode(), bytes(nbytes)))
    assert ours(path) == theirs(path)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(["F32", "F16", "U8", "I64"]), sizes), min_size=1, max_size=5)
)
def test_what_we_write_the_library_reads(
    tmp_path: Path, shapes: list[tuple[str, list[int]]]
) -> None:
    types = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I64": np.int64}
    arrays = {
        f"t{i}": np.random.default_rng(i).integers(0, 99, shape).astype(types[dtype])
        for i, (dtype, shape) in enumerate(shapes)
    }
    entries = {
        name: Entry(dtype, array.shape, array.nbytes)
        for (name, array), (dtype, _) in zip(arrays.items(), shapes, strict=True)
    }
    path = tmp_path / "written.safetensors"
    path.unlink(missing_ok=True)
    write_safetensors(path, entries, iter(arrays.items()), {})
    with safe_open(path, "np") as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
    assert list(header_of(path)) == list(arrays)


# --- the folder ------------------------------------------------------------------------------


def test_read_maps_every_dtype_read_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.integers(0, 2, (3, 5)).astype(dtype)
        for name, dtype in {
            "f32": np.float32,
            "f16": np.float16,
            "bf16": ml_dtypes.bfloat16,
            "u32": np.uint32,
            "i64": np.int64,
            "u8": np.uint8,
            "bool": np.bool_,
        }.items()
    }
    tensors |= {"scalar": np.array(3, np.float32), "empty": np.zeros((0, 4), np.float16)}
    with Checkpoint(folder_with(tmp_path / "m", model=tensors)) as checkpoint:
        assert sorted(checkpoint.names()) == sorted(tensors)
        for name, expected in tensors.items():
            got = checkpoint.read(name)
            assert got.dtype == expected.dtype and got.flags.aligned and not got.flags.writeable
            np.testing.assert_array_equal(got, expected)
        kept = checkpoint.read("f32")
    np.testing.assert_array_equal(kept, tensors["f32"])  # valid after close
    with pytest.raises(ValueError, match="is closed"):
        checkpoint.read("f32")


def test_unaligned_data_is_copied(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    header += b" " * ((1 - len(header)) % 4)
    data = np.array([1.5, -2.0], np.float32)
    (folder / "model.safetensors").write_bytes(file_of(header, data.tobytes()))
    got = Checkpoint(folder).read("a")
    assert got.flags.aligned and not got.flags.writeable
    np.testing.assert_array_equal(got, data)


def test_dtypes_that_numpy_lacks_are_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    header = json.dumps({"a": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(file_of(header, bytes(4)))
    with pytest.raises(ValueError, match=r"'a' has dtype F8_E5M2.*supported are BOOL"):
        Checkpoint(folder).read("a")


def test_account_names_everything_in_one_error(tmp_path: Path) -> None:
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}
    checkpoint = Checkpoint(folder_with(tmp_path / "m", model=tensors))
    checkpoint.account({"a": (2, 3), "b": [4]})
    with pytest.raises(ValueError) as error:
        checkpoint.account({"a": (3, 2), "c": (1,), "d": ()})
    for part in (
        "missing c (1,)",
        "missing d ()",
        "unexpected b F32 (4,)",
        "misshapen a: (2, 3), expected (3, 2)",
    ):
        assert part in str(error.value)


def sharded(folder: Path, weight_map: dict[str, Any]) -> Path:
    one, two = {"a": np.ones(2, np.float32)}, {"b": np.zeros(3, np.float32)}
    folder_with(folder, **{"model-1": one, "model-2": two})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    checkpoint = Checkpoint(sharded(tmp_path / "m", index))
    assert checkpoint.names() == ["a", "b"]
    assert checkpoint.read("b").shape == (3,)
    save_file({"z": np.zeros(1, np.float32)}, tmp_path / "m" / "consolidated.safetensors")
    assert Checkpoint(tmp_path / "m").names() == ["a", "b"]  # not in the index


@pytest.mark.parametrize(
    "file",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        "x\0.safetensors",
        "model.bin",
        "",
        7,
        None,
        "absent.safetensors",
    ],
)
def test_an_index_cannot_leave_its_folder(tmp_path: Path, file: object) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"plain names|does not exist"):
        Checkpoint(sharded(tmp_path / "m", {"a": file}))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"a": "model-2.safetensors", "b": "model-2.safetensors"}, "a in model-2"),
        ({"a": "model-1.safetensors", "q": "model-2.safetensors"}, "q in model-2"),
        ({}, "no weight_map"),
    ],
)
def test_an_index_must_tell_the_truth(tmp_path: Path, index: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checkpoint(sharded(tmp_path / "m", index))


def test_two_shards_with_one_name(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m", {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    save_file(
        {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}, folder / "model-2.safetensors"
    )
    with pytest.raises(ValueError, match="two shards hold a"):
        Checkpoint(folder)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links")
def test_symlinks_may_only_lead_to_the_hubs_blobs(tmp_path: Path) -> None:
    tensors = {"a": np.ones(2, np.float32)}
    folder = folder_with(tmp_path / "m", other=tensors)
    (tmp_path / "m" / "other.safetensors").rename(tmp_path / "secret.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(ValueError, match="leads out of its folder"):
        Checkpoint(folder)

    repo = tmp_path / "models--o--n"
    snapshot = folder_with(repo / "snapshots" / "abc")
    (repo / "blobs").mkdir()
    (tmp_path / "secret.safetensors").rename(repo / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/123"))
    assert Checkpoint(snapshot).names() == ["a"]


def test_folders_without_a_clear_set_of_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 0 \.safetensors"):
        Checkpoint(folder_with(tmp_path / "none"))
    tensors = {"a": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match=r"holds 2 \.safetensors"):
        Checkpoint(folder_with(tmp_path / "two", x=tensors, y=tensors))
    (tmp_path / "none" / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        Checkpoint(tmp_path / "none")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m")
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(ValueError, match="not a regular file"):
        Checkpoint(folder)


def test_a_tensor_can_be_read_again_and_beside_those_that_were_let_go(tmp_path: Path) -> None:
    tensors = {name: np.random.default_rng(ord(name)).random(5000) for name in "abc"}
    with Checkpoint(folder_with(tmp_path / "m", model=tensors)) as checkpoint:
        kept, part = checkpoint.read("b"), checkpoint.read("c")[10:]
        del tensors["a"]
        for _ in range(2):
            assert checkpoint.read("a").shape == (5000,)  # nobody keeps it
    assert np.array_equal(kept, tensors["b"]) and np.array_equal(part, tensors["c"][10:])
