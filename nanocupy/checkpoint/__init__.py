"""Models on disk: find one, read its configuration and its weights."""

from nanocupy.checkpoint.config import (
    ModelConfig,
    load_config,
    load_generation_config,
    parse_config,
)
from nanocupy.checkpoint.gguf.write_folder import convert_gguf
from nanocupy.checkpoint.header import TensorInfo
from nanocupy.checkpoint.locate import resolve
from nanocupy.checkpoint.quantization import Quantization
from nanocupy.checkpoint.reader import Checkpoint
from nanocupy.checkpoint.rope_config import RopeConfig

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
