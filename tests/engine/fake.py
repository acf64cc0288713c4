"""A runner without a model whose answers give away any mistake in the engine's bookkeeping.

Its "KV cache" stores (token, position) in every physical slot, and a row's logits are a hash of all
it reads back through the block table. A block reused while it is held, a lost write, a stale prefix
or a wrong position shows as a wrong token.

With `echo` above 0 each token has a favourite successor, so that answers repeat themselves, now and
then: at 4 often, at 9 always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from nanocupy.engine.batch import Sampled, SampleRow, Scheduled
from nanocupy.engine.engine import Engine
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, RequestOutput
from nanocupy.engine.params import SamplingParams

VOCAB = 64
EOS = 63
FAVOURITE = np.random.default_rng(7).integers(0, EOS, VOCAB)


class FakeRunner:
    """The Runner protocol over a NumPy array of slots."""

    def __init__(
        self,
        *,
        num_blocks: int = 101,
        block_size: int = 16,
        max_model_len: int = 512,
        max_rows: int = 512,
        max_samples: int = 512,
        max_seqs: int = 32,
        echo: float = 0,
    ) -> None:
        self.echo = echo
        self.max_rows, self.max_samples, self.max_seqs = max_rows, max_samples, max_seqs
        self.num_blocks, self.block_size = num_blocks, block_size
        self.max_model_len, self.vocab_size = max_model_len, VOCAB
        self.slots = np.full((num_blocks * block_size, 2), -1, dtype=np.int32)
        self.row_invariant = True
        self.steps = 0  # calls of step
        self.rows = 0  # tokens computed
        self.peak = 0  # most requests in one step
        self.closed = False
        self.before_step: Callable[[Sequence[Scheduled]], None] = lambda batch: None
        self.poison: Callable[[Scheduled, SampleRow], bool] = lambda item, row: False

    def step(self, batch: Sequence[Scheduled]) -> list[Sampled]:
        assert not self.closed
        self.steps += 1
        self.peak = max(self.peak, len(batch))
        self.rows += sum(len(item.tokens) for item in batch)
        assert 1 <= sum(len(item.tokens) for item in batch) <= self.max_rows
        assert sum(len(item.sample) for item in batch) <= self.max_samples
        assert len(batch) <= self.max_seqs
        self.before_step(batch)
        for item in batch:
            self._write(item)
        return [self._sample(item, row) for item in batch for row in item.sample]

    def close(self) -> None:
        self.closed = True

    def _slots(self, item: Scheduled, positions: np.ndarray) -> np.ndarray:
        table = np.asarray(item.block_table)
        assert 0 not in table
        return table[positions // self.block_size] * self.block_size + positions % self.block_size

    def _write(self, item: Scheduled) -> None:
        positions = np.arange(item.start, item.start + len(item.tokens))
        self.slots[self._slots(item, positions)] = np.stack([item.tokens, positions], axis=1)

    def logits(self, item: Scheduled, row: SampleRow) -> np.ndarray:
        assert 0 <= row.row < len(item.tokens)
        positions = np.arange(item.start + row.row + 1)
        read = self.slots[self._slots(item, positions)]
        digest = hashlib.shake_128(read.tobytes()).digest(2 * VOCAB)
        logits = np.frombuffer(digest, dtype=np.uint16).astype(np.float64) / 8192
        logits[FAVOURITE[read[-1, 0]]] += self.echo
        return logits

    def _sample(self, item: Scheduled, row: SampleRow) -> Sampled:
        if self.poison(item, row):
            return Sampled(-1, float("nan"), [])
        logits = self.logits(item, row)
        logprobs = logits - np.log(np.exp(logits).sum())
        token = row.target if row.target >= 0 else draw(logits, row)
        if row.top < 0:
            return Sampled(token, float("nan"), [])
        best = np.argsort(-logprobs, kind="stable")[: row.top]
        return Sampled(token, float(logprobs[token]), [(int(t), float(logprobs[t])) for t in best])


def draw(logits: np.ndarray, row: SampleRow) -> int:
    """The token of one row: edits, temperature, top-k, top-p, min-p, inverse CDF in token order."""
    logits = logits.copy()
    if row.edits is not None:
        assert len(set(row.edits.ids)) == len(row.edits.ids)
        for token, mul, add in zip(*row.edits, strict=True):
            value = logits[token]
            logits[token] = (value / mul if value > 0 else value * mul) + add
    if row.temperature == 0:
        return int(np.argmax(logits))
    p = np.exp((logits - logits.max()) / row.temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    keep = np.zeros(len(p), dtype=bool)
    keep[order[: row.top_k or len(p)]] = True
    keep[order[np.cumsum(p[order]) - p[order] >= row.top_p]] = False
    keep &= p >= row.min_p * p.max()
    cdf = np.cumsum(np.where(keep, p, 0))
    assert 0 <= row.uniform < 1
    return int(np.searchsorted(cdf, row.uniform * cdf[-1], side="right"))


def engine(runner: FakeRunner | None = None, **options: object) -> Engine:
    """An engine over a FakeRunner; EOS ends a request, there is no tokenizer."""
    return Engine(runner or FakeRunner(), EngineOptions(**options), eos_ids=[EOS])


def runner_of(engine: Engine) -> FakeRunner:
    assert isinstance(engine.runner, FakeRunner)
    return engine.runner


def drain(engine: Engine, max_steps: int = 20_000) -> list[Chunk]:
    """Step until nothing is left; every chunk in order."""
    chunks: list[Chunk] = []
    for _ in range(max_steps):
        if not engine.has_work:
            return chunks
        chunks += engine.step()
    raise AssertionError(f"not finished after {max_steps} steps")


def outputs(chunks: list[Chunk]) -> dict[str, RequestOutput]:
    """The finished requests among `chunks`, by id."""
    return {chunk.request_id: chunk.output for chunk in chunks if chunk.output is not None}


def run(
    engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams
) -> list[RequestOutput]:
    """All prompts at once, to the end; outputs in the order of the prompts."""
    ids = [engine.add(prompt, params) for prompt in prompts]
    found = outputs(drain(engine))
    return [found[id] for id in ids]


def token_ids(output: RequestOutput) -> list[list[int]]:
    """What was generated, one list per answer."""
    return [answer.token_ids for answer in output.outputs]


def expected(
    prompt: Sequence[int], params: SamplingParams, runner: FakeRunner | None = None
) -> list[list[int]]:
    """What a fresh engine answers when it has nothing else to do, no cache and no guesses."""
    plain = engine(runner, prefix_cache=False, speculate=0)
    return token_ids(run(plain, [prompt], params)[0])


def prompts(count: int, *, low: int = 1, high: int = 80, seed: int = 0) -> list[list[int]]:
    """Random prompts, some of which share a prefix."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, VOCAB - 1, high).tolist()
    made = []
    for _ in range(count):
        own = rng.integers(0, VOCAB - 1, int(rng.integers(low, high + 1))).tolist()
        cut = int(rng.integers(0, len(own) + 1)) if rng.random() < 0.6 else 0
        made.append(shared[:cut] + own[cut:])
    return made
