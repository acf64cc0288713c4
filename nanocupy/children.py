"""Start child processes that run or read nothing in the user's current folder.

The current folder may be a model's, with files of somebody else. `python -c` and `python -m` import
from it first, a C++ compiler looks there for headers, Numba and uv for settings. So every child
starts in a folder where only who could change Python itself can put a file, with a path of absolute
folders. No other module starts programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = sys.base_prefix  # where children run
PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
Child = subprocess.Popen[Any]
_OURS = str(Path(__file__).absolute().parents[1])  # where this package is
# Settings of pip and TLS that are paths, relative to the user's current folder.
_FILES = (
    "PIP_CONFIG_FILE", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_CERT", "PIP_CLIENT_CERT",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


def start(command: list[str], **options: Any) -> Child:
    """`subprocess.Popen`, safe. OSError: it cannot be started."""
    return subprocess.Popen(_absolute(command), **_safe(command, options))


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`, safe. OSError: it cannot be started."""
    return subprocess.run(_absolute(command), **_safe(command, options))


def python() -> str | None:
    """The interpreter, or None: this process may be a program that has Python inside."""
    return None if getattr(sys, "frozen", False) or not sys.executable else sys.executable


def program(name: str) -> str | None:
    """Where a program is: as `shutil.which`, but never in the current folder unless `name` says so
    (`./g++`)."""
    if os.path.dirname(name):
        return shutil.which(os.path.abspath(name))
    absolute = filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep))
    found = shutil.which(name, path=os.pathsep.join(absolute))
    return found if found and os.path.isabs(found) else None  # Windows looks here on its own


def import_path() -> list[str]:
    """Where this process imports from, without the current folder, and where this package is.

    A user's PYTHONPATH and user site stay; so do folders of editable installs.
    """
    return [*dict.fromkeys([*_elsewhere(sys.path), _OURS])]


def _elsewhere(folders: list[str]) -> list[str]:
    """The folders, absolute, but for the current one."""
    try:
        here = os.path.realpath(os.getcwd())
        wanted = [os.path.abspath(folder) for folder in folders if folder]
    except OSError:  # it was deleted
        here, wanted = "", [folder for folder in folders if os.path.isabs(folder)]
    return [folder for folder in wanted if os.path.realpath(folder) != here]


def _absolute(command: list[str]) -> list[str]:
    found = program(command[0])
    if found is None:
        raise FileNotFoundError(f"no program {command[0]}")
    return [found, *command[1:]]


def _safe(command: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a child, with its folder and its environment."""
    env = {**os.environ, **options.get("env", {})}
    for name in _FILES:
        if os.path.exists(env.get(name, "")):
            env[name] = os.path.abspath(env[name])
    if command[0] == python():
        path = import_path()
    else:  # may be of another Python
        path = _elsewhere(env.get("PYTHONPATH", "").split(os.pathsep))
    env |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    return {**options, "cwd": FOLDER, "env": env}
