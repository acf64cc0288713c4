"""Layers, as `mlx.nn` has them.

Names are loaded on first use, so that an engine starts without what it does not need. MLX's names
for training are refused.
"""

from typing import Any

from nanocupy.core.names import finder, homes_of, refuse
from nanocupy.nn.activations import gelu_approx, silu
from nanocupy.nn.layers import Embedding, Linear, QuantizedEmbedding, QuantizedLinear, RMSNorm, RoPE
from nanocupy.nn.module import Module
from nanocupy.nn.pack_weights import prepare
from nanocupy.nn.quantize_layers import quantize, replace_with_quantized

_HOMES = {  # module: its names
    "activations": (
        "CELU ELU GELU GLU HardShrink HardTanh Hardswish LeakyReLU LogSigmoid LogSoftmax Mish "
        "PReLU ReLU ReLU2 ReLU6 SELU SiLU Sigmoid Softmax Softmin Softplus Softshrink Softsign "
        "Step Tanh celu elu gelu gelu_fast_approx glu hard_shrink hard_tanh hardswish "
        "leaky_relu log_sigmoid log_softmax mish prelu relu relu2 relu6 selu sigmoid softmax "
        "softmin softplus softshrink softsign step tanh"
    ),
    "bilinear": "Bilinear",
    "containers": "Dropout Dropout2d Dropout3d Identity Sequential",
    "convolution": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    "normalization": "BatchNorm GroupNorm InstanceNorm LayerNorm",
    "pooling": "AvgPool1d AvgPool2d AvgPool3d MaxPool1d MaxPool2d MaxPool3d",
    "positional": "ALiBi SinusoidalPositionalEncoding",
    "recurrent": "GRU LSTM RNN",
    "transformer": (
        "MultiHeadAttention Transformer TransformerDecoder TransformerDecoderLayer "
        "TransformerEncoder TransformerEncoderLayer"
    ),
    "upsample": "Upsample",
}
_HOME_OF = homes_of(_HOMES)
_refuse = refuse(
    __name__,
    "mlx.nn",
    "AllToShardedLinear FullyShardedModule QQLinear QuantizedAllToShardedLinear "
    "QuantizedShardedToAllLinear ShardedToAllLinear average_gradients fully_shard init "
    "losses value_and_grad",
)
_find = finder(__name__, _HOME_OF, _refuse)


def __getattr__(name: str) -> Any:
    return _find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})


__all__ = [
    "Embedding",
    "Linear",
    "Module",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "RoPE",
    "gelu_approx",
    "prepare",
    "quantize",
    "replace_with_quantized",
    "silu",
]
