"""Models on disk: find one, read its configuration and its weights."""

from typing import Any

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


def __getattr__(name: str) -> Any:
    if name == "convert_gguf":  # loaded on use: a start from a folder reads no GGUF
        from nanocupy.checkpoint.gguf.write_folder import convert_gguf

        return convert_gguf
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
