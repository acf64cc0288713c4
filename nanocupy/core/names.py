"""Names of a package that are loaded with their first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def homes_of(homes: Mapping[str, str]) -> dict[str, str]:
    """{module: "name name ..."} as {name: module}."""
    return {name: module for module, names in homes.items() for name in names.split()}


def finder(
    package: str, home_of: Mapping[str, str], missing: Callable[[str], Any]
) -> Callable[[str], Any]:
    """What a package's `__getattr__` calls: a name comes from its home, and stays.

    Args:
        home_of: the module of the package that has a name.
        missing: called with a name that has no home; it raises.
    """

    def find(name: str) -> Any:
        if name not in home_of:
            return missing(name)
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
