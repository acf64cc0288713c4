"""`compile`: a function of arrays as a Graph, one for every set of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nanocupy.core.array import array, as_array
from nanocupy.core.fast import static
from nanocupy.core.program import Program


def compile(
    function: Callable[..., Any],
    inputs: Any = None,
    outputs: Any = None,
    shapeless: bool = False,
    *,
    device: Any = None,
) -> Callable[..., Any]:
    """`function` of arrays, recorded once per set of shapes and dtypes and then replayed as a
    Graph.

    Only operations with kernels can be compiled. The function must not look at values.

    Args:
        inputs, outputs: arrays that the function reads and changes besides its arguments.
        shapeless: one record may serve several shapes; results are the same either way.
        device: where the Graph runs. None: `function` itself. It records into whatever calls it,
            as a compiled function inside another does in MLX, and is compiled with its caller.
    """
    if device is None:
        return function
    if inputs is not None or outputs is not None:
        raise NotImplementedError("[compile] captured inputs and outputs of a function on a device")
    made: dict[Any, tuple[list[Any], Program, Any, bool]] = {}

    def call(*arguments: Any) -> Any:
        values = [as_array(a).numpy() for a in arguments]
        key = tuple((v.shape, v.dtype.str) for v in values)
        if key not in made:
            buffers = [device.empty(v.shape, v.dtype) for v in values]
            recorded = function(*(static(b) for b in buffers))
            single = isinstance(recorded, array)
            program = Program([recorded] if single else list(recorded), device)
            made[key] = buffers, program, program.capture(), single
        buffers, program, graph, single = made[key]
        for buffer, value in zip(buffers, values, strict=True):
            device.write(buffer, value)
        graph.run()
        results = [array(np.array(device.read(out))) for out in program.outputs]
        return results[0] if single else results

    return call
