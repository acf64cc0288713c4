"""Make tests/golden/packings.npz: quantised modules that other programs packed.

    pip install torch compressed-tensors==0.17.0 vllm
    python tests/golden/make_packings.py

compressed-tensors compresses a weight, and decompresses it: module and weight are kept. vLLM's
packers of AWQ and GPTQ (which its own kernels are tested with) pack codes of which it says what
they stand for; GPTQ's version 1 has its zero points as GPTQModel's conversion makes them, a word of
ones less.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.compressors.naive_quantized import FloatQuantizationCompressor
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from vllm.model_executor.layers.quantization.utils.quant_utils import (
    awq_pack,
    gptq_pack,
    pack_cols,
    quantize_weights,
)
from vllm.scalar_type import scalar_types

N, K = 16, 128
OUT = Path(__file__).parent / "packings.npz"
Module = dict[str, np.ndarray]


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """What NumPy has no dtype for, as its bits."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    if tensor.dtype == torch.float8_e4m3fn:
        return tensor.view(torch.uint8).numpy()
    return tensor.numpy()


def compressed(compressor: Any, shape: tuple[int, int], **weights: Any) -> Module:
    """A random module by compressed-tensors; the scales have values that bfloat16 holds."""
    args = QuantizationArgs(**weights)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    state = {
        "weight": torch.randn(N, K),
        "weight_scale": ((torch.rand(shape) + 0.5) * 0.3).bfloat16().float(),
    }
    if not args.symmetric:
        half = 1 << (args.num_bits - 1)
        state["weight_zero_point"] = torch.randint(-half, half, shape, dtype=torch.int8)
    if args.actorder == "group":
        state["weight_g_idx"] = torch.randperm(K).div(args.group_size, rounding_mode="floor").int()
    packed = compressor.compress(state, scheme)
    dense = compressor.decompress(packed, scheme)["weight"]
    packed["weight_scale"] = packed["weight_scale"].bfloat16()
    return {"dense": dense.float().numpy(), **{n: as_numpy(t) for n, t in packed.items()}}


def awq(group: int) -> Module:
    _, q, s, z = quantize_weights(torch.randn(K, N), scalar_types.uint4, group, True)
    s = s.half()
    return {
        "dense": ((q - z.repeat_interleave(group, 0)) * s.float().repeat_interleave(group, 0)).T,
        "qweight": awq_pack(q, 4, K, N),
        "qzeros": awq_pack(z, 4, K // group, N),
        "scales": s,
    }


def gptq(bits: int, group: int, version: int) -> Module:
    kind = {4: scalar_types.uint4, 8: scalar_types.uint8}[bits]
    w = torch.randn(K, N)
    w[:, ::3] = w[:, ::3].abs()
    w[::32, ::3] = 0  # so that some zero points are 0
    _, q, s, z = quantize_weights(w, kind, group, True)
    s, zeros = s.half(), pack_cols(z, bits, K // group, N).numpy().view(np.uint32)
    ones = {4: 0x11111111, 8: 0x01010101}[bits] if version == 1 else 0
    assert (z == 0).any()
    return {
        "dense": ((q - z.repeat_interleave(group, 0)) * s.float().repeat_interleave(group, 0)).T,
        "qweight": gptq_pack(q, bits, K, N),
        "qzeros": (zeros - np.uint32(ones)).view(np.int32),
        "scales": s,
        "g_idx": (torch.arange(K) // group).int(),
    }


def main() -> None:
    torch.manual_seed(0)
    packed, floats = PackedQuantizationCompressor, FloatQuantizationCompressor
    group: dict[str, Any] = {"strategy": "group", "group_size": 32}
    of8: dict[str, Any] = {"num_bits": 8, "type": "float"}
    modules = {
        "pack-quantized, 4 bits": compressed(packed, (N, 4), num_bits=4, **group),
        "pack-quantized, 4 bits, asymmetric": compressed(
            packed, (N, 4), num_bits=4, symmetric=False, **group
        ),
        "pack-quantized, 8 bits, channel": compressed(
            packed, (N, 1), num_bits=8, strategy="channel"
        ),
        "pack-quantized, 4 bits, actorder": compressed(
            packed, (N, 4), num_bits=4, actorder="group", **group
        ),
        "float-quantized, tensor": compressed(floats, (1,), strategy="tensor", **of8),
        "float-quantized, channel": compressed(floats, (N, 1), strategy="channel", **of8),
        "awq": awq(32),
        "gptq, 4 bits": gptq(4, 32, 1),
        "gptq, 8 bits": gptq(8, 64, 1),
        "gptq_v2, 4 bits": gptq(4, 64, 2),
    }
    flat = {f"{name}/{leaf}": np.asarray(t) for name, m in modules.items() for leaf, t in m.items()}
    np.savez_compressed(OUT, **flat)
    print(OUT, OUT.stat().st_size, len(modules))


if __name__ == "__main__":
    main()
