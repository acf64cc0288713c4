"""nanocupy: LLM inference without a deep-learning framework, on NumPy + Numba and on CuPy.

    from nanocupy import LLM, SamplingParams
    with LLM("smollm2-135m") as llm:
        print(llm.generate("Hello", SamplingParams(max_tokens=32))[0].outputs[0].text)

Importing this loads nothing heavy: every library comes with its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocupy.version import __version__

if TYPE_CHECKING:
    from nanocupy.engine.async_llm import AsyncLLM
    from nanocupy.engine.llm import LLM
    from nanocupy.engine.params import SamplingParams

__all__ = ["LLM", "AsyncLLM", "SamplingParams", "__version__"]

_HOMES = {
    "LLM": "nanocupy.engine.llm",
    "AsyncLLM": "nanocupy.engine.async_llm",
    "SamplingParams": "nanocupy.engine.params",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nanocupy' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
