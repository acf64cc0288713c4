"""Where values lie in one piece of memory, so that those never alive together share it."""

from __future__ import annotations

ALIGN = 64  # bytes


class Pool:
    """Offsets in one arena: the smallest free piece that fits, else the end."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (offset, bytes), by offset, never adjacent

    def take(self, nbytes: int) -> tuple[int, int]:
        need = -(-max(nbytes, 1) // ALIGN) * ALIGN
        fits = [piece for piece in self._free if piece[1] >= need]
        if fits:
            offset, length = min(fits, key=lambda piece: piece[1])
            self._free.remove((offset, length))
            if length > need:
                self._free.append((offset + need, length - need))
                self._free.sort()
            return offset, need
        offset = self.size
        if self._free and sum(self._free[-1]) == self.size:
            offset = self._free.pop()[0]
        self.size = offset + need
        return offset, need

    def give(self, offset: int, nbytes: int) -> None:
        merged: list[tuple[int, int]] = []
        for start, length in sorted([*self._free, (offset, nbytes)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._free = merged
