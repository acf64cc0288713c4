"""Kernels of a user's: a Numba function for CPUs, the body of a CUDA kernel, or both.

Arrays reach them without gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Specs = Sequence[tuple[Sequence[int], np.dtype[Any]]]
"""The shape and the dtype of each array: of the inputs, then of the outputs."""


@dataclass(frozen=True, eq=False)
class Source:
    """A kernel as its user gives it; see `core.fast.custom_kernel`.

    Attributes:
        inputs, outputs: the names of its parameters.
        compiled: its kernels on CPUs, by the dimensions and dtypes of their arrays.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cpu: Callable[..., None] | None
    cuda: str | None
    header: str
    compiled: dict[Any, Any] = field(default_factory=dict)
