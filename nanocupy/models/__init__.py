"""One flat file an architecture, and how a model is made from a folder."""

from nanocupy.models import model_file
from nanocupy.models.load import MODELS, load

__all__ = ["MODELS", "load", "model_file"]
