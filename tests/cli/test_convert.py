"""nanocupy convert: from floats, from a GGUF file of floats, and from what has codes already."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint import packers, tiny
from golden import prove_mlx_lm
from nanocupy.checkpoint import hub
from nanocupy.checkpoint.gguf import write_folder
from nanocupy.cli.model import ModelFacts
from nanocupy.models import quantize_checkpoint


def test_a_folder(cli, tmp_path: Path) -> None:
    prove_mlx_lm.draw(tmp_path / "source", "qwen3")
    ran = cli("convert", str(tmp_path / "source"), str(tmp_path / "out"), "--no-progress")
    assert ran.code == 0 and ran.err == ""
    folder, text = ran.out.splitlines()
    assert folder == str(tmp_path / "out") and "weights have 4 bits in groups of 64" in text
    ran = cli("convert", str(tmp_path / "source"), str(tmp_path / "o8"), "--bits", "8", "--json")
    said = json.loads(ran.out)
    assert (said["bits"], said["group_size"], said["folder"]) == (8, 64, str(tmp_path / "o8"))
    assert 0.001 < said["exact_error"] < said["error"] < 0.02
    assert said["quantized"] == 15 and said["kept"] == 9
    again = cli("convert", str(tmp_path / "o8"), str(tmp_path / "o4"))
    assert again.code == 2 and "is quantised already" in again.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o8", "out", "source"]


@pytest.mark.parametrize("case", ["llama", "mixtral"])
def test_bench_counts_the_bytes_of_codes(case: str, tmp_path: Path) -> None:
    """Of a model that is quantised on loading, as of the folder that `convert` writes."""
    prove_mlx_lm.draw(tmp_path / "source", case)
    for bits in (4, 8):
        quantize_checkpoint.convert(
            tmp_path / "source", tmp_path / str(bits), bits=bits, progress=False
        )
        facts = ModelFacts(str(tmp_path / "source"), bits)
        assert facts.bytes_per_step == ModelFacts(str(tmp_path / str(bits))).bytes_per_step
        assert facts.bytes_per_step < 0.7 * ModelFacts(str(tmp_path / "source")).bytes_per_step


def test_a_bar(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the bytes of the source, and comes to its end."""
    seen: list[tuple[str, int | None, bool | None, list[int]]] = []

    @contextmanager
    def bar(title: str, total: int | None, wanted: bool | None) -> Iterator[Callable[[int], None]]:
        seen.append((title, total, wanted, []))
        yield seen[-1][3].append

    monkeypatch.setattr(quantize_checkpoint, "bar", bar)
    prove_mlx_lm.draw(tmp_path / "source", "llama")
    for number, flags in enumerate(([], ["--no-progress"])):
        cli("convert", str(tmp_path / "source"), str(tmp_path / f"out{number}"), *flags)
    [(title, total, shown, steps), (*_, hidden, _)] = seen
    assert title == "Quantising" and shown is None and hidden is False
    assert len(steps) == 20 and sum(steps) == total
    weights = load_file(tmp_path / "source" / packers.WEIGHTS)
    assert total == sum(value.nbytes for value in weights.values())


def test_gguf_files_by_other_names(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, in one with others, on the hub: as `--model` takes them."""
    (tmp_path / "one").mkdir()
    source = tmp_path / "one" / "tiny.gguf"
    tiny.write_gguf(source, "Q8_0")
    assert cli("convert", str(source.parent), str(tmp_path / "a")).code == 0
    monkeypatch.delenv("NANOCUPY_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "snapshot", lambda model, progress: {"o/n:t.gguf": source}[model])
    assert cli("convert", "o/n:t.gguf", str(tmp_path / "b")).code == 0
    one, other = (load_file(tmp_path / n / packers.WEIGHTS) for n in "ab")
    assert [*one] == [*other] and all(np.array_equal(one[n], other[n]) for n in one)
    tiny.write_gguf(source.parent / "other.gguf", "Q8_0")
    ran = cli("convert", str(source.parent), str(tmp_path / "c"))
    assert ran.code == 2 and "give one of its 2 GGUF files" in ran.err
    monkeypatch.setenv("NANOCUPY_OFFLINE", "1")
    ran = cli("convert", "o/n:t.gguf", str(tmp_path / "c"))
    assert ran.code == 2 and "NANOCUPY_OFFLINE is set" in ran.err


@pytest.mark.parametrize("flags", [[], ["--bits", "4", "--group-size", "32"]])
def test_what_cannot_be_written(
    cli, tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a file, and on a disk that is full: OUT is named, and nothing stays behind."""
    source = tmp_path / "tiny.gguf"
    tiny.write_gguf(source, "F16")
    ran = cli("convert", str(source), str(source / "out"), *flags)
    assert ran.code == 2 and f"cannot write {source / 'out'}: " in ran.err
    assert "Choose a folder where you may write" in ran.err

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write_folder, "write_safetensors", full)
    ran = cli("convert", str(source), str(tmp_path / "out"), *flags)
    assert ran.code == 2 and f"cannot write {tmp_path / 'out'}: [Errno 28] No space" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("flags", [[], ["--bits", "4", "--group-size", "32"]])
def test_nothing_half_written_stays(
    cli,
    tmp_path: Path,
    flags: list[str],
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, write = tmp_path / "tiny.gguf", write_folder.write_safetensors
    tiny.write_gguf(source, "F16")

    def interrupted(path: Path, *args: Any) -> None:
        write(path, *args)
        assert path.stat().st_size > 1000
        signal.raise_signal(number)

    monkeypatch.setattr(write_folder, "write_safetensors", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    assert cli("convert", str(source), str(tmp_path / "out"), *flags).code == code
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_gguf_file(cli, tmp_path: Path) -> None:
    """As it is, or with bits; the same as if its floats had been a folder."""
    source, floats = tmp_path / "tiny.gguf", tmp_path / "floats"
    tiny.write_gguf(source, "F16")
    assert cli("convert", str(source), str(floats), "--no-progress").out == f"{floats}\n"
    for path in (source, floats):
        out = tmp_path / f"{path.name}-4"
        assert cli("convert", str(path), str(out), "--group-size", "32").code == 0
    one, other = (load_file(tmp_path / f"{n}-4" / packers.WEIGHTS) for n in ("tiny.gguf", "floats"))
    assert [*one] == [*other] and all(np.array_equal(one[n], other[n]) for n in one)
    assert one["model.layers.0.mlp.down_proj.weight"].dtype == np.uint32
    tiny.write_gguf(source, "Q8_0")
    ran = cli("convert", str(source), str(tmp_path / "out"), "--bits", "4")
    assert ran.code == 2 and "has codes already: leave out --bits" in ran.err
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "out").exists()
