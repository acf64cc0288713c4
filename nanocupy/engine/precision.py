"""The dtypes an engine computes in: from its options, the model and the kind of device."""

from __future__ import annotations

from typing import Any, NamedTuple

from nanocupy.dtypes import KINDS, NAMED
from nanocupy.engine.options import EngineOptions


class Precision(NamedTuple):
    """
    Attributes:
        matmul_inputs: what weights are multiplied with, for `nn.prepare`.
        activations: dtype of queries and of attention's result.
        kv: dtype of keys and values in the cache.
    """

    matmul_inputs: str
    activations: str
    kv: str


def precision(config: Any, options: EngineOptions, half_precision: bool) -> Precision:
    """Choose the dtypes for a model; `half_precision` is the device's.

    "exact" is float32 throughout. Else a GPU computes in 16 bits (the model's own, bfloat16 where
    it has none) with f32 sums; a CPU in float32, but weights meet 16 bits where that is faster:
    integers if they are quantised (or 8 bits: "int8"), bfloat16 if they are.

    Raises:
        ValueError: a 16-bit dtype is asked of a CPU, or "int8" of a GPU (for weights or keys).
    """
    if not half_precision:
        if options.dtype in ("float16", "bfloat16"):
            raise ValueError(
                f"[EngineOptions] dtype={options.dtype!r} is for GPUs: on a CPU the weights keep "
                "their own dtype and sums are float32; use 'auto', 'int8' or 'exact'"
            )
        meet = {"exact": "f32", "int8": "i8"}.get(options.dtype, "i16")
        default = "float32" if options.dtype == "exact" else "float16"
        return Precision(meet, "float32", _or(options.kv_dtype, default))
    if options.dtype == "int8":
        raise ValueError(
            "[EngineOptions] dtype='int8' is for CPUs: on a GPU quantised weights meet 16-bit "
            "floats; use 'auto', 'float16' or 'bfloat16'"
        )
    if options.kv_dtype == "int8":
        raise ValueError(
            "[EngineOptions] kv_dtype='int8' is for CPUs: use 'auto', 'float16' or 'bfloat16'"
        )
    own = config.dtype if config.dtype in ("float16", "bfloat16") else "bfloat16"
    chosen = "float32" if options.dtype == "exact" else _or(options.dtype, own)
    return Precision(KINDS[NAMED[chosen]], chosen, _or(options.kv_dtype, chosen))


def not_finite(kv: str) -> str:
    """Return the error message for logits that are not finite.

    Args:
        kv: the dtype of keys and values, if it is known.
    """
    said = "the model's logits are not finite"
    if kv != "float16":
        return said
    return (
        f"{said}: where keys or values are beyond 65504, the most that float16 holds, they are "
        "infinite in the cache, and --kv-dtype bfloat16 (or float32) holds them"
    )


def _or(value: str, default: str) -> str:
    return default if value == "auto" else value
