"""Which tokens the next step computes.

One rule instead of two phases: each request has `num_computed` chasing `num_tokens`. A step has a
budget of tokens: first one for each request that generates, then prompts in chunks, then new
requests. When blocks run out the newest running request gives its blocks back and is computed
again later. The first of `running` never does, unless it is alone, so something always ends.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace

from nanocupy.engine.batch import Scheduled
from nanocupy.engine.block_pool import BlockPool, Key
from nanocupy.engine.request import Request, Status
from nanocupy.engine.sampler import Sampler
from nanocupy.engine.speculation import Speculator


class Scheduler:
    """The queues, and who holds which blocks. Only `schedule` and the methods below move them."""

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
        self.speculator = speculator or Speculator(0)
        self.waiting: OrderedDict[Request, None] = OrderedDict()  # in order; out of it in O(1)
        self.running: list[Request] = []  # oldest admission first
        self.failed: list[tuple[Request, Exception]] = []  # could not be scheduled this step
        self._plan: list[Scheduled] = []
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
        """The next step. Blocks for it are allocated; nothing else is done until `advance`."""
        self._plan, self.failed = [], []
        self._rows, self._samples = self.max_rows, self.max_samples
        for request in sorted(self.running, key=lambda r: r.remaining > 1):
            if request.status is Status.RUNNING:  # still: nobody before it took its blocks
                self._try(self._continue, request)
        while self.waiting and self._try(self._admit, next(iter(self.waiting))):
            pass
        drafts = self.speculator.drafts(self._plan, self._rows, self._samples)
        self._plan = [self._lengthen(*pair) for pair in zip(self._plan, drafts, strict=True)]
        return self._plan

    def _try(self, action: Callable[[Request], bool], request: Request) -> bool:
        """A failure while scheduling one request is that request's alone."""
        try:
            return action(request)
        except Exception as error:
            self.failed.append((request, error))
            return False

    def _continue(self, request: Request) -> bool:
        """Plan the next tokens of a running request; False where its own blocks had to go."""
        count = self._share(request)
        wanted = self.pool.blocks_for(request.num_computed + count)
        while (need := wanted - len(request.block_table)) > 0:
            blocks = self.pool.allocate(need)
            if blocks is not None:
                request.block_table += blocks
                break
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        self._schedule(request, count)
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
        self._schedule(request, self._share(request))
        return True

    def _share(self, request: Request) -> int:
        """How many tokens of `request` the rest of the budget allows."""
        count = min(request.remaining, self._rows, self.chunk)
        if request.prompt_logprobs_missing:
            return min(count, self._samples)
        return min(count, request.remaining - (self._samples == 0))

    def _schedule(self, request: Request, count: int) -> None:
        if not count:
            return
        rows = self.sampler.rows(request, count)
        start = request.num_computed
        tokens = request.tokens[start : start + count]
        self._rows -= count
        self._samples -= len(rows)
        self._plan.append(Scheduled(request, start, tokens, request.block_table, rows))

    def _lengthen(self, item: Scheduled, draft: list[int]) -> Scheduled:
        """`item` with `draft` behind it, where blocks are left: nobody gives one up for a guess."""
        request = item.request
        need = self.pool.blocks_for(request.num_tokens + len(draft)) - len(request.block_table)
        if not draft or (blocks := self.pool.allocate(max(need, 0))) is None:
            return item
        request.block_table += blocks
        rows = self.sampler.rows(request, 1, draft)
        return replace(item, tokens=item.tokens + draft, sample=rows, draft=draft)

    def _preempt(self, request: Request) -> None:
        """Give up the blocks of the newest running request; it is the next to be admitted."""
        assert all(item.request is not request for item in self._plan)
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
        """`count` more tokens of `request` are computed: its full blocks can be found now."""
        old, request.num_computed = request.num_computed, request.num_computed + count
        if self.prefix_cache:
            size = self.pool.block_size
            for index in range(old // size, request.num_computed // size):
                self.pool.register(request.block_table, index, request.key(self.pool, index))
        if request.num_computed >= request.num_prompt:
            self._let_go(request)

    def keep(self, request: Request, count: int) -> None:
        """`count` tokens of the draft of `request` stand: count them, give back other blocks."""
        self.advance(request, count)
        used = self.pool.blocks_for(request.num_computed)
        self.pool.free(request.block_table[used:])
        del request.block_table[used:]

    def finish(self, request: Request, *, trusted: bool = True) -> None:
        """Take `request` out, whatever its state; not `trusted`: nobody may reuse its blocks."""
        if request.status is Status.RUNNING:
            self.running.remove(request)
        elif request.status is Status.WAITING:
            del self.waiting[request]
        if not trusted:
            for block in request.block_table:
                self.pool.forget(block)
        self._release(request)
        request.status = Status.FINISHED
        self._let_go(request)

    def _let_go(self, leader: Request) -> None:
        """The prompt is computed, or never will be: those who share it are next in the queue."""
        for follower in reversed(leader.followers):
            if follower.status is Status.HELD:
                follower.status = Status.WAITING
                self._put_first(follower)
        leader.followers = []

    def _put_first(self, request: Request) -> None:
        self.waiting[request] = None
        self.waiting.move_to_end(request, last=False)

    def _keys(self, request: Request) -> Iterator[Key]:
        """Keys of the blocks a lookup may use; at least one token is always computed."""
        if self.prefix_cache and not request.prompt_logprobs_missing:
            for index in range((request.num_tokens - 1) // self.pool.block_size):
                yield request.key(self.pool, index)
