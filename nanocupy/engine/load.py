"""From a model's name to everything an engine needs."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.engine.devices import make_device
from nanocupy.engine.memory import Room, plan
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
            if device.kind == "cpu":
                kv = plan(config, options, numbers)  # before the work, if it cannot be
            network = models.load(checkpoint)
            nn.prepare(network, device, numbers.weights_meet, tick=bars.tick("packing weights"))
        tokenizer = Tokenizer(folder)
        template = load_chat_template(folder)
        if device.kind == "cuda":
            room = gpu_room(network, config, device, options, numbers)
            kv = plan(config, options, numbers, room, device.kind)
        runner = ModelRunner(network, config, device, options, kv)
    return Loaded(runner, tokenizer, template, config, load_generation_config(folder))


def gpu_room(
    network: Any, config: Any, device: Any, options: EngineOptions, numbers: Precision
) -> Room:
    """What is left for KV blocks on a GPU that holds the weights.

    Where nobody says how many blocks, a trial engine with the least of them runs its largest step
    and tells how much memory everything else takes: buffers, graphs, the library's workspace.
    """
    total = device.memory_total()
    if options.num_kv_blocks is not None or options.kv_memory is not None:
        return Room(0, total)
    longest = options.max_model_len or config.max_position_embeddings
    least = replace(options, num_kv_blocks=1, max_model_len=None)
    kv = plan(config, least, numbers, Room(0, total), device.kind)
    trial = ModelRunner(network, config, device, options, replace(kv, max_model_len=longest))
    trial.warm_up()
    used = total - device.memory_free() - kv.nbytes
    trial.close()
    return Room(int(options.gpu_memory_utilization * total) - used, total)
