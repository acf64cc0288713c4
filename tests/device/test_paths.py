"""The cache's folders: only those that nobody else can have filled."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from nanocupy.device import paths

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, not there yet; nothing has been said."""
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "_said", set())
    return tmp_path.resolve() / "cache"


def of_another_user(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    inode = path.lstat().st_ino
    is_own = paths.is_own
    monkeypatch.setattr(paths, "is_own", lambda s: s.st_ino != inode and is_own(s))


def test_folders_are_made_for_their_owner_alone(cache: Path) -> None:
    before = os.umask(0)
    try:
        made = paths.own_folder("kernels", "key")
    finally:
        os.umask(before)
    assert made == cache / "kernels" / "key" and paths.own_folder("kernels", "key") == made
    for folder in (made, made.parent, cache):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o722, 0o720, 0o1777])
@pytest.mark.parametrize("place", ["kernels", "kernels/key"])
def test_one_that_others_can_write_to_is_left_alone(cache: Path, place: str, mode: int) -> None:
    """Its mode is not mended: what is in it would be believed."""
    folder = cache / place
    folder.mkdir(parents=True, mode=0o700)
    (folder / "planted").write_text("code")
    folder.chmod(mode)
    with pytest.warns(RuntimeWarning, match=rf"others can write to {folder}: .*{place}\.1"):
        found = paths.own_folder("kernels", "key")
    assert f"{folder}.1" in (str(found), str(found.parent)) and not [*found.iterdir()]
    assert folder.stat().st_mode & 0o7777 == mode and (folder / "planted").exists()
    assert paths.own_folder("kernels", "key") == found  # the same at the next start, and silent


def test_the_cache_folder_itself(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.warns(RuntimeWarning, match=rf"others can write to {cache}: .*cache\.1 is used"):
        assert paths.own_folder("kernels") == cache.with_name("cache.1") / "kernels"


def test_a_folder_of_somebody_else(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "kernels").mkdir(parents=True)
    of_another_user(monkeypatch, cache / "kernels")
    with pytest.warns(RuntimeWarning, match=r"kernels belongs to another user: .*kernels\.1"):
        assert paths.own_folder("kernels").name == "kernels.1"


def test_a_parent_that_others_can_write_to(cache: Path) -> None:
    """They could put another folder in the place of ours."""
    paths.own_folder("kernels")
    for mode, fine in ((0o777, False), (0o1777, True), (0o755, True), (0o702, False)):
        cache.parent.chmod(mode)
        if fine:
            assert paths.own_folder("kernels") == cache / "kernels"
        else:
            with pytest.raises(paths.Untrusted, match=f"others can write to {cache.parent}"):
                paths.own_folder("kernels")
    cache.parent.chmod(0o700)


def test_a_parent_of_somebody_else(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.own_folder("kernels")
    of_another_user(monkeypatch, cache.parent)
    with pytest.raises(paths.Untrusted, match=f"{cache.parent} belongs to another user"):
        paths.own_folder("kernels")


def test_a_group_of_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each user has a group, a home may be the group's; a folder of ours never."""
    cache.parent.chmod(0o770)
    monkeypatch.setattr(paths, "_is_private", lambda gid: True)
    assert paths.own_folder("kernels") == cache / "kernels"
    monkeypatch.setattr(paths, "_is_private", lambda gid: False)
    with pytest.raises(paths.Untrusted, match="others can write"):
        paths.own_folder("kernels")
    cache.parent.chmod(0o700)


def test_a_link_to_another_disk_is_followed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (disk := tmp_path.resolve() / "disk").mkdir()
    cache.symlink_to("../" + f"{cache.parent.name}/disk/nanocupy")
    assert paths.own_folder("kernels") == disk / "nanocupy" / "kernels"
    disk.chmod(0o777)
    with pytest.raises(paths.Untrusted, match=f"others can write to {disk}"):
        paths.trusted(str(cache), strict=False)
    disk.chmod(0o700)
    of_another_user(monkeypatch, cache)
    with pytest.raises(paths.Untrusted, match="cache belongs to another user"):
        paths.trusted(str(cache), strict=False)


@pytest.mark.parametrize("place", ["kernels", "kernels/key"])
def test_our_own_folders_are_no_links(cache: Path, tmp_path: Path, place: str) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir(mode=0o700)
    (cache / place).parent.mkdir(parents=True, mode=0o700)
    (cache / place).symlink_to(elsewhere)
    with pytest.warns(RuntimeWarning, match=rf"{place} is a link: .*{place}\.1 is used"):
        found = paths.own_folder("kernels", "key")
    assert f"{cache / place}.1" in (str(found), str(found.parent)) and not [*elsewhere.iterdir()]


def test_links_in_a_circle_and_files_in_the_way(cache: Path, tmp_path: Path) -> None:
    cache.symlink_to(cache)
    with pytest.raises(paths.Untrusted, match="too many links"):
        paths.trusted(str(cache), strict=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        paths.trusted(str(tmp_path / "file" / "kernels"), strict=False)


def test_all_spare_folders_are_taken(cache: Path) -> None:
    for end in ("", *(f".{n}" for n in range(1, paths.SPARE + 1))):
        (cache / f"kernels{end}").mkdir(parents=True, mode=0o700)
        (cache / f"kernels{end}").chmod(0o777)
    with pytest.raises(paths.Untrusted, match=r"kernels$"):
        paths.own_folder("kernels")


# ---- which folder


def test_settings_that_would_mean_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be a model's, with a cache in it that somebody else has filled."""
    monkeypatch.delenv("NANOCUPY_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths.sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, folder in {
        "here": tmp_path / "home/.cache/nanocupy", "": tmp_path / "home/.cache/nanocupy",
        "/xdg": Path("/xdg/nanocupy"),
    }.items():  # fmt: skip
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        assert paths.cache_folder() == folder
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", ".")
    assert paths.cache_folder().parent == Path(tempfile.gettempdir())
    monkeypatch.setenv("NANOCUPY_CACHE", "mine")  # this says so
    assert paths.cache_folder() == tmp_path / "mine"


def test_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container, with a user that no file lists."""
    for name in ("NANOCUPY_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(paths.sys, "platform", "linux")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert paths.cache_folder() == tmp_path / f"nanocupy-{os.getuid()}"
    assert paths.own_folder("kernels").is_dir()
