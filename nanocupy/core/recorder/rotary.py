"""Rotary positions (`kernels.rope`), as `mlx.core.fast.rope`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.graph import Node, Op
from nanocupy.core.recorder.lowering import Lowering
from nanocupy.core.recorder.paged import rope_table
from nanocupy.core.recorder.public import public
from nanocupy.core.recorder.shapes import reshape
from nanocupy.kernels import rope as rope_kernel


def _lower_rope(to: Lowering, node: Node) -> None:
    x, positions = to.inputs(node)
    limit = node.inputs[1].attrs.get("limit")
    if limit is None:
        raise ValueError("[rope] positions in a Program are static and know their limit")
    table = rope_table(to, node.attrs["frequency"], node.attrs["magnitude"], limit)
    out = to.of(node).view
    shape: dict[str, Any] = {"heads": int(np.prod(node.shape[1:-1])), "head_dim": node.shape[-1]}
    place: dict[str, Any] = {"traditional": node.attrs["traditional"], "x_stride": x.stride}
    to.add(
        to.rows(node),
        lambda rows: to.launches.rope.launch(
            to.device, out, x.view, positions.view, table, rows, **shape, **place
        ),
    )


def _rope_numpy(
    x: np.ndarray,
    positions: np.ndarray,
    *,
    frequency: tuple[float, ...],
    magnitude: float,
    traditional: bool,
) -> np.ndarray:
    """x [B, heads, L, head_dim]; token l of row b stands at positions[b] + l."""
    batch, heads, length, head_dim = x.shape
    at = np.broadcast_to(positions.reshape(-1, 1) + np.arange(length), (batch, length))
    known, rows_of = np.unique(at, return_inverse=True)  # which may be far apart, or negative
    table = rope_kernel.table_at(np.array(frequency), known, magnitude)
    rows = x.transpose(0, 2, 1, 3).reshape(-1, heads, head_dim)
    out = rope_kernel.reference(rows, rows_of.reshape(-1), table, traditional)
    return out.reshape(batch, length, heads, head_dim).transpose(0, 2, 1, 3)


ROPE = Op(
    "rope",
    lambda x, positions, **_: x,
    _rope_numpy,
    _lower_rope,
    row_wise=True,
)


@public
def rope(
    x: Any,
    dims: int,
    *,
    traditional: bool,
    base: float | None,
    scale: float,
    offset: Any,
    freqs: Any = None,
    magnitude: float = 1.0,
) -> array:
    """Rotary positions on x [B, ..., L, head_dim].

    Args:
        dims: how many dimensions of a head turn: an even number, at most head_dim.
        offset: position of the first token: an int, or an array of ints [B], one a row.
        freqs: instead of `base`: what positions are divided by, [dims/2].
        magnitude: (not in MLX) multiplies what turns, as YaRN wants it.
    """
    x = as_array(x)
    _check_dims(x, dims)
    if x.ndim != 4:
        flat = reshape(x, (x.shape[0], -1, *x.shape[-2:]))
        how: dict[str, Any] = {"traditional": traditional, "base": base, "scale": scale}
        out = rope(flat, dims, offset=offset, freqs=freqs, magnitude=magnitude, **how)
        return reshape(out, x.shape)
    if (base is None) == (freqs is None):
        raise ValueError("[rope] give exactly one of base and freqs")
    if base is not None:
        frequency = rope_kernel.frequencies(dims, base) * scale
    else:
        wave = as_array(freqs)
        if wave.shape != (dims // 2,):
            raise ValueError(f"[rope] freqs of shape {wave.shape}: expected ({dims // 2},)")
        frequency = scale / wave.numpy().astype(np.float64)
    how = {"frequency": tuple(frequency.tolist()), "magnitude": magnitude}
    return record(ROPE, x, _positions(x, offset), traditional=traditional, **how)


def _check_dims(x: array, dims: int) -> None:
    if x.ndim < 3 or x.dtype.kind not in "fV":
        raise ValueError(
            f"[rope] x is {x.dtype} of shape {x.shape}: expected floats of three dimensions or more"
        )
    if not 0 < dims <= x.shape[-1] or dims % 2:
        raise ValueError(
            f"[rope] dims={dims} of heads of {x.shape[-1]}: expected an even number from 2 to that"
        )


def _positions(x: array, offset: Any) -> array:
    positions = as_array(offset)
    if positions.dtype.kind not in "iu":
        raise ValueError(f"[rope] offset of {positions.dtype}: expected ints")
    if positions.ndim > 1 or (positions.ndim and positions.shape[0] not in (1, x.shape[0])):
        raise ValueError(
            f"[rope] offset of shape {positions.shape}: expected a number, or one a row of "
            f"{x.shape[0]}"
        )
    return positions if positions.ndim else reshape(positions, (1,))


def longest(offset: Any, length: int) -> int:
    """Return the most positions a sequence may have: an engine's limit, or offset + length."""
    if isinstance(offset, array) and (limit := offset.node.attrs.get("limit")) is not None:
        return int(limit)
    return int(np.max(offset.numpy() if isinstance(offset, array) else offset)) + length
