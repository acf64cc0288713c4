"""Where the CUDA sources are, and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def kernel_folder() -> Path:
    """The folder `cuda_kernels`: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).absolute().parents[2]
    for folder in (package / "cuda_kernels", package.parent / "cuda_kernels"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no cuda_kernels folder in or beside {package}: install again")


def source(file: str) -> str:
    """The text of `cuda_kernels/<file>.cu`."""
    return (kernel_folder() / f"{file}.cu").read_text()


def source_hash(file: str, text: str | None = None) -> str:
    """A hash of a source (a file's, or `text`) and of every header that it may include."""
    headers = sorted(kernel_folder().glob("*.cuh"))
    parts = [
        (text or source(file)).encode(),
        *(path.name.encode() + path.read_bytes() for path in headers),
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
