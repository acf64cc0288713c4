"""Every operation has a folder of one form: its contract, and launches by kind of device."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nanocupy.kernels

FOLDER = Path(nanocupy.kernels.__file__).parent
OPERATIONS = sorted(path.parent.name for path in FOLDER.glob("*/__init__.py"))
BOTH = [name for name in OPERATIONS if (FOLDER / name / "cuda.py").exists()]
BODIES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/cpu_*.py"))
ENTRIES = ("launch", "prepare")  # how the functions that lowerings call are named


def module(operation: str, kind: str) -> ModuleType:
    return importlib.import_module(f"nanocupy.kernels.{operation}.{kind}")


def entries(found: ModuleType) -> dict[str, list[Any]]:
    """The parameters of every public function that lowerings call: name, kind and default."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(value).parameters.values()]
        for name, value in vars(found).items()
        if name.startswith(ENTRIES) and inspect.isfunction(value)
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_contract_says_what_is_computed(operation: str) -> None:
    contract = importlib.import_module(f"nanocupy.kernels.{operation}")
    assert contract.__doc__
    if operation not in ("cast", "chains", "custom"):  # NumPy, the steps or the source say it
        assert any(name.endswith("reference") for name in vars(contract)), operation


@pytest.mark.parametrize("operation", BOTH)
def test_both_kinds_of_device_have_the_same_launches(operation: str) -> None:
    cpu, cuda = (entries(module(operation, kind)) for kind in ("cpu", "cuda"))
    assert cpu == cuda and cpu


def test_whatever_core_calls_is_there_on_both() -> None:
    sources = "\n".join(path.read_text() for path in FOLDER.with_name("core").rglob("*.py"))
    called = set(re.findall(r"\blaunches\.([a-z_]+)\.(\w+)", sources))
    assert len(called) > 20
    for operation, name in called:
        assert operation in BOTH or operation == "quantize"  # which only CPUs' weights ask for
        kinds = ("cpu", "cuda") if operation in BOTH else ("cpu",)
        assert all(hasattr(module(operation, kind), name) for kind in kinds), (operation, name)


@pytest.mark.parametrize("file", BODIES)
def test_arguments_of_kernels_have_names(file: str) -> None:
    assert not re.findall(r"\ba\[\d+\]", (FOLDER / file).read_text())


def test_nothing_in_kernels_or_lowerings_asks_for_a_kind_of_device() -> None:
    """But for what chooses the launches, once."""
    files = [*FOLDER.rglob("*.py"), *FOLDER.with_name("core").rglob("*.py")]
    asked = [path.name for path in files if re.search(r'kind [=!]= "(cpu|cuda)"', path.read_text())]
    assert asked == []
