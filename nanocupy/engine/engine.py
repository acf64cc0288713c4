"""Engine: add requests, step until there is nothing left. One thread at a time.

A step is: schedule, run, commit. What can go wrong in it belongs to one request and ends only that
one, with finish_reason "error":

- The runner raises: each scheduled request is run again alone (a step may be repeated: it writes
  the same K/V to the same slots, and random numbers are a function of seed and position). Those
  that raise again end; the others have lost nothing. A fault that does not repeat ends nobody.
  (A RankError ends the engine: several ranks cannot repeat what one of them left in the middle.)
- A row of logits is not finite: the request ends.
- Scheduling or decoding its text raises: the request ends.

The blocks of a request that ends like this leave the prefix cache: their content may be wrong.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Collection, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from nanocupy.distributed import RankError
from nanocupy.engine.batch import Runner, Sampled, Scheduled
from nanocupy.engine.block_pool import BlockPool
from nanocupy.engine.logprobs import shown
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, FinishReason, TokenLogprobs, describe
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.precision import not_finite
from nanocupy.engine.request import PreparedRequest, Request, RequestGroup
from nanocupy.engine.sampler import Sampler
from nanocupy.engine.scheduler import Scheduler
from nanocupy.text.detokenizer import text_stream

if TYPE_CHECKING:
    from nanocupy.engine.speculation import PromptLookup
    from nanocupy.text import Tokenizer

STALLED = 4  # after so many empty steps the first request ends, rather than all of them hang


class PromptTooLongError(ValueError):
    """A prompt that can never fit: `num_tokens` tokens where at most `limit` do."""

    def __init__(self, message: str, num_tokens: int, limit: int) -> None:
        super().__init__(message)
        self.num_tokens = num_tokens
        self.limit = limit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.num_tokens, self.limit), self.__dict__


class Engine:
    """The loop over a runner. `add` and `abort` between steps; `step` returns what is new."""

    def __init__(
        self,
        runner: Runner,
        options: EngineOptions,
        tokenizer: Tokenizer | None = None,
        eos_ids: Collection[int] = (),
    ) -> None:
        self.runner = runner
        self.tokenizer = tokenizer
        self.pool = BlockPool(runner.num_blocks, runner.block_size)
        self.sampler = Sampler({id for id in eos_ids if 0 <= id < runner.vocab_size})
        self.speculator = _speculator(options.drafted(runner.row_invariant))
        max_rows = min(options.max_num_batched_tokens, runner.max_rows)
        self.scheduler = Scheduler(
            self.pool,
            self.sampler,
            max_seqs=min(options.max_num_seqs, runner.max_seqs, max_rows, runner.max_samples),
            max_rows=max_rows,
            max_samples=runner.max_samples,
            chunk=options.chunk,
            prefix_cache=options.prefix_cache,
            speculator=self.speculator,
        )
        wanted = options.max_model_len or runner.max_model_len
        self.max_len = min(wanted, runner.max_model_len, self.pool.capacity)
        self.groups: dict[str, RequestGroup] = {}  # not finished yet
        self._ids = count()
        self._random = random.Random(options.seed)
        self._chunks: list[Chunk] = []
        self._stalled = 0
        self._invariants: Any = None
        if os.environ.get("NANOCUPY_CHECK") == "1":
            from nanocupy.engine import invariants

            self._invariants = invariants

    # --- requests come and go -----------------------------------------------------------------

    def prepare(
        self, prompt_ids: Sequence[int], params: SamplingParams, prompt: str | None = None
    ) -> PreparedRequest:
        """Check a request, on any thread. ValueError where it can never be served."""
        size = self.runner.vocab_size
        ids = (*prompt_ids, *params.stop_token_ids, *params.logit_bias)
        if not prompt_ids:
            raise ValueError("[engine] the prompt has no tokens: give at least one")
        if wrong := [token for token in ids if not 0 <= token < size]:
            raise ValueError(f"[engine] token {wrong[0]} is not in [0, {size}), the vocabulary")
        used = len(prompt_ids)
        if used > self.most_prompt(params):
            raise self.too_long(used, params)
        room = self.max_len - used
        limit = room if params.max_tokens is None else min(params.max_tokens, room)
        return PreparedRequest(prompt, list(prompt_ids), params, limit)

    def most_prompt(self, params: SamplingParams) -> int:
        """Return how many tokens a prompt may have, so that there is room for an answer."""
        return self.max_len - (0 if params.max_tokens == 0 else 1)

    def too_long(
        self, used: int, params: SamplingParams, least: bool = False
    ) -> PromptTooLongError:
        """Make the error for a prompt of `used` tokens, or of at `least` so many."""
        most = self.most_prompt(params)
        return PromptTooLongError(
            f"[engine] the prompt has {'at least ' if least else ''}{used} tokens, at most {most} "
            f"fit: max_model_len is {self.runner.max_model_len}, the {len(self.pool.blocks) - 1} "
            f"KV blocks hold {self.pool.capacity} tokens, and {self.max_len - most} is kept for "
            f"the answer",
            used,
            most,
        )

    def add(
        self, prompt_ids: Sequence[int], params: SamplingParams, *, request_id: str | None = None
    ) -> str:
        """Prepare and queue a request; return its id. Where this raises, nothing has changed."""
        return self.queue(self.prepare(prompt_ids, params), request_id=request_id)

    def queue(
        self,
        prepared: PreparedRequest,
        *,
        request_id: str | None = None,
        arrival: float | None = None,
    ) -> str:
        """Queue a request and return its id. ValueError where the id is in use.

        Args:
            arrival: when it was asked for, by `time.monotonic`, where that was earlier.
        """
        prompt, prompt_ids, params, limit = prepared
        id = f"req-{next(self._ids)}" if request_id is None else request_id
        if id in self.groups:
            raise ValueError(f"[engine] a request with id {id!r} is already running")
        seed = self._random.getrandbits(64) if params.seed is None else params.seed
        group = RequestGroup(id, prompt, prompt_ids, params, seed)
        group.arrival = group.arrival if arrival is None else arrival
        group.requests = [
            Request(
                group,
                index,
                limit,
                text_stream(self.tokenizer, prompt_ids, params.stop),
                self.sampler.stop_ids(params),
            )
            for index in range(params.n)
        ]
        group.unfinished = params.n
        self.groups[id] = group
        self.scheduler.add(group.requests)
        return id

    def abort(self, request_id: str) -> list[Chunk]:
        """End a request now; return its last chunks. An unknown or finished id is ignored."""
        if request_id in self.groups:
            for request in self.groups[request_id].requests:
                if request.finish_reason is None:
                    self._end(request, "abort")
        chunks, self._chunks = self._chunks, []
        return chunks

    @property
    def has_work(self) -> bool:
        """True while there is a request that has not ended."""
        return bool(self.groups)

    def close(self) -> None:
        """Abort everything and release the runner's memory."""
        for id in list(self.groups):
            self.abort(id)
        self.runner.close()

    # --- the loop -----------------------------------------------------------------------------

    def step(self) -> list[Chunk]:
        """Compute the next tokens of everything that is running; return what that added."""
        batch = self.scheduler.schedule()
        if self._invariants:
            self._invariants.check_batch(self.scheduler, batch)
        for request, error in self.scheduler.failed:
            self._fail(request, error)
        if batch:
            self._stalled = 0
            self._run(batch)
            if self.speculator is not None:
                self.speculator.end_step(batch)
        elif not self.scheduler.failed:
            self._stall()
        if self._invariants:
            self._invariants.check_invariants(self.scheduler, self.groups.values())
        chunks, self._chunks = self._chunks, []
        return chunks

    def _stall(self) -> None:
        """Admission promised that everything fits: a step with nothing to run must be rare."""
        self._stalled += 1
        first = next(iter(self.scheduler.running or self.scheduler.waiting), None)
        if self._stalled >= STALLED and first is not None:
            self._fail(first, RuntimeError("it cannot be scheduled"))

    def _run(self, batch: list[Scheduled]) -> None:
        """Run a step and commit its results. Nothing is committed where the runner has ended."""
        for item, result in zip(batch, self._results(batch), strict=True):
            try:
                if isinstance(result, Exception):
                    raise result
                self._commit(item, result)
            except Exception as error:
                self._fail(item.request, error)

    def _results(self, batch: list[Scheduled]) -> list[list[Sampled] | Exception]:
        """Run a step; return each request's rows. Where it raises, run each request alone, and
        return an exception for those that raise again."""
        try:
            sampled = self.runner.step(batch)
            results: list[list[Sampled] | Exception] = []
            start = 0
            for item in batch:
                stop = start + len(item.sample)
                results.append(sampled[start:stop])
                start = stop
            if len(sampled) != start:
                raise RuntimeError(f"the runner returned {len(sampled)} rows, expected {start}")
            return results
        except RankError:  # there is nothing to run it on any more
            raise
        except Exception as error:
            if len(batch) == 1:
                return [error]
        return [result for item in batch for result in self._results([item])]

    def _commit(self, item: Scheduled, sampled: list[Sampled]) -> None:
        """Count the chunk as computed, and append what was sampled."""
        request = item.request
        if item.draft and self.speculator is not None:
            sampled = self.speculator.verify(item, sampled)
        self.scheduler.advance(request, len(item.tokens) - len(item.draft))
        for row, answer in zip(item.sample, sampled, strict=False):
            if answer.token < 0:
                raise FloatingPointError(not_finite(getattr(self.runner, "kv_dtype", "")))
            if row.target >= 0:
                answer = answer._replace(token=row.target)
                request.add_prompt_logprobs(shown(answer, self.tokenizer))
            elif request.finish_reason is None:
                self._append(request, answer)
        if item.draft and request.finish_reason is None:
            self.scheduler.accept_draft(request, len(sampled) - 1)
        if not request.limit and request.num_computed == len(request.tokens):
            self._end(request, "length")

    def _append(self, request: Request, sampled: Sampled) -> None:
        """Add a sampled token, and end the request if it is the last."""
        token, params = sampled.token, request.params
        request.append(token)
        if request.group.first_token is None:
            request.group.first_token = time.monotonic()
        logprobs = [] if params.logprobs is None else [shown(sampled, self.tokenizer)]
        request.logprobs += logprobs
        if token in request.stop_ids:
            own = params.ignore_eos or token not in self.sampler.eos_ids
            text, stopped = request.text.end(token)
            reason = stopped or (token if own else None)
            self._end(request, "stop", reason, text, [token], logprobs)
            return
        generated = len(request.tokens) - request.num_prompt
        text, stopped = request.text.feed(token, may_stop=generated >= params.min_tokens)
        if stopped is not None:
            self._end(request, "stop", stopped, text, [token], logprobs)
        elif generated == request.limit:
            self._end(request, "length", None, text, [token], logprobs)
        else:
            self._chunks.append(request.group.chunk(request, text, [token], logprobs))

    def _end(
        self,
        request: Request,
        reason: FinishReason,
        stop: int | str | None = None,
        text: str = "",
        tokens: Sequence[int] = (),
        logprobs: Sequence[TokenLogprobs] = (),
    ) -> None:
        """Finish `request`: free its blocks, show text that was held back, emit its last chunk."""
        group = request.group
        self.scheduler.finish(request, trusted=reason != "error")
        if not isinstance(stop, str):  # otherwise what is held back belongs to the stop string
            try:
                tail, stopped = request.text.finish()
            except Exception as error:
                group.error = group.error or describe(error)
                reason, tail, stopped = "error", "", None
            text += tail
            if stopped is not None and reason == "length":
                reason, stop = "stop", stopped
        request.finish_reason, request.stop_reason = reason, stop
        group.unfinished -= 1
        self._chunks.append(group.chunk(request, text, list(tokens), list(logprobs)))
        if not group.unfinished:
            del self.groups[group.id]

    def _fail(self, request: Request, error: Exception) -> None:
        request.group.error = request.group.error or describe(error)
        if request.finish_reason is None:
            self._end(request, "error")


def _speculator(most: int) -> PromptLookup | None:
    """Make what drafts `most` tokens per request and step; None for 0."""
    if not most:
        return None
    from nanocupy.engine.speculation import PromptLookup

    return PromptLookup(most)
