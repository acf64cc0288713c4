"""Invariants of queues and blocks, checked after every step with NANOCUPY_CHECK=1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nanocupy.engine.request import Request, RequestGroup, Status

if TYPE_CHECKING:
    from nanocupy.engine.batch import Scheduled
    from nanocupy.engine.block_pool import BlockPool
    from nanocupy.engine.scheduler import Scheduler


def check_invariants(scheduler: Scheduler, groups: Iterable[RequestGroup]) -> None:
    """AssertionError where I1, I2, I3 or I5 does not hold. O(blocks + tokens)."""
    requests = [request for group in groups for request in group.requests]
    _check_queues(scheduler, requests)
    _check_blocks(scheduler.pool, requests)
    _check_keys(scheduler.pool, requests)


def check_batch(scheduler: Scheduler, batch: list[Scheduled]) -> None:
    """AssertionError where a step breaks its limits, or would write a block that is shared."""
    assert sum(len(item.tokens) for item in batch) <= scheduler.max_rows
    assert sum(len(item.sample) for item in batch) <= scheduler.max_samples
    assert len(batch) <= scheduler.max_seqs
    size = scheduler.pool.block_size
    for item in batch:
        assert item.tokens and item.start == item.request.num_computed
        last = (item.start + len(item.tokens) - 1) // size
        for id in item.block_table[item.start // size : last + 1]:
            assert scheduler.pool.blocks[id].refs == 1, f"block {id} has two writers"


def _check_queues(scheduler: Scheduler, requests: list[Request]) -> None:
    """Every unfinished request is in exactly one place, the one its status says."""
    live = [request for request in requests if request.finish_reason is None]
    places = {
        Status.RUNNING: scheduler.running,
        Status.WAITING: scheduler.waiting,
        Status.HELD: [f for request in live for f in request.followers],
    }
    for status, place in places.items():
        expected = {id(request) for request in live if request.status is status}
        actual = [id(request) for request in place if request.status is not Status.FINISHED]
        assert len(actual) == len(set(actual)) and set(actual) == expected, f"{status} is wrong"
    assert len(scheduler.running) <= scheduler.max_seqs
    for request in requests:
        size = scheduler.pool.block_size
        assert request.num_computed <= len(request.block_table) * size
        assert len(request.block_table) <= scheduler.pool.blocks_for(request.num_tokens)
        assert request.status is Status.RUNNING or not request.block_table


def _check_blocks(pool: BlockPool, requests: list[Request]) -> None:
    """I1: free + cached + in use + the dump block = all. I2: references = tables that hold it."""
    held = Counter(id for request in requests for id in request.block_table)
    available = [block.id for block in pool.available()]
    assert len(available) == len(set(available)) == pool.num_available
    in_use = {block.id for block in pool.blocks if block.refs}
    assert in_use.isdisjoint(available) and 0 not in in_use and 0 not in available
    assert len(in_use) + len(available) + 1 == len(pool.blocks)
    assert all(block.refs == held[block.id] for block in pool.blocks)  # I5: nothing held, no use
    for request in requests:
        assert len(set(request.block_table)) == len(request.block_table)


def _check_keys(pool: BlockPool, requests: list[Request]) -> None:
    """I3: the index is exactly the keyed blocks, and only full, computed blocks are keyed."""
    indexed = [block.id for blocks in pool.indexed.values() for block in blocks]
    keyed = [block.id for block in pool.blocks if block.prefix is not None]
    assert sorted(indexed) == keyed
    for request in requests:
        for index, id in enumerate(request.block_table):
            prefix = pool.blocks[id].prefix
            if prefix is not None:
                assert (index + 1) * pool.block_size <= request.num_computed
                assert prefix.key == request.keys[index]
