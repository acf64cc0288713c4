"""One flat file an architecture, and how a model is made from a folder."""

from nanocupy.models.load import MODELS, load

__all__ = ["MODELS", "load"]
