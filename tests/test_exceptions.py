"""Every exception of the package goes through pickle and copy, as pools of processes need it."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import nanocupy
from nanocupy.checkpoint.writer import Unwritable
from nanocupy.device.emulated.nccl import NcclError
from nanocupy.engine.driver import QueueFullError
from nanocupy.engine.engine import PromptTooLongError
from nanocupy.text import TooLongError

OWN = [  # those that want more than a message
    PromptTooLongError("30 tokens, at most 19", 30, 19),
    QueueFullError("12 are there", 12, 12),
    Unwritable(Path("/out"), PermissionError(13, "Permission denied")),
    NcclError(5, "rank 1"),
    TooLongError(30, 19, least=True),
]


def exceptions() -> list[type[BaseException]]:
    """Every exception class that a module of ours defines."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(nanocupy.__path__, "nanocupy."):
        if ".cpu_" in module.name or module.name == "nanocupy.__main__":
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException):
                found.add(value)
    return sorted((cls for cls in found if cls.__module__.startswith("nanocupy")), key=str)


def made() -> list[BaseException]:
    plain = {cls for cls in exceptions() if "__init__" not in vars(cls)}
    assert set(exceptions()) - plain == {type(error) for error in OWN}, "say how to make it, in OWN"
    return [*OWN, *(cls("what happened") for cls in sorted(plain, key=str))]


def said(error: BaseException) -> Any:
    fields = {name: repr(value) for name, value in vars(error).items()}
    return type(error), str(error), fields


def test_there_are_exceptions() -> None:
    names = {cls.__name__ for cls in exceptions()}
    assert {"PromptTooLongError", "RankError", "EngineDeadError", "KernelError"} <= names


@pytest.mark.parametrize("error", made(), ids=lambda error: type(error).__name__)
def test_an_exception_survives(error: BaseException) -> None:
    error.__notes__ = ["a note"]
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert said(other) == said(error)


def test_a_message_that_was_added_to_survives() -> None:
    """As `prompts[3]: ` is, where one of several prompts is refused."""
    error = PromptTooLongError("30 tokens", 30, 19)
    error.args = (f"prompts[3]: {error}",)
    other = pickle.loads(pickle.dumps(error))
    assert said(other) == said(error) and (other.num_tokens, other.limit) == (30, 19)
