"""BlockPool: order of eviction, atomic allocation, keys that come and go."""

from __future__ import annotations

import itertools

import pytest

from nanocupy.engine.block_pool import BlockPool, Key

TOKENS = [list(range(i, i + 4)) for i in range(10)]


def chain(pool: BlockPool, *blocks: list[int], salt: str = "") -> list[Key]:
    keys: list[Key] = []
    for tokens in blocks:
        keys.append(pool.make_key(keys[-1] if keys else None, salt, tokens))
    return keys


def fill(pool: BlockPool, keys: list[Key]) -> list[int]:
    """Allocate and register blocks for `keys`, as a request that computes them would."""
    table = pool.allocate(len(keys))
    assert table is not None
    for index, key in enumerate(keys):
        pool.register(table, index, key)
    return table


def state(pool: BlockPool) -> object:
    return (
        [block.id for block in pool.available()],
        [(block.refs, block.prefix) for block in pool.blocks],
        {digest: [b.id for b in blocks] for digest, blocks in pool.indexed.items()},
    )


def test_dump_block_is_never_handed_out() -> None:
    pool = BlockPool(5, 4)
    table = pool.allocate(4)
    assert table is not None and sorted(table) == [1, 2, 3, 4]
    assert pool.allocate(1) is None
    assert pool.capacity == 16


def test_a_pool_needs_a_block() -> None:
    with pytest.raises(ValueError, match="at least 2, got 1"):
        BlockPool(1, 4)


def test_leaves_are_evicted_before_roots_and_old_before_new() -> None:
    pool = BlockPool(7, 4)
    old = fill(pool, chain(pool, *TOKENS[:3]))
    new = fill(pool, chain(pool, *TOKENS[3:6]))
    pool.free(old)
    pool.free(new)
    assert [b.id for b in pool.available()] == [*reversed(old), *reversed(new)]


def test_free_blocks_are_taken_before_cached_ones() -> None:
    pool = BlockPool(5, 4)
    cached = fill(pool, chain(pool, *TOKENS[:2]))
    plain = pool.allocate(2)
    assert plain is not None
    pool.free(cached)
    pool.free(plain)
    assert set(pool.allocate(2) or []) == set(plain)
    assert pool.lookup(chain(pool, *TOKENS[:2])) == cached


def test_hits_survive_until_their_block_is_taken() -> None:
    pool = BlockPool(4, 4)
    keys = chain(pool, *TOKENS[:3])
    table = fill(pool, keys)
    pool.free(table)
    assert pool.lookup(keys) == table
    pool.allocate(1)  # takes the leaf
    assert pool.lookup(keys) == table[:2]
    assert pool.blocks[table[2]].prefix is None


def test_a_hit_takes_the_block_off_the_list() -> None:
    pool = BlockPool(4, 4)
    keys = chain(pool, *TOKENS[:2])
    table = fill(pool, keys)
    pool.free(table)
    assert pool.allocate(1, pool.lookup(keys)) == [*table, 3]
    assert pool.num_available == 0 and [pool.blocks[i].refs for i in (1, 2, 3)] == [1, 1, 1]
    assert pool.allocate(0, pool.lookup(keys)) == table
    assert [pool.blocks[i].refs for i in table] == [2, 2]


def test_failed_allocation_changes_nothing() -> None:
    pool = BlockPool(6, 4)
    keys = chain(pool, *TOKENS[:3])
    table = fill(pool, keys)
    pool.free(table)
    held = pool.allocate(1, pool.lookup(keys[:1]))
    assert held is not None
    before = state(pool)
    hits = pool.lookup(keys)
    assert pool.allocate(2, hits) is None
    assert pool.allocate(1, hits, spare=1) is None
    assert pool.allocate(99) is None
    assert state(pool) == before
    assert pool.allocate(1, hits) is not None


def test_double_free_is_our_own_mistake() -> None:
    pool = BlockPool(3, 4)
    table = pool.allocate(1)
    assert table is not None
    pool.free(table)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free(table)


def test_duplicates_stand_in_for_each_other() -> None:
    """Two requests compute one prefix at the same time; either copy may go first."""
    for first in (0, 1):
        pool = BlockPool(6, 4)
        keys = chain(pool, *TOKENS[:2])
        tables = [fill(pool, keys), fill(pool, keys)]
        pool.free(tables[first])
        pool.allocate(3)  # one free block, then the copy that was given back
        assert pool.lookup(keys) == tables[1 - first]


def test_children_of_one_copy_follow_the_other() -> None:
    pool = BlockPool(6, 4)
    one = fill(pool, chain(pool, TOKENS[0]))
    keys = chain(pool, *TOKENS[:2])
    two = fill(pool, keys)
    pool.forget(two[0])
    assert pool.lookup(keys) == [one[0], two[1]]


def test_a_forgotten_root_hides_its_children_even_when_it_is_computed_again() -> None:
    pool = BlockPool(6, 4)
    keys = chain(pool, *TOKENS[:2])
    bad = fill(pool, keys)
    pool.forget(bad[0])
    assert pool.lookup(keys) == []
    good = fill(pool, keys[:1])
    assert pool.lookup(keys) == good, "the child of the forgotten block must not be found"


def test_salt_and_parent_are_part_of_the_key() -> None:
    pool = BlockPool(20, 4)
    assert chain(pool, TOKENS[0])[0].digest != chain(pool, TOKENS[0], salt="s")[0].digest
    under = chain(pool, TOKENS[1], TOKENS[0])[1]
    assert under.digest != chain(pool, TOKENS[0])[0].digest
    fill(pool, chain(pool, TOKENS[0], salt="a"))
    assert pool.lookup(chain(pool, TOKENS[0], salt="b")) == []
    assert pool.lookup(chain(pool, TOKENS[0])) == []


def test_digests_differ_between_pools() -> None:
    """Each pool has its own secret, so nobody outside can look for collisions."""
    digests = {chain(BlockPool(3, 4), TOKENS[0])[0].digest for _ in range(3)}
    assert len(digests) == 3


def test_length_fields_keep_parts_apart() -> None:
    pool = BlockPool(3, 4)
    made = {pool._digest(*parts) for parts in itertools.permutations([b"ab", b"c", b""], 3)}
    assert len(made) == 6


def test_collisions_are_not_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = BlockPool(20, 4)
    monkeypatch.setattr(pool, "_digest", lambda parent, salt, tokens: b"x")
    one, two = chain(pool, TOKENS[0], TOKENS[2]), chain(pool, TOKENS[1], TOKENS[2])
    table = fill(pool, one)
    assert pool.lookup(two) == []
    other = fill(pool, two)
    assert pool.lookup(one) == table and pool.lookup(two) == other
    pool.forget(table[0])
    assert pool.lookup(one) == [] and pool.lookup(two) == other


def test_an_orphan_is_not_taken_for_a_root_when_digests_collide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = BlockPool(20, 4)
    monkeypatch.setattr(pool, "_digest", lambda parent, salt, tokens: b"x")
    keys = chain(pool, *TOKENS[:2])
    table = pool.allocate(2)
    assert table is not None
    pool.register(table, 0, keys[0])
    pool.forget(table[0])
    pool.register(table, 1, keys[1])
    assert pool.lookup(chain(pool, TOKENS[1])) == []


def test_surrogates_in_a_salt_are_harmless() -> None:
    pool = BlockPool(3, 4)
    assert pool.make_key(None, "\ud800", TOKENS[0]) != pool.make_key(None, "", TOKENS[0])
