"""The array engine: lazy arrays, NumPy's names, `compile` into Programs. As `mlx.core`.

A name is loaded with its first use, so that an engine starts without what it does not need. What
MLX has and this has not is refused by name: see `unsupported`.
"""

from importlib import import_module
from math import e, inf, nan, pi
from typing import Any

from nanocupy.core import methods  # noqa: F401  (gives `array` its methods)
from nanocupy.core.names import finder, homes_of, refuse
from nanocupy.core.recorder.arrays import array, async_eval, eval
from nanocupy.core.recorder.casting import astype
from nanocupy.core.recorder.dtypes import named
from nanocupy.core.recorder.public import operation
from nanocupy.device.protocols import Rows
from nanocupy.dtypes import KINDS

(
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32,
    float64,
) = map(named, KINDS)  # fmt: skip
newaxis = None
euler_gamma = 0.5772156649015329

_MODULES = ("cuda", "distributed", "fast", "linalg", "metal", "random")
_HOMES = {  # module: the names that it has for this one
    "maths.convolution": (
        "conv1d conv2d conv3d conv_general conv_transpose1d conv_transpose2d conv_transpose3d "
        "convolve"
    ),
    "arrays.creation": (
        "arange asarray bartlett blackman empty empty_like eye from_dlpack full full_like "
        "hamming hanning identity linspace ones ones_like tri tril triu zeros zeros_like"
    ),
    "compiling.compiled": "compile disable_compile enable_compile",
    "compiling.dot": "export_to_dot",
    "runtime.devices": (
        "Device DeviceType Stream StreamContext ThreadLocalStream clear_streams cpu "
        "default_device default_stream device_count device_info gpu is_available new_stream "
        "new_thread_local_stream new_thread_unsafe_stream set_default_device "
        "set_default_stream stream synchronize"
    ),
    "maths.hadamard": "hadamard_transform",
    "arrays.indexing": "ArrayAt put_along_axis slice slice_update take_along_axis",
    "arrays.io": "load save save_safetensors savez savez_compressed",
    "arrays.layout": (
        "as_strided atleast_1d atleast_2d atleast_3d broadcast_arrays broadcast_shapes "
        "broadcast_to contiguous depends diag diagonal flatten flip "
        "matrix_transpose meshgrid moveaxis pad repeat roll swapaxes tile "
        "unflatten unstack view"
    ),
    "runtime.memory_stats": (
        "clear_cache get_active_memory get_cache_memory get_memory_limit get_peak_memory "
        "reset_peak_memory set_cache_limit set_memory_limit"
    ),
    "recorder.elementwise": "add gelu_approx multiply silu",
    "maths.elementwise": (
        "abs acos acosh arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh "
        "atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or "
        "bitwise_right_shift bitwise_xor ceil clip cos cosh degrees divide divmod equal erf "
        "erfinv exp expm1 floor floor_divide greater greater_equal isclose isfinite "
        "isinf isnan isneginf isposinf left_shift less less_equal log log1p log2 log10 logaddexp "
        "logical_and logical_not logical_or logical_xor maximum minimum nan_to_num "
        "negative not_equal positive pow power radians reciprocal remainder right_shift round "
        "rsqrt sigmoid sign sin sinh sqrt square stop_gradient subtract tan tanh trunc "
        "where"
    ),
    "maths.products": (
        "addmm block_masked_mm einsum einsum_path gather_mm inner kron matmul outer segmented_mm "
        "tensordot vecdot"
    ),
    "maths.quantized": "dequantize from_fp8 gather_qmm quantize quantized_matmul to_fp8",
    "maths.reductions": (
        "all allclose any argmax argmin array_equal count_nonzero diff logsumexp max mean min "
        "minmax prod softmax std sum trace var"
    ),
    "maths.scans": "cummax cummin cumprod cumsum cumulative_prod cumulative_sum logcumsumexp",
    "recorder.program": "Program",
    "recorder.shapes": (
        "concat concatenate expand_dims permute_dims reshape split squeeze stack take transpose"
    ),
    "maths.sorting": "argpartition argsort median partition searchsorted sort topk",
    "arrays.dtype_info": (
        "Dtype DtypeCategory can_cast finfo floating generic iinfo inexact integer isdtype "
        "issubdtype number result_type signedinteger unsignedinteger"
    ),
}
_HOME_OF = homes_of(_HOMES)
_OPERATIONS = {  # modules whose functions take a stream
    "arrays.creation", "arrays.indexing", "arrays.io", "arrays.layout", "maths.convolution",
    "maths.hadamard", "maths.products", "maths.quantized", "maths.reductions", "maths.scans",
    "maths.elementwise", "maths.sorting", "recorder.elementwise", "recorder.shapes",
}  # fmt: skip
_find = finder(__name__, _HOME_OF, refuse(__name__, "mlx.core"))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name == "__version__":
        return import_module("nanocupy.version").__version__
    value = _find(name)
    if _HOME_OF[name] in _OPERATIONS:
        value = globals()[name] = operation(value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_HOME_OF})


__all__ = [
    "Rows",
    "array",
    "astype",
    "async_eval",
    "bfloat16",
    "bool_",
    "e",
    "euler_gamma",
    "eval",
    "float16",
    "float32",
    "float64",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "nan",
    "newaxis",
    "pi",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]
