"""The dtypes of arrays, and what kernels, CUDA and checkpoints call each of them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

bool_ = np.dtype(np.bool_)
int8, int16, int32, int64 = (np.dtype(f"i{size}") for size in (1, 2, 4, 8))
uint8, uint16, uint32, uint64 = (np.dtype(f"u{size}") for size in (1, 2, 4, 8))
float16, float32, float64 = (np.dtype(f"f{size}") for size in (2, 4, 8))
bfloat16 = np.dtype(ml_dtypes.bfloat16)
float8_e4m3 = np.dtype(ml_dtypes.float8_e4m3fn)  # of codes in checkpoints; no array has it

_TABLE: list[tuple[np.dtype[Any], str, str]] = [
    (bool_, "bool", "bool"),
    (int8, "i8", "signed char"),
    (int16, "i16", "short"),
    (int32, "i32", "int"),
    (int64, "i64", "long long"),
    (uint8, "u8", "unsigned char"),
    (uint16, "u16", "unsigned short"),
    (uint32, "u32", "unsigned"),
    (uint64, "u64", "unsigned long long"),
    (float16, "f16", "__half"),
    (bfloat16, "bf16", "__nv_bfloat16"),
    (float32, "f32", "float"),
    (float64, "f64", "double"),
]
KINDS = {dtype: kind for dtype, kind, _ in _TABLE}
"""What kernels call a dtype."""
DTYPES = {kind: dtype for dtype, kind in KINDS.items()}
"""The dtype of a kind."""
C_TYPES = {dtype: c_type for dtype, _, c_type in _TABLE}
"""The type that CUDA sources have for a dtype."""
NAMED = {dtype.name: dtype for dtype in KINDS}
"""The dtype of a name as options and config.json spell it: "bfloat16"."""
SAFETENSORS = {kind.upper(): dtype for kind, dtype in DTYPES.items()}
"""The dtype of a name as safetensors files spell it: "BF16"."""
FLOATS = {dtype: KINDS[dtype] for dtype in (float32, float16, bfloat16)}
"""The dtypes of weights and of what they are multiplied with, and their kinds."""

F32, I8, I16, BF16, F16 = range(5)
NUMBERS = {"f32": F32, "i8": I8, "i16": I16, "bf16": BF16, "f16": F16}
"""How CPU kernels tell kinds apart while they run; an int's number is its bytes."""
