"""The scheduler decides which tokens the next step computes.

One rule instead of two phases: each request has `num_computed` chasing `num_tokens`. A step has a
budget of tokens: first one for each request that generates, then prompts in chunks, then new
requests. When blocks run out the newest running request gives its blocks back and is computed
again later. The first of `running` never does, unless it is alone, so something always ends.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from nanocupy.engine.batch import Scheduled, Speculator
from nanocupy.engine.block_pool import BlockPool, Key
from nanocupy.engine.request import Request, Status
from nanocupy.engine.sampler import Sampler


class Scheduler:
    """The queues of requests, and the blocks that each holds.

    Requests and blocks move only in `schedule` and the methods below.

    Args:
        max_seqs: requests that run together.
        max_rows, max_samples: tokens, and sampled rows, of one step.
        chunk: tokens of one prompt in a step; None: as many as fit.
        speculator: drafts tokens of requests that generate; None: no speculation.
    """

    def __init__(
        self,
        pool: BlockPool,
        sampler: Sampler,
        *,
        max_seqs: int,
        max_rows: int,
        max_samples: int,
        chunk: int | None = None,
        prefix_cache: bool = True,
        speculator: Speculator | None = None,
    ) -> None:
        assert max_seqs <= min(max_rows, max_samples), "each running request needs a row"
        self.pool = pool
        self.sampler = sampler
        self.max_seqs = max_seqs
        self.max_rows = max_rows
        self.max_samples = max_samples
        self.chunk = chunk or max_rows
        self.prefix_cache = prefix_cache
        self.speculator = speculator
        self.waiting: OrderedDict[Request, None] = OrderedDict()  # in order; out of it in O(1)
        self.running: list[Request] = []  # oldest admission first
        self.failed: list[tuple[Request, Exception]] = []  # could not be scheduled this step
        self._batch: list[Scheduled] = []
        self._rows = self._samples = 0  # what is left of this step's budget

    def add(self, requests: list[Request]) -> None:
        """Queue the requests of one group. With a cache the first computes the prompt for all."""
        leader, *others = requests
        if self.prefix_cache and leader.num_prompt > self.pool.block_size:
            leader.followers = others
            others = []
        for request in (leader, *others):
            request.status = Status.WAITING
            self.waiting[request] = None

    def schedule(self) -> list[Scheduled]:
        """Plan the next step and allocate its blocks. Nothing is computed until `advance`."""
        self._batch, self.failed = [], []
        self._rows, self._samples = self.max_rows, self.max_samples
        prefilling: list[Request] = []
        for request in list(self.running):
            if len(request.tokens) - request.num_computed > 1:
                prefilling.append(request)
            elif request.status is Status.RUNNING:  # else one before it took its blocks
                self._try(self._continue, request)
        for request in prefilling:
            if request.status is Status.RUNNING:
                self._try(self._continue, request)
        while self.waiting and self._try(self._admit, next(iter(self.waiting))):
            pass
        if self.speculator is not None and self._batch:
            self._add_drafts(self.speculator.draft(self._batch, self._rows, self._samples))
        return self._batch

    def _try(self, action: Callable[[Request], bool], request: Request) -> bool:
        """Run `action`; an exception ends this request alone."""
        try:
            return action(request)
        except Exception as error:
            self.failed.append((request, error))
            return False

    def _continue(self, request: Request) -> bool:
        """Plan the next tokens of a running request; False where it was preempted itself."""
        count = self._chunk_size(request)
        room = len(request.block_table) * self.pool.block_size
        if request.num_computed + count > room and not self._grow(request, count):
            return False
        self._append(request, count)
        return True

    def _grow(self, request: Request, count: int) -> bool:
        """Get blocks for `count` more tokens, preempting the newest; False if that is itself."""
        need = self.pool.blocks_for(request.num_computed + count) - len(request.block_table)
        while (blocks := self.pool.allocate(need)) is None:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        request.block_table += blocks
        return True

    def _admit(self, request: Request) -> bool:
        """Start the first waiting request, if there is a seat and room for all of it.

        Unless it is alone, a block for each request stays free, so that all can grow before one is
        preempted.
        """
        if len(self.running) == self.max_seqs or not self._rows:
            return False
        hits = self.pool.lookup(self._keys(request))
        need = self.pool.blocks_for(request.num_tokens) - len(hits)
        spare = len(self.running) + 1 if self.running else 0
        blocks = self.pool.allocate(need, hits, spare)
        if blocks is None:
            return False
        del self.waiting[request]
        self.running.append(request)
        request.status = Status.RUNNING
        request.block_table = blocks
        request.num_computed = len(hits) * self.pool.block_size
        if request.cached_tokens is None:
            request.cached_tokens = request.num_computed
        if request.group.scheduled is None:
            request.group.scheduled = time.monotonic()
        self._append(request, self._chunk_size(request))
        return True

    def _chunk_size(self, request: Request) -> int:
        """Return how many tokens of `request` the rest of the budget allows."""
        remaining = len(request.tokens) - request.num_computed
        count = min(remaining, self._rows, self.chunk)
        if request.prompt_logprobs_missing:
            return min(count, self._samples)
        return min(count, remaining - (self._samples == 0))

    def _append(self, request: Request, count: int) -> None:
        """Put the next `count` tokens of `request` into the batch."""
        if not count:
            return
        rows = self.sampler.rows(request, count)
        start = request.num_computed
        tokens = request.tokens[start : start + count]
        self._rows -= count
        self._samples -= len(rows)
        self._batch.append(Scheduled(request, start, tokens, request.block_table, rows))

    def _add_drafts(self, drafts: list[list[int]]) -> None:
        """Append each request's draft to its tokens where blocks are free; none is preempted."""
        for index, draft in enumerate(drafts):
            if not draft:
                continue
            item = self._batch[index]
            request = item.request
            need = self.pool.blocks_for(request.num_tokens + len(draft)) - len(request.block_table)
            if (blocks := self.pool.allocate(max(need, 0))) is None:
                continue
            request.block_table += blocks
            rows = self.sampler.rows(request, 1, draft)
            tokens = item.tokens + draft
            self._batch[index] = item._replace(tokens=tokens, sample=rows, draft=draft)

    def _preempt(self, request: Request) -> None:
        """Free the blocks of the newest running request; it is the next to be admitted."""
        assert all(item.request is not request for item in self._batch)
        self.running.remove(request)
        self._release(request)
        request.preemptions += 1
        request.status = Status.WAITING
        self._put_first(request)

    def _release(self, request: Request) -> None:
        self.pool.free(request.block_table)
        request.block_table = []
        request.num_computed = 0

    def advance(self, request: Request, count: int) -> None:
        """Count `count` more computed tokens of `request`; its full blocks can be found now."""
        old, request.num_computed = request.num_computed, request.num_computed + count
        if self.prefix_cache:
            size = self.pool.block_size
            for index in range(old // size, request.num_computed // size):
                self.pool.register(request.block_table, index, request.key(self.pool, index))
        if request.followers and request.num_computed >= request.num_prompt:
            self._release_followers(request)

    def accept_draft(self, request: Request, count: int) -> None:
        """Count the first `count` tokens of a draft as computed; free the blocks of the others."""
        self.advance(request, count)
        used = self.pool.blocks_for(request.num_computed)
        self.pool.free(request.block_table[used:])
        del request.block_table[used:]

    def finish(self, request: Request, *, trusted: bool = True) -> None:
        """Remove `request` in any state. Not `trusted`: its blocks leave the prefix cache."""
        if request.status is Status.RUNNING:
            self.running.remove(request)
        elif request.status is Status.WAITING:
            del self.waiting[request]
        if not trusted:
            for block in request.block_table:
                self.pool.forget(block)
        self._release(request)
        request.status = Status.FINISHED
        self._release_followers(request)
        if self.speculator is not None:
            self.speculator.forget(request)

    def _release_followers(self, leader: Request) -> None:
        """Queue the requests that waited for the prompt they share with `leader`."""
        for follower in reversed(leader.followers):
            if follower.status is Status.HELD:
                follower.status = Status.WAITING
                self._put_first(follower)
        leader.followers = []

    def _put_first(self, request: Request) -> None:
        self.waiting[request] = None
        self.waiting.move_to_end(request, last=False)

    def _keys(self, request: Request) -> Iterator[Key]:
        """Yield the keys of blocks a lookup may use; at least one token is always computed."""
        if self.prefix_cache and not request.prompt_logprobs_missing:
            for index in range((request.num_tokens - 1) // self.pool.block_size):
                yield request.key(self.pool, index)
