"""Arrays in files: open ones, ones that arrays still lie in, and what is no array or no text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beside_mlx import both, ours, theirs


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
@pytest.mark.parametrize("named", [True, False])
def test_open_files(kind: str, named: bool, tmp_path: Path) -> None:
    def call(mx: Any, of: Any) -> Any:
        file: Any = (tmp_path / f"a.{kind}").open("w+b") if named else io.BytesIO()
        x = mx.array([[1, 2], [3, 4]], mx.int16)
        with file:
            if kind == "npy":
                mx.save(file, x)
            elif kind == "npz":
                mx.savez(file, a=x)
            else:
                mx.save_safetensors(file, {"a": x}, {"k": "v"})
            file.flush()
            file.seek(0)
            found = mx.load(file, **({} if named else {"format": kind}))
        return found if kind == "npy" else found["a"]

    both(call)


def test_arrays_may_lie_in_the_file_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    ours.save_safetensors(path, {"a": ours.arange(100000), "b": ours.ones(3)})
    path.chmod(0o600)
    found = ours.load(path)
    ours.save_safetensors(path, {"b": found["a"] * 2, "a": found["a"]})
    again = ours.load(path)
    assert found["a"].tolist() == again["a"].tolist() == list(range(100000))
    assert again["b"].tolist()[-1] == 199998
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    ours.save(path, ours.arange(3))
    with pytest.raises(ValueError, match="save_safetensors"):
        ours.save(path, ours.ones(3, ours.bfloat16))
    assert ours.load(path).tolist() == [0, 1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link.npy").symlink_to(tmp_path / "real.npy")
    ours.save(tmp_path / "link.npy", ours.arange(3))
    assert (tmp_path / "link.npy").is_symlink()
    assert np.load(tmp_path / "real.npy").tolist() == [0, 1, 2]


def test_what_cannot_be_in_a_file_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    for call in (
        lambda mx, of: mx.save_safetensors(path, {"a": mx.ones(2)}, {"n": 1}),
        lambda mx, of: mx.save_safetensors(path, {"a": mx.ones(2)}, {1: "n"}),
        lambda mx, of: mx.save_safetensors(path, {"a": mx.ones(2)}, "text"),
        lambda mx, of: mx.save_safetensors(path, [mx.ones(2)]),
        lambda mx, of: mx.save_safetensors(path, {1: mx.ones(2)}),
        lambda mx, of: mx.save(3, mx.ones(2)),
        lambda mx, of: mx.load(3),
        lambda mx, of: mx.load(path),
        lambda mx, of: mx.savez(path, mx.ones(2), arr_0=mx.ones(3)),
        lambda mx, of: mx.load(io.StringIO("text"), format="npy"),
    ):
        both(call)
    ours.savez(path + ".npz", a=ours.ones(2))
    both(lambda mx, of: mx.load(path + ".npz", return_metadata=True))
    both(lambda mx, of: mx.load(path + ".npz", format="npy"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


def test_doubles_in_numpys_files_stay_doubles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0.1, 1e300]))
    assert ours.load(tmp_path / "a.npy").tolist() == [0.1, 1e300]
    assert str(theirs.load(str(tmp_path / "a.npy")).dtype) == "mlx.core.float64"
