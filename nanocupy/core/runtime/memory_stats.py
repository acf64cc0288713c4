"""Figures and limits of the memory of evaluated arrays, as `mlx.core` has them."""

from __future__ import annotations

from nanocupy.core.recorder.heap import HEAP


def get_active_memory() -> int:
    """Bytes of evaluated arrays that somebody refers to."""
    return HEAP.active


def get_peak_memory() -> int:
    """The most that was active since the start, or since `reset_peak_memory`."""
    return HEAP.peak


def reset_peak_memory() -> None:
    """Count the peak from now on."""
    HEAP.reset_peak()


def get_cache_memory() -> int:
    """Bytes that nobody refers to and that are kept for new arrays."""
    return HEAP.cached


def clear_cache() -> None:
    """Give the cache back to the system."""
    HEAP.clear()


def get_memory_limit() -> int:
    """See `set_memory_limit`."""
    return HEAP.limit("memory")


def set_memory_limit(limit: int) -> int:
    """Bytes, active and cached, above which the cache is given up before memory is asked for.

    Returns:
        The limit there was.
    """
    return HEAP.set_limit("memory", limit)


def set_cache_limit(limit: int) -> int:
    """The most bytes that are kept; 0 keeps nothing. Returns the limit there was."""
    return HEAP.set_limit("cache", limit)
