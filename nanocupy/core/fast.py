"""Fused operations, as `mlx.core.fast` has them, and the handles that Programs are made with."""

from nanocupy.core.compiling.custom import custom_kernel
from nanocupy.core.names import refuse
from nanocupy.core.recorder.arrays import static
from nanocupy.core.recorder.attention import scaled_dot_product_attention
from nanocupy.core.recorder.fused import layer_norm, rms_norm
from nanocupy.core.recorder.packed import (
    embedding_part,
    packed_embedding,
    packed_linear,
    packed_matrix,
    packed_stack,
)
from nanocupy.core.recorder.paged import (
    PagedCache,
    PagedMeta,
    paged_attention,
)
from nanocupy.core.recorder.rotary import longest, rope
from nanocupy.core.recorder.sampling import SamplingBuffers, sample
from nanocupy.device.protocols import Rows
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.linear import PackedWeight, dequantize, pack

__all__ = [
    "KVLayout",
    "PackedWeight",
    "PagedCache",
    "PagedMeta",
    "Rows",
    "SamplingBuffers",
    "custom_kernel",
    "dequantize",
    "embedding_part",
    "layer_norm",
    "longest",
    "pack",
    "packed_embedding",
    "packed_linear",
    "packed_matrix",
    "packed_stack",
    "paged_attention",
    "rms_norm",
    "rope",
    "sample",
    "scaled_dot_product_attention",
    "static",
]
__getattr__ = refuse(__name__, "fast")
