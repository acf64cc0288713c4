"""CUDA, as `mlx.core.cuda` asks about it: arrays are not evaluated there. See `nanocupy.device`."""

from __future__ import annotations


def is_available() -> bool:
    """No: a function is compiled for a GPU instead, `compile(..., device=...)`."""
    return False
