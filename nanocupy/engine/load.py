"""From a model's name to everything an engine needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nanocupy.device.protocols import Device
from nanocupy.distributed import ONE, Group, RankError, group_of, world
from nanocupy.engine.devices import connect, make_device
from nanocupy.engine.kv_cache import (
    KVCacheConfig,
    Room,
    cpu_room,
    kv_cache_config,
    longest_sequence,
)
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.precision import Precision, precision
from nanocupy.engine.runner import ModelRunner
from nanocupy.progress import ProgressBars, note

if TYPE_CHECKING:
    from nanocupy.text import Tokenizer

GROUP = 64  # inputs that are quantised together, where an option asks for it
PATIENCE = 10  # times as long as a step of the engine may a first one stall, and a capture


class Loaded(NamedTuple):
    """A model that is ready to be served."""

    runner: Any  # a ModelRunner, or a LeadingRunner
    tokenizer: Tokenizer
    chat_template: Callable[[], Any]  # compiles it; None where the model has none
    config: Any
    generation_config: dict[str, Any]


class Parts(NamedTuple):
    """A rank's part of a model before its runner. `kv` is None where its size is not known yet."""

    folder: Path
    config: Any
    network: Any
    device: Device
    numbers: Precision
    kv: KVCacheConfig | None


def load(model: str | PathLike[str], options: EngineOptions, comm: Any = None) -> Loaded | None:
    """Load everything an engine needs, for this process alone or as rank 0 of several.

    Args:
        comm: an mpi4py communicator of the processes that take part.

    Returns:
        None on all other ranks of `comm`, once rank 0 has closed its engine. The other ranks that
        mpirun started serve until rank 0's program ends, and end there: they never return.
    """
    name = str(fspath(model))
    group = join(options, comm)
    if group.size() == 1:
        return load_here(name, options, group)
    from nanocupy.distributed.mpi import MpiGroup
    from nanocupy.engine import ranks

    assert isinstance(group, MpiGroup)
    if group.rank() == 0:
        loaded: Loaded = ranks.lead(name, options, group, load_here, once=comm is not None)
        return loaded
    ranks.Follower(group, (name, options), load_here).follow(once=comm is not None)
    if comm is None:
        raise SystemExit
    return None


def join(options: EngineOptions, comm: Any) -> Group:
    """Return the group of processes that share the model.

    Raises:
        ValueError: there are not as many as `tensor_parallel` says.
    """
    wanted = options.tensor_parallel
    if wanted == 1 and comm is None:
        return ONE
    size = world().size() if comm is None else comm.Get_size()
    if wanted not in ("auto", 1, size):
        raise ValueError(
            f"[EngineOptions] tensor_parallel={wanted}, and {size} processes were started: "
            f"start as many with mpirun -n {wanted}, or say 'auto'"
        )
    if comm is None:
        return world()
    return group_of(comm) if size > 1 else ONE


def load_here(
    model: str, options: EngineOptions, group: Group, check: Callable[[], None] = lambda: None
) -> Loaded:
    """Find the model, map its weights, pack this rank's part for the device, record and compile
    the step. All ranks do so together: where one fails, all raise.

    Args:
        check: raises where this rank asks for something else than rank 0.
    """
    from nanocupy.checkpoint import load_generation_config, resolve
    from nanocupy.text import Tokenizer

    with ProgressBars(options.progress) as bars:
        group.all_or_none(check)
        folder = Path(group.local_rank_0_first(lambda: resolve(model, progress=options.progress)))
        if group.size() > 1:
            _same_model(folder, group)
        parts = group.all_or_none(lambda: _parts(folder, options, group, bars))
        tokenizer, template, generation_config = group.all_or_none(
            lambda: (Tokenizer(folder), _read_template(folder), load_generation_config(folder))
        )
        runner = make_runner(parts, options, group)

    return Loaded(runner, tokenizer, template, parts.config, generation_config)


def _read_template(folder: Path) -> Callable[[], Any]:
    """Read the chat templates; return what compiles them: a start without a chat needs no jinja2.

    Raises:
        ValueError: here, where a file cannot be read; at the call, where a template is wrong.
    """
    from nanocupy.text.special_tokens import special_token_texts
    from nanocupy.text.template_files import template_sources

    sources, texts = template_sources(folder), special_token_texts(folder)

    @functools.cache
    def compiled() -> Any:
        from nanocupy.text.chat_template import compile_templates

        return compile_templates(folder, sources, texts)

    return compiled


def _same_model(folder: Path, group: Group) -> None:
    """ValueError where the ranks' folders, one on each host, hold different models."""

    def fingerprint() -> bytes:
        weights = [(p.name, p.stat().st_size) for p in sorted(folder.glob("*.safetensors"))]
        return (folder / "config.json").read_bytes() + repr(weights).encode()

    first, *others = group.exchange(fingerprint)
    if wrong := [rank for rank, other in enumerate(others, 1) if other != first]:
        raise ValueError(
            f"[load] ranks {wrong} have another model in {folder} than rank 0: config.json or the "
            "sizes of the weight files differ; give all hosts the same files"
        )


