"""Prepare a loaded model for a device: pack linear weights, upload the rest, free the originals.

Linear layers of one module with the same number of inputs and the same format are packed side by
side, in the order they were defined. So q, k and v, or gate and up, are neighbours in memory, and a
Program can compute them as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core import array
from nanocupy.core.recorder.arrays import static
from nanocupy.core.recorder.graph import STATIC
from nanocupy.core.recorder.packed import PACKED, packed_matrix, packed_stack
from nanocupy.device.protocols import Device
from nanocupy.kernels.linear import pack
from nanocupy.nn.layers import Weighted
from nanocupy.nn.module import Module


def prepare(
    model: Module,
    device: Device,
    activations: str | None = None,
    *,
    tick: Callable[[int, int], None] | None = None,
) -> Module:
    """Pack and upload every parameter of the model, in place.

    Args:
        activations: the type that weights are multiplied with: "f32" (exact); on a CPU "i16" (the
            default) or "i8", for quantised weights, see `kernels.linear.pack`; on a GPU "f16" or
            "bf16" (the default).
        tick: called as `tick(done, total)` after each buffer that is packed.
    """
    activations = activations or ("bf16" if device.half_precision else "i16")
    modules = model.modules()
    buffers = [layers for module in modules for layers in _side_by_side(module)]
    with ThreadPoolExecutor(device.threads) as pool:
        packing = pool.map(lambda layers: _pack(layers, device, activations), buffers)
        for done, _ in enumerate(packing, 1):
            if tick:
                tick(done, len(buffers))
    for module in modules:
        if hasattr(module, "num_experts"):
            _pack_stack(module, device, activations)
        _upload(module, device)
    return model


def _side_by_side(module: Module) -> Iterable[list[Weighted]]:
    """The layers of a module that are not packed yet, grouped into those that share a buffer."""
    groups: dict[Any, list[Weighted]] = defaultdict(list)
    for _, child in module._named_children():
        if isinstance(child, Weighted) and child.packed is None:
            groups[child.buffer_key()].append(child)
    return groups.values()


def _pack(layers: list[Weighted], device: Device, activations: str) -> None:
    weights = [layer.to_pack() for layer in layers]
    for layer, packed in zip(layers, pack(device, weights, activations), strict=True):
        layer.packed = packed
        for name in ("weight", "scales", "biases"):
            layer.pop(name, None)
        if "order" not in layer:  # else its columns are not in the model's order
            layer.weight = packed_matrix(packed)
    if "order" in layers[0]:  # the same for all: one array, so that a step sorts rows once
        for layer in layers:
            layer.order = layers[0].order


def _pack_stack(module: Module, device: Device, activations: str) -> None:
    """Pack the weights [experts, n, k] of a layer of mlx-lm's `SwitchLinear`."""
    weight = module.get("weight")
    if isinstance(weight, array) and weight.ndim == 3 and "scales" not in module:
        packed = [pack(device, [each], activations)[0] for each in weight.numpy()]
        module.weight = packed_stack(packed)


def _upload(module: Module, device: Device) -> None:
    """Copy the module's own arrays to the device as f32, padded to multiples of 32 elements."""
    for name, value in module.items():
        if (
            isinstance(value, array)
            and not name.startswith("_")
            and value.dtype != core.int32  # the order of inputs: a Program has it as a constant
            and value.node.op not in (STATIC, PACKED)
        ):
            host = value.numpy().astype(np.float32)
            buffer = device.asarray(np.pad(host.reshape(-1), (0, -host.size % 32)))
            module[name] = static(buffer[: host.size].reshape(host.shape), fixed=True)
