"""The cache's folders: made for their owner alone, and errors that say where else they can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanocupy.device import paths

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


def test_a_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    for name in ("open", "new/inner"):
        folder = paths.private_folder(tmp_path / name)
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_is_read_only_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only disk refuses chmod, even to what the mode is already."""
    paths.private_folder(tmp_path / "kernels")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "chmod", refuse)
    assert paths.private_folder(tmp_path / "kernels").is_dir()


def test_errors_name_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot keep compiled kernels: .* Set NANOCUPY_CACHE"):
        paths.private_folder(tmp_path / "file" / "kernels")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(OSError, match=r"belongs to another user\. Set NANOCUPY_CACHE"):
        paths.private_folder(tmp_path)
