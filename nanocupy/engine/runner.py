"""The runner: one Program for every step, over static buffers.

A step's rows are tokens, each at its own position of its own sequence: prompt chunks and single
decode tokens alike. The runner writes where they stand into the buffers, runs the captured graph,
and reads the sampled tokens. After it is made, it allocates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core import fast
from nanocupy.core.program import Program
from nanocupy.engine.batch import Sampled, SampleRow, Scheduled
from nanocupy.engine.memory import KVPlan
from nanocupy.engine.options import EngineOptions

MIN_SAMPLES = 64  # rows of logits a step can hold at least: prompt_logprobs wants many
MAX_EDITS = 2048  # changed logits a row, beyond one for each token of a sequence


class StepBuffers:
    """What changes from step to step: everything a Program reads besides weights and pages."""

    def __init__(self, device: Any, rows: int, samples: int, sequences: int, plan: KVPlan) -> None:
        def ints(*shape: int) -> Any:
            return device.empty(shape, np.int32)

        self.rows, self.samples = device.empty((1,), np.int64), device.empty((1,), np.int64)
        self.tokens, self.positions = ints(rows), ints(rows)
        self.sequences, self.slots = ints(rows), ints(rows)
        self.block_tables = ints(sequences, -(-plan.max_model_len // plan.block_size))
        self.sample_rows = ints(samples)
        edits = samples * (plan.max_model_len + MAX_EDITS)
        self.sampling = fast.SamplingBuffers(
            floats=device.empty((samples, 4), np.float32),
            top_k=ints(samples),
            target=ints(samples),
            edit_start=ints(samples + 1),
            edit_ids=ints(edits),
            edit_mul=device.empty((edits,), np.float32),
            edit_add=device.empty((edits,), np.float32),
        )


class ModelRunner:
    """A prepared model with its KV pages on a device. See `engine.batch.Runner`.

    Args:
        model: a prepared `nn.Module` in the MLX contract.
        config: its configuration.
        device: where it runs.
        options: of the engine.
        plan: how many KV blocks there are, and of what.
    """

    def __init__(
        self, model: Any, config: Any, device: Any, options: EngineOptions, plan: KVPlan
    ) -> None:
        self.max_rows = options.max_num_batched_tokens
        self.max_seqs = options.max_num_seqs
        self.max_samples = max(self.max_seqs, MIN_SAMPLES)
        self.block_size, self.num_blocks = plan.block_size, plan.num_blocks
        self.max_model_len, self.vocab_size = plan.max_model_len, config.vocab_size
        self.device, self.plan = device, plan
        if len(model.layers) != plan.layers:
            raise ValueError(
                f"[runner] the model has {len(model.layers)} layers, config.json says {plan.layers}"
            )
        self.buffers = StepBuffers(device, self.max_rows, self.max_samples, self.max_seqs, plan)
        self.pages = [plan.layout.empty(device) for _ in range(plan.layers)]
        self.program = Program(self._record(model), device)
        self._graph = self.program.capture() if options.capture else self.program.eager()

    def _record(self, model: Any) -> list[core.array]:
        """The step: tokens to logits, the wanted rows of them, one token each."""
        buffers = self.buffers
        rows = core.Rows(self.max_rows, buffers.rows)
        samples = core.Rows(self.max_samples, buffers.samples)

        def per_row(buffer: Any, limit: int | None = None) -> core.array:
            return fast.static(buffer, (rows,), limit)

        meta = fast.PagedMeta(
            per_row(buffers.positions, self.max_model_len),
            per_row(buffers.sequences),
            per_row(buffers.slots),
            buffers.block_tables,
        )
        layout = self.plan.layout
        caches = [fast.PagedCache(layout, keys, values, meta) for keys, values in self.pages]
        logits = model(fast.static(buffers.tokens, (rows, 1)), cache=caches)
        wanted = core.take(logits, fast.static(buffers.sample_rows, (samples,)))
        wanted = wanted.reshape(samples, self.vocab_size)
        return [*fast.sample(wanted, buffers.sampling), wanted]

    # ---- a step

    def step(self, batch: Sequence[Scheduled]) -> list[Sampled]:
        """Compute the chunks; one Sampled per SampleRow, in order."""
        wanted = self._fill_rows(batch)
        self._fill_samples(wanted)
        self._graph.run()
        tokens, sums, logits = self.program.outputs
        return [
            _sampled(row, int(tokens[i]), sums[i], logits[i]) for i, (_, row) in enumerate(wanted)
        ]

    def _fill_rows(self, batch: Sequence[Scheduled]) -> list[tuple[int, SampleRow]]:
        """Write where every row stands; the wanted rows as (row of the step, SampleRow)."""
        to, start = self.buffers, 0
        wanted: list[tuple[int, SampleRow]] = []
        for index, chunk in enumerate(batch):
            stop = start + len(chunk.tokens)
            table = np.array(chunk.block_table, np.int32)
            positions = np.arange(chunk.start, chunk.start + len(chunk.tokens), dtype=np.int32)
            to.tokens[start:stop] = chunk.tokens
            to.positions[start:stop] = positions
            to.sequences[start:stop] = index
            to.slots[start:stop] = table[positions // self.block_size] * self.block_size + (
                positions % self.block_size
            )
            to.block_tables[index, : len(table)] = table
            wanted += [(start + row.row, row) for row in chunk.sample]
            start = stop
        assert (
            start <= self.max_rows
            and len(wanted) <= self.max_samples
            and len(batch) <= self.max_seqs
        )
        to.rows[0], to.samples[0] = start, len(wanted)
        return wanted

    def _fill_samples(self, wanted: list[tuple[int, SampleRow]]) -> None:
        """Write how every wanted row is sampled."""
        to, sampling, end = self.buffers, self.buffers.sampling, 0
        for i, (place, row) in enumerate(wanted):
            to.sample_rows[i] = place
            sampling.floats[i] = row.temperature, row.top_p, row.min_p, row.uniform
            sampling.top_k[i], sampling.target[i] = row.top_k, row.target
            sampling.edit_start[i] = end
            if row.edits:
                start, end = end, end + len(row.edits.ids)
                sampling.edit_ids[start:end] = row.edits.ids
                sampling.edit_mul[start:end] = row.edits.mul
                sampling.edit_add[start:end] = row.edits.add
        sampling.edit_start[len(wanted)] = end

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self.pages, self.device = [], None
        self.__dict__.pop("program", None)
        self.__dict__.pop("_graph", None)
        self.__dict__.pop("buffers", None)


def _sampled(row: SampleRow, token: int, log_sum: float, logits: np.ndarray) -> Sampled:
    if token < 0 or row.top < 0:
        return Sampled(token, float("nan"), [])
    return Sampled(token, float(logits[token] - log_sum), _top(logits, log_sum, row.top))


def _top(logits: np.ndarray, log_sum: float, count: int) -> list[tuple[int, float]]:
    """The most probable tokens with their logprobs, best first, lower ids first where equal."""
    if count == 0:
        return []
    least = np.partition(logits, -count)[-count]
    ids = np.flatnonzero(logits >= least)
    best = ids[np.lexsort((ids, -logits[ids]))][:count]
    return [(int(i), float(logits[i] - log_sum)) for i in best]
