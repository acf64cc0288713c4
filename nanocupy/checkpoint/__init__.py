"""What a model is on disk: finding it, reading its configuration and its weights."""

from nanocupy.checkpoint.convert import convert_gguf
from nanocupy.checkpoint.locate import resolve

__all__ = ["convert_gguf", "resolve"]
