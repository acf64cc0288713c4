"""From a model's name to everything an engine needs."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.engine.devices import make_device
from nanocupy.engine.memory import KVPlan, Room, longest_sequence, plan
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.precision import Precision, precision
from nanocupy.engine.runner import ModelRunner


class Loaded(NamedTuple):
    """A model that is ready to be served."""

    runner: Any
    tokenizer: Any
    chat_template: Any | None
    config: Any
    generation_config: dict[str, Any]


def load(model: str | PathLike[str], options: EngineOptions) -> Loaded:
    """Find the model, map its weights, pack them for the device, record and compile the step."""
    from nanocupy import models, nn
    from nanocupy.checkpoint import Checkpoint, load_generation_config, resolve
    from nanocupy.engine.bars import Bars
    from nanocupy.text import Tokenizer, load_chat_template

    with Bars(options.progress) as bars:
        folder = Path(resolve(model, progress=options.progress is not False))
        with Checkpoint(folder) as checkpoint:
            config = checkpoint.config
            device = make_device(options, bars.tick("compiling kernels, once"))
            numbers = precision(config, options, device.kind)
            kv = early_plan(config, device, options, numbers)
            network = models.load(checkpoint)
            nn.prepare(network, device, numbers.weights_meet, tick=bars.tick("packing weights"))
        tokenizer = Tokenizer(folder)
        template = load_chat_template(folder)
        if kv is None:
            room = gpu_room(network, config, device, options, numbers)
            kv = plan(config, options, numbers, room, device.kind)
        runner = ModelRunner(network, config, device, options, kv)
    return Loaded(runner, tokenizer, template, config, load_generation_config(folder))


def early_plan(
    config: Any, device: Any, options: EngineOptions, numbers: Precision
) -> KVPlan | None:
    """What can be planned before the work is, so that what cannot be is told at once.

    None on a GPU of which a share is wanted: how much is left shows when the weights are there.

    Raises:
        ValueError: the model or the memory does not allow what is asked for.
    """
    longest_sequence(config, options)
    if device.kind == "cpu":
        return plan(config, options, numbers)
    if options.num_kv_blocks is None and options.kv_memory is None:
        return None
    return plan(config, options, numbers, Room(0, device.memory_total()), device.kind)


def gpu_room(
    network: Any, config: Any, device: Any, options: EngineOptions, numbers: Precision
) -> Room:
    """What is left for KV blocks on a GPU that holds the weights.

    A trial engine with the least blocks there can be runs its largest graph (on no rows) and tells
    how much memory everything else takes: buffers, graphs, the library's workspace.
    """
    total, longest = device.memory_total(), longest_sequence(config, options)
    least = replace(options, num_kv_blocks=1, max_model_len=None)
    kv = plan(config, least, numbers, Room(0, total), device.kind)
    trial = ModelRunner(network, config, device, options, replace(kv, max_model_len=longest))
    trial.warm_up()
    used = total - device.memory_free() - kv.nbytes + kv.nbytes // kv.num_blocks  # the dump block
    trial.close()
    return Room(int(options.gpu_memory_utilization * total) - used, total)
