"""Files that somebody or something has damaged are refused with the reason, in bounded time and
memory; and nothing in a model folder is run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from checkpoint import tiny
from checkpoint.pre_tokenizer_cases import options
from checkpoint.test_safetensors import file_of, ours, said_to_differ, sharded, theirs
from nanocupy.checkpoint import Checkpoint, convert_gguf
from nanocupy.checkpoint.gguf.file import GgufFile
from nanocupy.checkpoint.gguf.model import GgufModel
from nanocupy.checkpoint.gguf.tokenizer import GgufTokenizer

SECONDS, PEAK = 1.0, 16 << 20  # for a file of some kilobytes

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 255, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64),
    *(10**30, 0.5, -0.0, 1e300, True, None, "", "7", [], [0], {}, "F32", "BF16", "F4"),
)


def bounded(work: Callable[[], Any]) -> Any:
    """The result, within the limits."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        return work()
    finally:
        took, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert took < SECONDS and peak < PEAK, (took, peak)


# ---- safetensors


def plain_header(rng: random.Random) -> tuple[dict[str, Any], int]:
    """A header as a writer makes it, and how many bytes of data it speaks of."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if rng.random() < 0.5 else {}
    at = 0
    for i in range(rng.randint(1, 6)):
        dtype, size = rng.choice((("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8), ("F8_E4M3", 1)))
        shape = [rng.randint(0, 4) for _ in range(rng.randint(0, 3))]
        nbytes = size * int(np.prod(shape))
        header[f"layers.{i}.w"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [at, at + nbytes],
        }
        at += nbytes
    return header, at


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys]
    inner = [places(value[key]) for key in keys if isinstance(value[key], (dict, list))]
    return found + [place for some in inner for place in some]


def damaged_safetensors(rng: random.Random) -> bytes:
    """A file with one to three faults: in a value, a byte, the length, the end."""
    header, size = plain_header(rng)
    for _ in range(rng.choice((0, 1, 1, 2))):
        if not (found := places(header)):
            break
        container, key = rng.choice(found)
        if rng.random() < 0.2 and isinstance(container, dict):
            del container[key]
        elif rng.random() < 0.2 and isinstance(container, list):
            container.insert(key, rng.choice(NUMBERS))
        else:
            container[key] = rng.choice(NUMBERS)
    data = bytearray(file_of(json.dumps(header).encode(), bytes(size)))
    fault = rng.random()
    if fault < 0.25:
        del data[rng.randrange(len(data)) :]
    elif fault < 0.45:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif fault < 0.55:
        data[:8] = rng.choice((0, 1, 99, 10**8, 10**8 + 1, 1 << 62, (1 << 64) - 1)).to_bytes(
            8, "little"
        )
    elif fault < 0.65:
        data += bytes(rng.randint(1, 9))
    elif fault < 0.7:
        at = rng.randrange(8, len(data))
        data[at:at] = data[8:at] * rng.randint(1, 50)
    return bytes(data)


def stricter(data: bytes) -> bool:
    """Whether a file is one of the three that the library takes and we do not, see `header`."""
    text = data[8 : 8 + int.from_bytes(data[:8], "little")]
    arrays = [v for k, v in json.loads(text).items() if k != "__metadata__" and type(v) is list]
    return said_to_differ(data) or bool(arrays) or not text.startswith(b"{")


@pytest.mark.parametrize("count", [400, pytest.param(5_000, marks=pytest.mark.slow)])
def test_damaged_safetensors_files(tmp_path: Path, count: int) -> None:
    """Accepted exactly where the safetensors library accepts them."""
    rng, path, sides = random.Random(count), tmp_path / "x.safetensors", Counter[bool]()
    for _ in range(count):
        data = damaged_safetensors(rng)
        path.write_bytes(data)
        accepted = bounded(lambda: ours(path))
        assert accepted == theirs(path) or (not accepted and stricter(data)), data
        sides[accepted] += 1
        if accepted:
            load(path)
    assert min(sides[True], sides[False]) > count // 20


def load(path: Path) -> None:
    """What is accepted, the library can read."""
    with safe_open(path, "np") as file:
        assert sorted(file.keys()) == sorted(set(file.keys()))


# ---- GGUF


def whole_files(tmp_path: Path) -> list[bytes]:
    """Small good files: quantised, plain; byte-level and SentencePiece."""
    made = []
    for kind, name in (("Q4_1", "smollm"), ("F16", "spm")):
        path = tmp_path / "whole.gguf"
        tiny.write_gguf(path, kind, **(options(name) if name == "spm" else {"pre": name}))
        made.append(path.read_bytes())
    return made


def damaged_gguf(rng: random.Random, whole: bytes, header: int) -> bytes:
    """One to three faults in the first `header` bytes, or a file cut short."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(4, header)
        fault = rng.random()
        if fault < 0.4:
            data[at] = rng.randrange(256)
        elif fault < 0.7:  # where a number starts, if it does
            number = rng.choice((0, 1, 2, 7, 9, 255, 1 << 20, 1 << 31, 1 << 40, (1 << 64) - 1))
            data[at : at + 8] = number.to_bytes(8, "little")
        elif fault < 0.8:
            del data[at : at + rng.randint(1, 40)]
        elif fault < 0.9:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
        else:
            del data[rng.randrange(len(data)) :]
            return bytes(data)
    return bytes(data)


