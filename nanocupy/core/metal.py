"""Apple's GPUs, as `mlx.core.metal` asks about them: there are none here."""

from __future__ import annotations

from nanocupy.core.names import refuse
from nanocupy.core.runtime.memory_stats import (
    clear_cache,
    get_active_memory,
    get_cache_memory,
    get_peak_memory,
    reset_peak_memory,
    set_cache_limit,
    set_memory_limit,
)

__all__ = [
    "clear_cache", "get_active_memory", "get_cache_memory", "get_peak_memory", "is_available",
    "reset_peak_memory", "set_cache_limit", "set_memory_limit",
]  # fmt: skip


def is_available() -> bool:
    """No."""
    return False


__getattr__ = refuse(__name__, "metal", "device_info start_capture stop_capture")
