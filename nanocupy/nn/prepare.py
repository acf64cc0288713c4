"""From a loaded model to one that a device can run: pack linear weights, upload the rest, let go.

Linear layers of one module that take the same number of inputs in the same format are packed side
by side, in the order they were defined. So q, k and v, or gate and up, are neighbours in memory,
and a Program can compute them as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from nanocupy.core import array, fast
from nanocupy.nn.layers import Weighted
from nanocupy.nn.module import Module


def prepare(
    model: Module,
    device: Any,
    activations: str | None = None,
    *,
    tick: Callable[[int, int], None] | None = None,
) -> Module:
    """Pack and upload every parameter of the model, in place.

    Args:
        activations: what weights meet: "f32" (exact); on a CPU "i16" (the default) or "i8", for
            weights that are quantised, see `kernels.linear.pack`; on a GPU "f16" or "bf16" (the
            default).
        tick: called as `tick(done, total)` after each module.
    """
    activations = activations or ("bf16" if device.kind == "cuda" else "i16")
    modules = model.modules()
    for done, module in enumerate(modules):
        _pack_children(module, device, activations)
        _upload(module, device)
        if tick:
            tick(done + 1, len(modules))
    return model


def _pack_children(module: Module, device: Any, activations: str) -> None:
    groups: dict[Any, list[tuple[Weighted, Any]]] = defaultdict(list)
    for _, child in module._named_children():
        if isinstance(child, Weighted) and child.packed is None:
            key, weight = child.to_pack()
            groups[key].append((child, weight))
    for members in groups.values():
        packed = fast.pack(device, [weight for _, weight in members], activations)
        for (child, _), weight in zip(members, packed, strict=True):
            child.packed = weight
            for name in ("weight", "scales", "biases"):
                child.pop(name, None)


def _upload(module: Module, device: Any) -> None:
    """Put the module's own arrays on the device as f32 (a bias padded to what the kernel reads)."""
    for name, value in module.items():
        if (
            isinstance(value, array)
            and not name.startswith("_")
            and value.node.op is not fast.STATIC
        ):
            host = value.numpy().astype(np.float32)
            buffer = device.asarray(np.pad(host.reshape(-1), (0, -host.size % 32)))
            module[name] = fast.static(buffer[: host.size].reshape(host.shape))