def read_all(path: Path) -> bool:
    """Everything an import reads. False where it is refused, with the file's name."""
    try:
        gguf = GgufFile(path)
        model, tokenizer = GgufModel(gguf), GgufTokenizer(gguf)
        model.config()
        tokenizer.tokenizer_json(), tokenizer.tokenizer_config(), tokenizer.end_ids
        entries = model.entries()
        for name, array in model.tensors():
            assert array.nbytes == entries[name].nbytes
    except ValueError as error:
        assert len(str(error)) > 20
        return False
    return True


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.slow)])
def test_damaged_gguf_files(tmp_path: Path, count: int) -> None:
    rng, path, sides = random.Random(count), tmp_path / "x.gguf", Counter[bool]()
    wholes = whole_files(tmp_path)
    starts = [file.index(b"blk.0.attn_norm") for file in wholes]
    for _ in range(count):
        which = rng.randrange(2)
        path.write_bytes(damaged_gguf(rng, wholes[which], starts[which] + 2000))
        sides[bounded(lambda: read_all(path))] += 1
    assert sides[False] > count // 2


def test_forged_counts_cost_nothing(tmp_path: Path) -> None:
    """Where the gguf library would go round for ever."""
    whole = whole_files(tmp_path)[0]
    path = tmp_path / "x.gguf"
    at = whole.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    for count in (1 << 62, 1 << 40, 1 << 22, len(whole) // 8):
        path.write_bytes(whole[:at] + count.to_bytes(8, "little") + whole[at + 8 :])
        assert not bounded(lambda: read_all(path))
    for at in (8, 16):  # tensors, keys
        path.write_bytes(whole[:at] + (1 << 60).to_bytes(8, "little") + whole[at + 8 :])
        assert not bounded(lambda: read_all(path))


# ---- nothing outside a folder is read, and nothing in it is run


@pytest.mark.parametrize("to", ["../secret.safetensors", "/etc/hostname", "/dev/zero", "nowhere"])
def test_a_shard_that_is_a_link_out_of_its_folder(tmp_path: Path, to: str) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "secret.safetensors")
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    folder = sharded(tmp_path / "m", index)
    (folder / "model-1.safetensors").unlink()
    (folder / "model-1.safetensors").symlink_to(to)
    with pytest.raises(ValueError, match=r"leads out|not a regular file|cannot be followed"):
        Checkpoint(folder)


TRAP = "open({mark!r}, 'a').write(__name__)\n"


def test_python_in_a_model_folder_is_never_run(tmp_path: Path) -> None:
    """Not by auto_map, model_file, a wheel's package or a name that something might import."""
    tiny.write_gguf(tmp_path / "m.gguf", "F32")
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "model", progress=False)
    mark = tmp_path / "it was run"
    for name in ("modeling_trap", "tokenization_trap", "__init__", "setup", "config", "llama"):
        (folder / f"{name}.py").write_text(TRAP.format(mark=str(mark)))
    for file, name in (("config.json", "modeling"), ("tokenizer_config.json", "tokenization")):
        said = json.loads((folder / file).read_text())
        classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        said["auto_map"] = dict.fromkeys(classes, f"{name}_trap.Trap")
        said |= {"model_file": "modeling_trap.py", "tokenizer_class": "tokenization_trap.Trap"}
        (folder / file).write_text(json.dumps(said))
    (folder / "pytorch_model.bin").write_bytes(b"cbuiltins\nexit\n(tR.")  # a pickle that ends it
    code = (
        "from nanocupy import LLM, SamplingParams\n"
        f"with LLM({str(folder)!r}, max_model_len=64) as llm:\n"
        "    out = llm.chat([{'role': 'user', 'content': 'hi'}], SamplingParams(max_tokens=2))\n"
        "    print(len(out[0].outputs[0].token_ids) > 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout == "True\n", run.stderr
    assert not mark.exists()
    assert len(load_file(folder / "model.safetensors")) > 10
