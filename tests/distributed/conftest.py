"""Tiny models on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint.tiny import write_gguf
from nanocupy.checkpoint import convert_gguf


def model(folder: Path, kind: str) -> Path:
    """A Llama of 4 query and 2 KV heads."""
    write_gguf(folder / "tiny.gguf", kind)
    convert_gguf(folder / "tiny.gguf", folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In 4 bits: heads come apart in twos, as groups of 32 inputs stay together."""
    return model(tmp_path_factory.mktemp("tiny"), "Q4_1")


@pytest.fixture(scope="session")
def tiny_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In f16: every head may go to a rank of its own."""
    return model(tmp_path_factory.mktemp("tiny"), "F16")
