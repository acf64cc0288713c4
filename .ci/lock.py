"""Renew the locks: what `.ci/run` installs, by version and by hash.

    python .ci/lock.py python3.10 python3.11 python3.12 python3.13

Asks pip what it would install of pyproject.toml's dependencies for each of these Pythons, on Linux
with glibc 2.35, x86-64 and aarch64, and writes down what that is. Wants Python 3.11 or newer
itself, and pip 23 or newer; nothing is installed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tomllib

HERE = Path(__file__).parent
MACHINES = ("x86_64", "aarch64")
GLIBC = (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
LOCKS = {"lock.txt": ("dev", "cuda-check"), "lock-cupy12.txt": ()}
EXTRA = {"lock.txt": ["pip"], "lock-cupy12.txt": ["cupy-cuda12x>=14"]}
ALONE = {"lock-cupy12.txt": ["--no-deps"]}  # beside another CuPy: it is unpacked, not installed


class Machine(NamedTuple):
    """A Python on a kind of processor."""

    python: str
    machine: str


def requirements(extras: tuple[str, ...]) -> list[str]:
    """Of the project with extras, and of its build."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"]

    def flat(names: list[str]) -> Iterator[str]:
        for name in names:
            if own := re.fullmatch(r"nanocupy\[(.*)\]", name):
                yield from (n for extra in own[1].split(",") for n in flat(optional[extra]))
            else:
                yield name

    if not extras:
        return []
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    return [*flat(wanted), *(n for extra in extras for n in flat(optional[extra]))]


def asked(python: str, machine: str, wanted: list[str], options: list[str]) -> list[Any]:
    """What pip would install."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC]
    tags += [f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--quiet",
         "--target=nowhere", "--only-binary=:all:", "--report=-", *options,
         *(f"--platform={tag}" for tag in tags), *wanted],
        stdout=subprocess.PIPE, check=True, text=True,
        # The user's own indexes may hold other files; the environment still names mirrors.
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    return list(json.loads(done.stdout)["install"])


def version(python: str) -> str:
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def marker(places: set[Machine], everywhere: set[Machine]) -> str:
    """Where a version is for; nothing if it is for all."""
    if places == everywhere:
        return ""
    pythons = sorted({place.python for place in places}, key=lambda p: int(p.split(".")[1]))
    if all(Machine(python, m) in places for python in pythons for m in MACHINES):
        return " ; " + " or ".join(f"python_version == '{python}'" for python in pythons)
    each = (f"(python_version == '{p}' and platform_machine == '{m}')" for p, m in sorted(places))
    return " ; " + " or ".join(each)


def lock(name: str, pythons: list[str]) -> str:
    """The text of a lock."""
    wanted, options = [*requirements(LOCKS[name]), *EXTRA[name]], ALONE.get(name, [])
    found: dict[tuple[str, str], dict[Machine, str]] = defaultdict(dict)
    everywhere = set()
    for python in pythons:
        for machine in MACHINES:
            everywhere.add(place := Machine(version(python), machine))
            for item in asked(python, machine, wanted, options):
                about, file = item["metadata"], item["download_info"]["archive_info"]
                key = re.sub(r"[-_.]+", "-", about["name"]).lower(), about["version"]
                found[key][place] = file["hashes"]["sha256"]
    pythons = ", ".join(sorted({p.python for p in everywhere}))
    lines = [
        "# By .ci/lock.py, which renews it. For Linux, glibc 2.35 or newer, and Python",
        f"# {pythons}: pip install --require-hashes -r {name}",
    ]
    for (package, number), files in sorted(found.items()):
        hashes = "".join(f" \\\n    --hash=sha256:{value}" for value in sorted(set(files.values())))
        lines.append(f"{package}=={number}{marker(set(files), everywhere)}{hashes}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in LOCKS:
        (HERE / name).write_text(lock(name, sys.argv[1:]))
