"""Print the bytes that a distribution and its requirements take on disk, without bytecode.

Argument: its name. A package that is installed from a source tree counts with its own files.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


def required(name: str, found: dict[str, metadata.Distribution]) -> None:
    """Add the distribution and its installed requirements, without extras."""
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
    """Return the files of the distribution, its requirements, and the package of its name."""
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
