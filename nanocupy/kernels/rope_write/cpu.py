"""The launch of rope_write on a CPU."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nanocupy.device.protocols import Device, DeviceArray, Launch, Rows
from nanocupy.dtypes import KINDS
from nanocupy.kernels.attention import KVLayout
from nanocupy.kernels.attention.cpu import CACHE_DTYPES
from nanocupy.kernels.kernel import CpuKernel
from nanocupy.kernels.rope import checked_table
from nanocupy.kernels.rope_write import row_strides

KERNELS = {
    KINDS[dtype]: CpuKernel(f"rope_write:rope_write_{KINDS[dtype]}") for dtype in CACHE_DTYPES
}
ALWAYS_WRITES_Q = False  # q that does not turn stays where it is


class RopeWriteArgs(NamedTuple):
    """Arguments of the kernel; strides in bytes. A table of 0: nothing turns."""

    q_out: DeviceArray | int
    k_cache: DeviceArray
    v_cache: DeviceArray
    q: DeviceArray
    k: DeviceArray
    v: DeviceArray
    positions: DeviceArray
    slots: DeviceArray
    table: DeviceArray | int
    rows: DeviceArray
    kv_heads: int
    head_dim: int
    heads: int  # query heads that turn: 0 without a table
    dims: int
    limit: int  # positions in the table
    traditional: int
    block_size: int
    blocks: int
    q_stride: int
    k_stride: int
    v_stride: int
    scratch: DeviceArray
    scratch_stride: int
    block_stride: int


def launch(
    device: Device, layout: KVLayout, q_out: DeviceArray | None, k_cache: DeviceArray,
    v_cache: DeviceArray, q: DeviceArray, k: DeviceArray, v: DeviceArray, positions: DeviceArray,
    slots: DeviceArray, table: DeviceArray | None, rows: Rows, *, heads: int,
    traditional: bool = False, q_stride: int | None = None, k_stride: int | None = None,
    v_stride: int | None = None,
) -> Launch:  # fmt: skip
    """Turn q and k of each row, and write K and V.

    Args:
        q_out: may be None where nothing turns: q then stays where it is.
        positions, slots: int32 [rows].
        table: as for `rope`; None if q and k do not turn, or have turned already.
        q_stride, k_stride, v_stride: elements from row to row. Default: no gaps.
    """
    size, kv_heads = layout.head_dim, layout.kv_heads
    strides = [4 * s for s in row_strides(layout, heads, q_stride, k_stride, v_stride)]
    limit, dims = (0, 0) if table is None else checked_table(table, size)
    args = RopeWriteArgs(
        q_out=0 if q_out is None else q_out,
        k_cache=k_cache[0],
        v_cache=v_cache[0],
        q=q,
        k=k,
        v=v,
        positions=positions,
        slots=slots,
        table=0 if table is None else table,
        rows=rows.count,
        kv_heads=kv_heads,
        head_dim=size,
        heads=0 if table is None else heads,
        dims=dims,
        limit=limit,
        traditional=int(traditional),
        block_size=layout.block_size,
        blocks=layout.blocks,
        q_stride=strides[0],
        k_stride=strides[1],
        v_stride=strides[2],
        scratch=device.empty((device.threads, 4 * size), np.uint8),
        scratch_stride=4 * size,
        block_stride=k_cache.strides[0],
    )
    return Launch(KERNELS[layout.kind], args)
