"""The KV blocks: which are free, which hold a cached prefix, which are in use.

A block is in exactly one state (I1): *in use* (references > 0), *cached* (no references, but its
content may be found again by prefix) or *free*. Cached and free blocks wait in one list, the next
to be taken first: free ones, then cached ones, least recently used first. Block 0 is the dump
block for padding; it is in no state and no table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from struct import pack
from typing import NamedTuple


class Key(NamedTuple):
    """The prefix-cache key of one full block of a request; made once, when first needed."""

    digest: bytes  # of the parent's digest, the salt and the tokens
    salt: bytes
    tokens: bytes  # int32, little-endian


class Prefix:
    """One distinct cached content: a block of tokens after a parent prefix.

    Blocks with the same content share one Prefix object, so comparing parents by identity
    compares everything before them. That, not the digest, is what makes a hit true.
    """

    __slots__ = ("key", "parent")

    def __init__(self, key: Key, parent: Prefix | None) -> None:
        self.key = key
        self.parent = parent


class Block:
    """One physical KV block, also a node of the list of blocks that can be taken."""

    __slots__ = ("id", "next", "prefix", "prev", "refs")

    def __init__(self, id: int) -> None:
        self.id = id
        self.refs = 0
        self.prefix: Prefix | None = None  # only on full, computed blocks (I3)
        self.prev = self.next = self


class BlockPool:
    """Manages the blocks: `lookup` finds computed ones, `allocate` takes, `free` gives back."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        """`num_blocks` counts the dump block."""
        if num_blocks < 2:
            raise ValueError(f"[block_pool] num_blocks must be at least 2, got {num_blocks}")
        self.block_size = block_size
        self.blocks = [Block(id) for id in range(num_blocks)]
        self.num_available = 0  # free + cached
        self._secret = os.urandom(32)  # nobody outside can aim at a digest
        self.indexed: dict[bytes, list[Block]] = {}  # by digest
        self._list = Block(-1)  # sentinel: next = taken next, prev = taken last
        for block in reversed(self.blocks[1:]):
            self._push(block)

    @property
    def capacity(self) -> int:
        """Tokens that all blocks hold together."""
        return (len(self.blocks) - 1) * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        """Return how many blocks `num_tokens` tokens need."""
        return -(-num_tokens // self.block_size)

    def make_key(self, parent: Key | None, salt: str, tokens: Sequence[int]) -> Key:
        """Return the key of a full block of `tokens` after the block with key `parent`."""
        salted = salt.encode("utf-8", "surrogatepass")
        packed = pack(f"<{len(tokens)}i", *tokens)
        return Key(self._digest(parent.digest if parent else b"", salted, packed), salted, packed)

    def _digest(self, parent: bytes, salt: bytes, tokens: bytes) -> bytes:
        state = blake2b(digest_size=16, key=self._secret)
        state.update(pack("<II", len(parent), len(salt)))
        state.update(parent + salt + tokens)
        return state.digest()

    def lookup(self, keys: Iterable[Key]) -> list[int]:
        """Return the blocks that hold the longest computed prefix of `keys`. Changes nothing."""
        hits: list[int] = []
        parent: Prefix | None = None
        for key in keys:
            block = self._find(key, parent)
            if block is None:
                break
            hits.append(block.id)
            parent = block.prefix
        return hits

    def _find(self, key: Key, parent: Prefix | None) -> Block | None:
        for block in self.indexed.get(key.digest, ()):
            prefix = block.prefix
            if prefix is not None and prefix.parent is parent and prefix.key == key:
                return block
        return None

    def allocate(self, count: int, hits: Sequence[int] = (), spare: int = 0) -> list[int] | None:
        """Take the blocks `hits` (from `lookup`) and `count` more; return the ids in that order.

        None, with nothing changed (I4), where fewer than `spare` blocks would be left.
        """
        idle = sum(self.blocks[id].refs == 0 for id in hits)
        if count + idle + spare > self.num_available:
            return None
        for id in hits:
            block = self.blocks[id]
            if block.refs == 0:
                self._remove(block)
            block.refs += 1
        return [*hits, *(self._take() for _ in range(count))]

    def _take(self) -> int:
        block = self._list.next
        self._remove(block)
        self.forget(block.id)
        block.refs = 1
        return block.id

    def free(self, table: Sequence[int]) -> None:
        """Give back one reference to each block, the last first: leaves are taken before roots."""
        for id in reversed(table):
            block = self.blocks[id]
            assert block.refs > 0, f"block {id} freed twice"
            block.refs -= 1
            if block.refs == 0:
                self._push(block)

    def register(self, table: Sequence[int], index: int, key: Key) -> None:
        """Let `lookup` find block `table[index]`, which is full and computed, by `key`."""
        block = self.blocks[table[index]]
        if block.prefix is not None:
            return
        parent = self.blocks[table[index - 1]].prefix if index else None
        if index and parent is None:
            return  # the chain before it was forgotten: nobody could reach this block
        twin = self._find(key, parent)
        block.prefix = twin.prefix if twin else Prefix(key, parent)
        self.indexed.setdefault(key.digest, []).append(block)

    def forget(self, id: int) -> None:
        """Remove a block from the prefix cache: it gets new content, or its content may be wrong.

        Blocks behind it cannot be found any more: the same tokens get another Prefix.
        """
        block = self.blocks[id]
        if block.prefix is None:
            return
        digest = block.prefix.key.digest
        block.prefix = None
        self.indexed[digest].remove(block)
        if not self.indexed[digest]:
            del self.indexed[digest]

    def available(self) -> list[Block]:
        """Return free and cached blocks, the next to be taken first (for checks; O(blocks))."""
        found, block = [], self._list.next
        while block is not self._list:
            found.append(block)
            block = block.next
        return found

    def _push(self, block: Block) -> None:
        after = self._list.prev if block.prefix else self._list
        block.prev, block.next = after, after.next
        after.next.prev = after.next = block
        self.num_available += 1

    def _remove(self, block: Block) -> None:
        block.prev.next, block.next.prev = block.next, block.prev
        block.prev = block.next = block
        self.num_available -= 1
