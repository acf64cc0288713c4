"""From a model's name to everything an engine needs."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from nanocupy.engine.memory import plan
from nanocupy.engine.options import EngineOptions
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
    from nanocupy.device.cpu.device import CpuDevice
    from nanocupy.engine.bars import Bars
    from nanocupy.text import Tokenizer, load_chat_template

    with Bars(options.progress) as bars:
        folder = Path(resolve(model, progress=options.progress is not False))
        with Checkpoint(folder) as checkpoint:
            config = checkpoint.config
            kv = plan(config, options)
            device = CpuDevice(options.threads, tick=bars.tick("compiling kernels, once"))
            network = models.load(checkpoint)
            exact = options.dtype == "exact"
            nn.prepare(network, device, exact=exact, tick=bars.tick("packing weights"))
        tokenizer = Tokenizer(folder)
        template = load_chat_template(folder)
        runner = ModelRunner(network, config, device, options, kv)
    return Loaded(runner, tokenizer, template, config, load_generation_config(folder))
