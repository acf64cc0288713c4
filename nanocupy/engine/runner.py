"""The runner: one Program for every step, over static buffers.

A step's rows are tokens, each at its own position of its own sequence: prompt chunks and single
decode tokens alike. The runner writes where they stand into the buffers, runs a captured graph that
is large enough, and reads the sampled tokens. After it is made, it allocates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nanocupy import core
from nanocupy.core.recorder.arrays import static
from nanocupy.core.recorder.lowering import Sizes
from nanocupy.core.recorder.paged import PagedCache, PagedMeta
from nanocupy.core.recorder.program import Program
from nanocupy.core.recorder.sampling import sample
from nanocupy.device.protocols import Device
from nanocupy.engine.batch import Sampled, SampleRow, Scheduled
from nanocupy.engine.buckets import Bucket, buckets, smallest, split_rows
from nanocupy.engine.buffers import StepBuffers
from nanocupy.engine.kv_cache import KVCacheConfig
from nanocupy.engine.logprobs import sampled
from nanocupy.engine.options import EngineOptions

MIN_SAMPLES = 64  # rows of logits a step can hold at least: prompt_logprobs wants many


class ModelRunner:
    """A prepared model with its KV pages on a device. See `engine.batch.Runner`.

    Args:
        model: a prepared `nn.Module` in the MLX contract.
        config: its configuration.
        device: where it runs.
        options: of the engine.
        kv: how many KV blocks there are, and of what.
    """

    def __init__(
        self, model: Any, config: Any, device: Device, options: EngineOptions, kv: KVCacheConfig
    ) -> None:
        self.max_rows = options.max_num_batched_tokens
        self.max_seqs = options.max_num_seqs
        self.max_samples = max(self.max_seqs, MIN_SAMPLES)
        self.block_size, self.num_blocks = kv.block_size, kv.num_blocks
        self.max_model_len, self.vocab_size = kv.max_model_len, config.vocab_size
        self.device, self.kv, self.row_invariant = device, kv, device.row_invariant
        self.kv_dtype = kv.dtype
        if len(model.layers) != kv.layers:
            raise ValueError(
                f"[runner] the model has {len(model.layers)} layers, config.json says {kv.layers}"
            )
        self.tile = kv.layout.prefill_tile
        self.buckets = [Bucket(self.max_rows, self.max_samples)]
        if device.fixed_grids:
            self.buckets = buckets(self.max_rows, self.max_samples, self.max_seqs, self.tile)
        self.buffers = StepBuffers(device, self.buckets[-1], self.max_seqs, kv, self.vocab_size)
        self.pages = kv.layout.empty(device, kv.layers)
        self.program = Program(self._record(model), device)
        self.captured = options.capture
        self._graphs: list[Any] = []
        self.disconnect: Callable[[], None] = lambda: None  # from other ranks

    def _record(self, model: Any) -> list[core.array]:
        """Record the step: tokens to logits, the wanted rows of them, one token each."""
        to = self.buffers
        rows, samples = to.rows, to.samples

        def per_row(buffer: Any, limit: int | None = None) -> core.array:
            return static(buffer, (rows,), limit)

        meta = PagedMeta(
            per_row(to.device.positions, self.max_model_len),
            per_row(to.device.sequences),
            per_row(to.device.slots),
            to.device.block_tables,
            to.split,
        )
        layout = self.kv.layout
        caches = [PagedCache(layout, keys, values, meta) for keys, values in self.pages]
        logits = model(static(to.device.tokens, (rows, 1)), cache=caches)
        wanted = core.take(logits, static(to.device.sample_rows, (samples,)), 0)
        wanted = wanted.reshape(samples, self.vocab_size)
        return [*sample(wanted, to.sampling), wanted]

    def compile(self) -> None:
        """Compile every kernel; nothing is captured."""
        for bucket in self.buckets:
            self.device.compile(self.program.launches(self._sizes(bucket)))

    def make_graphs(self) -> None:
        """Capture the step in every size; required before the first step."""
        make = self.program.capture if self.captured else self.program.eager
        self._graphs = [make(self._sizes(bucket)) for bucket in self.buckets]

    def _sizes(self, bucket: Bucket) -> Sizes:
        """Return the symbolic sizes of a step with as many rows as the bucket holds."""
        to = self.buffers
        sizes = [(to.rows, bucket.rows), (to.samples, bucket.samples)]
        if split := to.split:
            sizes += [(split.decode_count, bucket.decode_rows)]
            sizes += [(split.tile_count, bucket.prefill_tiles)]
        return sizes

    def warm_up(self) -> None:
        """Run the largest step on no rows, so that what is made on first use is made now."""
        self.buffers.host.counts[:] = 0
        self.buffers.send(0, 0)
        self._graphs[-1].run()
        self.buffers.receive()

    # ---- a step

    def step(self, batch: Sequence[Scheduled]) -> list[Sampled]:
        """Compute the chunks; return one Sampled per SampleRow, in order."""
        wanted, edits = self.fill(batch)
        self.run(len(batch), edits)
        return self.answers(wanted)

    def fill(self, batch: Sequence[Scheduled]) -> tuple[list[SampleRow], int]:
        """Write the step into the buffers; return the wanted rows and the number of edits."""
        wanted = self._fill_rows(batch)
        return wanted, self._fill_samples(wanted)

    def run(self, sequences: int, edits: int) -> None:
        """Run the step that is in the buffers, and wait for it."""
        self.buffers.send(sequences, edits)
        size = 0 if len(self._graphs) == 1 else self.size_needed()
        self._graphs[size].run()
        self.buffers.receive()

    def size_needed(self) -> int:
        """Return the index in `buckets` of the smallest graph that holds the written step."""
        return smallest(self.buckets, Bucket(*map(int, self.buffers.host.counts)))

    def answers(self, wanted: list[SampleRow]) -> list[Sampled]:
        """Return what the step drew for the wanted rows; logprobs where a row asks for them."""
        tokens = self.buffers.answers.token[: len(wanted)].tolist()
        answers: list[Sampled] = []
        logits = None
        for i, row in enumerate(wanted):
            if row.top < 0 or tokens[i] < 0:
                answers.append(Sampled(tokens[i]))
                continue
            if logits is None:
                logits = self.device.read(self.program.outputs[2][: len(wanted)])
            answers.append(sampled(row, tokens[i], self.buffers.answers.lse[i], logits[i]))
        return answers

    def _fill_rows(self, batch: Sequence[Scheduled]) -> list[SampleRow]:
        """Write tokens, positions, sequences, slots, block tables and the places of wanted rows;
        return the wanted rows."""
        to, wanted = self.buffers.host, list[SampleRow]()
        tokens, positions, sequences, places = list[int](), list[int](), list[int](), list[int]()
        lengths = list[int]()
        for index, (_, start, chunk, table, chosen, _) in enumerate(batch):
            for row in chosen:
                places.append(len(tokens) + row.row)
            wanted += chosen
            lengths.append(len(chunk))
            tokens += chunk
            positions += range(start, start + len(chunk))
            sequences += [index] * len(chunk)
            to.block_tables[index, : len(table)] = table
        rows = len(tokens)
        assert rows <= self.max_rows and len(wanted) <= self.max_samples
        assert len(batch) <= self.max_seqs
        to.counts[:2] = rows, len(wanted)
        to.tokens[:rows], to.positions[:rows], to.sequences[:rows] = tokens, positions, sequences
        blocks, offsets = np.divmod(to.positions[:rows], self.block_size)
        to.slots[:rows] = to.block_tables[to.sequences[:rows], blocks] * self.block_size + offsets
        to.sample_rows[: len(wanted)] = places
        if self.buffers.split:
            to.counts[2:] = split_rows(lengths, self.tile, to.decode_rows, to.prefill_tiles)
        return wanted

    def _fill_samples(self, wanted: list[SampleRow]) -> int:
        """Write how every wanted row is sampled; return the number of edits in all."""
        to, count, end = self.buffers.host, len(wanted), 0
        floats, top_k, target, edit_start = list[tuple[float, ...]](), list[int](), list[int](), [0]
        for row in wanted:
            floats.append((row.temperature, row.top_p, row.min_p, row.uniform))
            top_k.append(row.top_k)
            target.append(row.target)
            if row.edits:
                start, end = end, end + len(row.edits.ids)
                to.edits[start:end, 0] = row.edits.ids
                to.edits[start:end, 1:].view(np.float32)[...] = np.stack(row.edits[1:], 1)
            edit_start.append(end)
        if wanted:
            to.floats[:count], to.top_k[:count], to.target[:count] = floats, top_k, target
        to.edit_start[: count + 1] = edit_start
        return end

    def close(self) -> None:
        """Release the memory. May be called again."""
        self.pages = []
        if program := self.__dict__.pop("program", None):
            program.close()
        self.__dict__.pop("_graphs", None)
        self.__dict__.pop("device", None)
        self.__dict__.pop("buffers", None)
