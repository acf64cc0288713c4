"""Attention over pages, and the cache that hands them to a model in MLX's contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nanocupy.core.recorder.arrays import array, record
from nanocupy.core.recorder.casting import rounded
from nanocupy.core.recorder.graph import Node, Op
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.kernels import rope as rope_kernel
from nanocupy.kernels.attention import KVLayout, RowSplit, StepRows


@dataclass(frozen=True, eq=False)
class PagedMeta:
    """Where the rows of a step stand. All arrays are static buffers with symbolic rows.

    Attributes:
        positions: int32 [rows], position of each row's token in its sequence.
        sequences: int32 [rows], the row's line in `block_tables`.
        slots: int32 [rows], where the row's keys and values go; -1: nowhere (padding).
        block_tables: int32 [sequences, blocks], physical blocks in order.
        split: decode rows and prefill tiles, on devices with a kernel for each.
    """

    positions: array
    sequences: array
    slots: array
    block_tables: Any
    split: RowSplit | None = None


@dataclass(frozen=True, eq=False)
class PagedCache:
    """Keys and values of one layer in blocks. `offset` and `update_and_fetch` are MLX's cache
    contract.

    In the engine every token of a step is a row of its own (B = rows, L = 1).

    Args:
        window: to how many of the last tokens rows attend at most, whatever the mask says; 0: all.
    """

    layout: KVLayout
    keys: Any
    values: Any
    meta: PagedMeta
    window: int = 0

    @property
    def offset(self) -> array:
        return self.meta.positions

    def update_and_fetch(self, keys: array, values: array) -> tuple[PagedView, PagedView]:
        """The pages with these keys and values in them, for attention to recognise."""
        return PagedView(self, keys), PagedView(self, values)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> SlidingWindow | None:
        """No mask, for a row attends to its own sequence up to its own position; or a window that
        is shorter than the context."""
        context = self.meta.block_tables.shape[1] * self.layout.block_size
        return SlidingWindow(window_size) if window_size and window_size < context else None


class SlidingWindow(NamedTuple):
    """The mask of rows that attend to the last `size` tokens, their own among them."""

    size: int


@dataclass(frozen=True, eq=False)
class PagedView:
    """Keys or values of one layer: those of this step's rows, and the pages they join."""

    cache: PagedCache
    fresh: array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fresh.shape

    @property
    def dtype(self) -> Any:
        return self.fresh.dtype

    def astype(self, dtype: Any) -> PagedView:
        """Itself, where it has the dtype already."""
        if dtype != self.dtype:
            raise NotImplementedError(f"[paged_attention] keys or values as {dtype}")
        return self


def _lower_attention(to: Lowering, node: Node) -> None:
    """Turn q and k and fill the pages, then attend."""
    q, _, _, positions, sequences, _ = to.inputs(node)
    cache: PagedCache = node.attrs["cache"]
    meta, turned = cache.meta, _turn_and_write(to, node)
    read, stride = (q.view, q.stride) if turned is None else (turned, None)
    where = (positions.view, sequences.view, meta.block_tables, meta.split)
    prepared = to.launches.attention.prepare(
        *(to.device, cache.layout, to.of(node).view, read, cache.keys, cache.values),
        *(StepRows(to.rows(node), *where), to.shared),
        heads=node.inputs[0].shape[1],
        q_stride=stride,
        **{name: node.attrs[name] for name in ("scale", "window", "softcap", "codes")},
    )
    for rows, launches in prepared:
        to.add(rows, launches)


def _turn_and_write(to: Lowering, node: Node) -> Any:
    """Fill the pages, and turn q and k if they are still to be turned. Returns where q is then;
    None: where it was."""
    q, k, v, positions, _, slots = to.inputs(node)
    cache: PagedCache = node.attrs["cache"]
    layout, heads, turned = cache.layout, node.inputs[0].shape[1], None
    table, traditional = _rope_table(to, node)
    if table is not None or to.launches.rope_write.ALWAYS_WRITES_Q:
        shape = (int(to.rows(node)), heads, layout.head_dim)
        turned = to.shared(("q", shape), lambda: to.device.empty(shape, layout.activations))
    pages, strides = (cache.keys, cache.values), (q.stride, k.stride, v.stride)
    to.add(
        to.rows(node),
        lambda rows: to.launches.rope_write.launch(
            to.device, layout, turned, *pages, q.view, k.view, v.view, positions.view,
            slots.view, table, rows, heads=heads, traditional=traditional,
            q_stride=strides[0], k_stride=strides[1], v_stride=strides[2],
        ),
    )  # fmt: skip
    return turned


def _rope_table(to: Lowering, node: Node) -> tuple[Any, bool]:
    """The table that q and k turn by, None where they do not turn here; traditional or not."""
    if node.attrs["rope"] is None:
        return None, False
    frequency, magnitude, traditional = node.attrs["rope"]
    limit = node.inputs[3].attrs["limit"]
    return rope_table(to, frequency, magnitude, limit), traditional


def rope_table(to: Lowering, frequency: tuple[float, ...], magnitude: float, limit: int) -> Any:
    """The device's table of angles, one for all layers that turn alike."""
    return to.shared(
        ("rope", frequency, magnitude, limit),
        lambda: to.device.asarray(rope_kernel.table(np.array(frequency), limit, magnitude)),
    )


# `rope`: (frequency, magnitude, traditional) where q and k are still to be turned; `dtype`,
# `codes`: how the result is rounded (see `rules`)
PAGED_ATTENTION = Op(
    "paged_attention",
    lambda q, *_, cache, dtype, codes, **how: rounded(
        (q[0], np.dtype(cache.layout.activations)), dtype, codes
    ),
    None,
    _lower_attention,
    effect=True,
)


def paged_attention(
    q: array,
    k: array,
    v: array,
    cache: PagedCache,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> array:
    """Write k, v [rows, kv_heads, 1, d] to the pages; attend with q [rows, heads, 1, d].

    Args:
        window, softcap: see `kernels.attention`; 0 for none.
    """
    meta, layout = cache.meta, cache.layout
    rows, heads, length, head_dim = q.shape
    fresh = (rows, layout.kv_heads, 1, layout.head_dim)
    fits = k.shape == v.shape == fresh and (length, head_dim) == fresh[2:]
    if not fits or heads % layout.kv_heads:
        raise ValueError(
            f"[paged_attention] q {q.shape}, k {k.shape} and v {v.shape}: the pages take one token "
            f"a row, {layout.kv_heads} heads of {layout.head_dim}"
        )
    where = (meta.positions, meta.sequences, meta.slots)
    scores = {"scale": scale, "window": window, "softcap": softcap}
    later: dict[str, Any] = {"rope": None, "dtype": None, "codes": None}
    return record(PAGED_ATTENTION, q, k, v, *where, cache=cache, **scores, **later)
