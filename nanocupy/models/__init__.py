"""The architectures, a file each, and loading a model from a checkpoint."""

from nanocupy.models.load import MODELS, load, model_class

__all__ = ["MODELS", "load", "model_class"]
