"""`import nanocupy` is cheap, and the version is said once."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

HEAVY = (
    "numba", "llvmlite", "cupy", "mpi4py", "tokenizers", "jinja2", "huggingface_hub", "gguf",
)  # fmt: skip


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(python("import json, sys, nanocupy; print(json.dumps(list(sys.modules)))"))
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_the_frontend_loads_no_kernels() -> None:
    """Wrong options are told at once, before what computes is imported."""
    code = "import json, sys; from nanocupy import LLM; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(python(code))
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)
    ours = ("nanocupy.core", "nanocupy.kernels", "nanocupy.models", "nanocupy.checkpoint")
    assert not [name for name in loaded if name.startswith(ours)]


def test_the_exports_exist_and_are_listed() -> None:
    code = "import nanocupy; print([getattr(nanocupy, n).__name__ for n in {names}], dir(nanocupy))"
    said = python(code.format(names=("LLM", "AsyncLLM", "SamplingParams")))
    assert said.count("'AsyncLLM'") == 2


def test_an_unknown_export_is_an_attribute_error() -> None:
    said = python(
        "import nanocupy\ntry: nanocupy.LMM\nexcept AttributeError as error: print(error)"
    )
    assert "LMM" in said


def test_the_version_is_the_distribution_s() -> None:
    said = python("import nanocupy; print(nanocupy.__version__)")
    assert said.strip() == metadata.version("nanocupy")
