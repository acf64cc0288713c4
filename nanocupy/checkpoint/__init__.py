"""Models on disk: find one, read its configuration and its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocupy.checkpoint.config import (
    ModelConfig,
    load_config,
    load_generation_config,
    parse_config,
)
from nanocupy.checkpoint.header import TensorInfo
from nanocupy.checkpoint.locate import resolve
from nanocupy.checkpoint.quantization import Quantization
from nanocupy.checkpoint.reader import Checkpoint
from nanocupy.checkpoint.rope_config import RopeConfig

if TYPE_CHECKING:
    from nanocupy.checkpoint.gguf.write_folder import convert_gguf

__all__ = [
    "Checkpoint",
    "ModelConfig",
    "Quantization",
    "RopeConfig",
    "TensorInfo",
    "convert_gguf",
    "load_config",
    "load_generation_config",
    "parse_config",
    "resolve",
]


def __getattr__(name: str) -> Any:
    """Load `convert_gguf` on use: a start from a folder reads no GGUF."""
    if name == "convert_gguf":
        from nanocupy.checkpoint.gguf.write_folder import convert_gguf

        return convert_gguf
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
