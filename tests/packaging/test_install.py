"""Wheel, sdist and editable install, each in a fresh environment and used from outside the source.

The environments borrow the dependencies of the one that runs the tests: a .pth file that sorts
last, so that what was just installed is found first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Install = Callable[..., Path]


def call(*command: str | Path, cwd: Path) -> str:
    """stdout of a command that must succeed, with no trace of this environment's own settings."""
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(wheel, sdist) built from the source tree."""
    pytest.importorskip("hatchling", reason="building needs hatchling: pip install '.[test]'")
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "-d", out, cwd=ROOT)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Install into a new environment and return its folder of programs."""
    pytest.importorskip("pip", reason="installing needs pip")

    def run(*what: str | Path) -> Path:
        folder = tmp_path / "env"
        venv.create(folder, with_pip=False)
        scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        python = scripts / "python"
        site = call(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path
        )
        borrowed = "".join(f"{path}\n" for path in sys.path if path.endswith("-packages"))
        Path(site.strip(), "zz-borrowed.pth").write_text(borrowed)
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
        call(
            *pip,
            "--ignore-installed",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
            *what,
            cwd=tmp_path,
        )
        return scripts

    return run


def used(scripts: Path, outside: Path) -> Path:
    """Use the installed package from `outside`; returns the folder it is imported from."""
    report = "import json, nanocupy as n; print(json.dumps([n.__file__, n.__version__]))"
    file, version = json.loads(call(scripts / "python", "-c", report, cwd=outside))
    assert call(scripts / "nanocupy", "--version", cwd=outside) == f"nanocupy {version}\n"
    assert "generate" in call(scripts / "python", "-m", "nanocupy", "--help", cwd=outside)
    assert Path(file).with_name("py.typed").is_file()
    return Path(file).parent


def test_wheel(built: tuple[Path, Path], install: Install, tmp_path: Path) -> None:
    scripts = install(built[0])
    assert ROOT not in used(scripts, tmp_path).parents


def test_sdist(built: tuple[Path, Path], install: Install, tmp_path: Path) -> None:
    scripts = install(built[1])
    assert ROOT not in used(scripts, tmp_path).parents


def test_editable(install: Install, tmp_path: Path) -> None:
    scripts = install("--editable", ROOT)
    assert used(scripts, tmp_path) == ROOT / "nanocupy"


def test_wheel_and_sdist_hold_the_whole_package(built: tuple[Path, Path]) -> None:
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "nanocupy").rglob("*")
        if path.suffix in (".py", ".typed", ".cu", ".cuh", ".h")
    }
    with zipfile.ZipFile(built[0]) as wheel:
        assert tracked <= set(wheel.namelist())
    with tarfile.open(built[1]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert tracked <= inside
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "pyproject.toml",
        "tests/parity.py",
    ):
        assert name in inside, name


@pytest.mark.slow
def test_the_installed_wheel_answers(
    built: tuple[Path, Path], install: Install, tmp_path: Path, real_model: Path
) -> None:
    scripts = install(built[0])
    words = ("generate", "--json", "--max-tokens", "4", "--model", real_model, "Hello")
    said = json.loads(call(scripts / "nanocupy", *words, cwd=tmp_path))
    assert len(said["token_ids"]) <= 4 and said["text"]
