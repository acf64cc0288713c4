"""How much of the host's memory there is for this process, in a container or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available() -> int:
    """Free bytes of the machine, or of the container's limit if that is less."""
    import psutil

    left = [int(psutil.virtual_memory().available)]
    left += [limit - used for limit, used in _containers()]
    return max(min(left), 0)


def total() -> int:
    """All bytes of the machine, or the container's limit if that is less."""
    import psutil

    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _containers())])


def _containers(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) in bytes for each control group of this process that has a limit.

    Idle pages of the file cache count as free: they are dropped when memory is needed.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        if not controllers:  # the second version
            base, limit, used = root, "memory.max", "memory.current"
        place = PurePosixPath(path)
        for group in (place, *place.parents):
            folder = base / group.relative_to("/")
            try:
                most, now = (int((folder / name).read_text()) for name in (limit, used))
                stat = dict(
                    row.split() for row in (folder / "memory.stat").read_text().splitlines()
                )
            except (OSError, ValueError):  # not visible from inside, or "max"
                continue
            idle = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            yield most, max(now - idle, 0)
