"""Bytes that a distribution and all that it requires take on disk, without compiled bytecode.

Argument: its name. What is installed from a source tree counts with its package's own files.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


def required(name: str, found: dict[str, metadata.Distribution]) -> None:
    """Add the distribution and what it requires; extras, and what is not installed, are left."""
    try:
        made = found[_key(name)] = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    for line in made.requires or ():
        other = re.match(r"[\w.\-]+", line)
        if other and "extra ==" not in line and _key(other[0]) not in found:
            required(other[0], found)


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def files(name: str) -> set[Path]:
    """Every file of the distribution, of what it requires, and of the package of its name."""
    found: dict[str, metadata.Distribution] = {}
    required(name, found)
    paths = {Path(str(d.locate_file(f))) for d in found.values() for f in d.files or ()}
    spec = find_spec(name.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        paths |= set(Path(folder).rglob("*"))
    real = {path.resolve() for path in paths if "__pycache__" not in path.parts}
    return {path for path in real if path.is_file()}


if __name__ == "__main__":
    print(sum(path.stat().st_size for path in files(sys.argv[1])))