def _parts(folder: Path, options: EngineOptions, group: Group, bars: ProgressBars) -> Parts:
    """Load this rank's part of the model onto its device."""
    from nanocupy import models, nn
    from nanocupy.checkpoint import Checkpoint

    file = options.model_file
    with Checkpoint(folder, custom_model=file is not None) as checkpoint:
        config, made = checkpoint.config, None
        if config.quantization and config.quantization.floats:
            note(
                "8-bit floats are read as bfloat16, so they take twice the memory of the file",
                options.progress,
            )
        if file is not None:
            from nanocupy.models import model_file

            made, config = model_file.build(file, checkpoint)
        device = make_device(options, group, bars.tick("compiling kernels, once"))
        options.drafted(device.row_invariant)  # or it refuses
        numbers = precision(config, options, device.half_precision)
        kv = early_kv_cache(config, device, options, numbers, group)
        network: Any = (
            models.load(checkpoint, (options.quantize, GROUP) if options.quantize else None)
            if made is None
            else model_file.load(made, checkpoint)
        )
        if group.size() > 1:
            network.shard(group)
        nn.prepare(network, device, numbers.matmul_inputs, tick=bars.tick("packing weights"))
    return Parts(folder, config, network, device, numbers, kv)


def make_runner(parts: Parts, options: EngineOptions, group: Group) -> ModelRunner:
    """Make the runner of this rank, connected to those of the others."""
    disconnect = connect(parts.device, group)
    try:
        runner = _build(parts, _agreed_kv_cache(parts, options, group), options, group)
    except BaseException:
        parts.device.interrupt()  # nobody waits for what another rank did not even start
        with suppress(RankError):
            disconnect()
        raise
    runner.disconnect = disconnect
    return runner


def _agreed_kv_cache(parts: Parts, options: EngineOptions, group: Group) -> KVCacheConfig:
    """Return the KV cache that every rank has room for."""
    kv = parts.kv
    if kv is None:
        room = gpu_room(parts, options, group)
        kv = group.all_or_none(lambda: _kv_cache(parts, options, room, group))
    room_of_all = group.all_gather(np.array([[kv.num_blocks, kv.max_model_len]]))
    blocks, longest = (int(n) for n in np.concatenate(room_of_all).min(0))
    return replace(kv, num_blocks=blocks, max_model_len=longest)


def _build(parts: Parts, kv: KVCacheConfig, options: EngineOptions, group: Group) -> ModelRunner:
    """Make a runner that is ready to step.

    Raises:
        NotImplementedError: the network does something that the device has no kernel for.
    """
    make = partial(ModelRunner, parts.network, parts.config, parts.device, options, kv)

    def make_graphs() -> None:
        with group.step(parts.device, PATIENCE):
            runner.make_graphs()

    try:
        runner = group.all_or_none(make)
        if group.size() > 1:  # else capturing compiles
            group.local_rank_0_first(runner.compile)
        group.all_or_none(make_graphs)
    except NotImplementedError as error:
        named = f"model_type {parts.config.model_type!r}"
        if options.model_file is not None:
            named = f"model_file {options.model_file!r}"
        named = f"{named} with --device {parts.device.kind}"
        raise NotImplementedError(f"{named}: {error}") from error
    return runner


def _kv_cache(parts: Parts, options: EngineOptions, room: Room, group: Group) -> KVCacheConfig:
    return kv_cache_config(parts.config, options, parts.numbers, room, parts.device.kind, group)


def early_kv_cache(
    config: Any, device: Device, options: EngineOptions, numbers: Precision, group: Group
) -> KVCacheConfig | None:
    """Size the KV cache before the weights are loaded, so that errors come at once.

    None on a GPU of which a share is wanted: how much is left shows when the weights are there.

    Raises:
        ValueError: the model or the memory does not allow what is asked for.
    """
    longest_sequence(config, options)
    if device.unified_memory:
        return kv_cache_config(config, options, numbers, cpu_room(group.local_size), group=group)
    if options.num_kv_blocks is None and options.kv_memory is None:
        return None
    return kv_cache_config(
        config, options, numbers, Room(0, device.memory_total()), device.kind, group
    )


def gpu_room(parts: Parts, options: EngineOptions, group: Group) -> Room:
    """Measure what is left for KV blocks on a GPU that holds the weights.

    A trial engine with the least blocks there can be runs its largest graph (on no rows) and tells
    how much memory everything else takes: buffers, graphs, the library's workspace.
    """
    device = parts.device
    total, longest = device.memory_total(), longest_sequence(parts.config, options)
    least = replace(options, num_kv_blocks=1, max_model_len=None)
    kv = group.all_or_none(lambda: _kv_cache(parts, least, Room(0, total), group))
    trial = _build(parts, replace(kv, max_model_len=longest), options, group)

    def measure() -> int:
        with group.step(device, PATIENCE):  # who waits for a rank that failed must hear of it
            trial.warm_up()
        return int(total - device.memory_free() - kv.nbytes + kv.nbytes // kv.num_blocks)  # dump

    used = group.all_or_none(measure)
    trial.close()
    return Room(int(options.gpu_memory_utilization * total) - used, total)
