"""Apple's GPUs, as `mlx.core.metal` asks about them: there are none here."""

from __future__ import annotations

from nanocupy.core.unsupported import refuse

__all__ = ["is_available"]


def is_available() -> bool:
    """No."""
    return False


__getattr__ = refuse(__name__, "metal", "clear_cache device_info start_capture stop_capture")
