"""Products of matrices and tensors, as `mlx.core` has them: of floats, 16-bit ones in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nanocupy.core.arrays.layout import repeat
from nanocupy.core.maths import elementwise
from nanocupy.core.maths.reductions import sum
from nanocupy.core.recorder.arrays import array, as_array, record
from nanocupy.core.recorder.casting import astype, promote
from nanocupy.core.recorder.graph import Op, Spec
from nanocupy.core.recorder.shapes import reshape, take
from nanocupy.core.recorder.specs import blank, broadcast, normal_axis, upcasting, whole_number
from nanocupy.dtypes import float32


def _matmul_spec(x: Spec, y: Spec) -> Spec:
    """NumPy's rule: vectors are rows or columns, dimensions before the last two are broadcast."""
    a, b = x[0], y[0]
    if not a or not b:
        raise ValueError(f"[matmul] shapes {a} and {b}: at least one dimension each")
    rows, columns = (a[-2:-1], b[-1:]) if len(b) > 1 else (a[-2:-1], ())
    if a[-1] != b[-2 if len(b) > 1 else 0]:
        raise ValueError(f"[matmul] shapes {a} and {b} do not fit")
    return (*broadcast(a[:-2], b[:-2]), *rows, *columns), x[1]


MATMUL = Op("matmul", _matmul_spec, upcasting(np.matmul))


def _floats(name: str, *values: Any) -> list[array]:
    """The values as arrays of one float dtype: like MLX, products do not take ints."""
    arrays = promote([as_array(v) for v in values])
    if arrays[0].dtype.kind not in "fV":
        raise ValueError(f"[{name}] takes floats, not {arrays[0].dtype}")
    return arrays


def matmul(x: Any, y: Any) -> array:
    """`numpy.matmul`."""
    return record(MATMUL, *_floats("matmul", x, y))


def addmm(c: Any, a: Any, b: Any, /, alpha: float = 1.0, beta: float = 1.0) -> array:
    """alpha * (a @ b) + beta * c, rounded once."""
    c, a, b = _floats("addmm", c, a, b)
    kind = a.dtype if a.dtype.itemsize >= 4 else float32
    product = matmul(astype(a, kind), astype(b, kind))
    if broadcast(c.shape, product.shape) != product.shape:
        raise ValueError(f"[addmm] c {c.shape} does not broadcast to {product.shape}")
    return astype(alpha * product + beta * astype(c, kind), a.dtype)


def outer(x: Any, y: Any, /) -> array:
    """The products of all elements of x with all of y."""
    x, y = as_array(x), as_array(y)
    return reshape(x, (x.size, 1)) * reshape(y, (1, y.size))


def inner(x: Any, y: Any, /) -> array:
    """Sums of products along the last axes."""
    x, y = as_array(x), as_array(y)
    if not x.ndim or not y.ndim:
        return x * y
    return tensordot(x, y, [[-1], [-1]])


def kron(x: Any, y: Any) -> array:
    """`numpy.kron`."""
    x, y = promote((as_array(x), as_array(y)))
    if not x.size or not y.size:
        raise ValueError(f"[kron] of shapes {x.shape} and {y.shape}: no elements")
    ndim = max(x.ndim, y.ndim)
    x, y = (reshape(a, (1,) * (ndim - a.ndim) + a.shape) for a in (x, y))
    dims = [n * m for n, m in zip(x.shape, y.shape, strict=True)]
    x = reshape(x, [d for n in x.shape for d in (n, 1)])
    y = reshape(y, [d for n in y.shape for d in (1, n)])
    return reshape(x * y, dims)


def vecdot(x: Any, y: Any, /, *, axis: int = -1) -> array:
    """The sum of x * y along an axis, which is as long in both."""
    x, y = promote((as_array(x), as_array(y)))
    lengths = [v.shape[normal_axis("vecdot", axis, v.ndim)] for v in (x, y)]
    if lengths[0] != lengths[1]:
        raise ValueError(f"[vecdot] {x.shape} and {y.shape} along axis {axis}: as long in both")
    return sum(x * y, axis)


def tensordot(x: Any, y: Any, /, axes: int | Sequence[Sequence[int]] = 2) -> array:
    """`numpy.tensordot`."""
    x, y = _floats("tensordot", x, y)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ValueError(f"[tensordot] axes={axes} of {x.ndim} and {y.ndim} dimensions")
        axes = [range(x.ndim - axes, x.ndim), range(axes)]
    first, second = (
        [normal_axis("tensordot", a, v.ndim) for a in chosen]
        for chosen, v in zip(axes, (x, y), strict=True)
    )
    if [x.shape[i] for i in first] != [y.shape[i] for i in second]:
        raise ValueError(f"[tensordot] {x.shape} and {y.shape} along {axes}: as long in both")
    rows = [i for i in range(x.ndim) if i not in first]
    columns = [i for i in range(y.ndim) if i not in second]
    inside = int(np.prod([x.shape[i] for i in first], dtype=np.int64))
    height = [x.shape[i] for i in rows]
    width = [y.shape[i] for i in columns]
    a = reshape(x.transpose(rows + first), (int(np.prod(height, dtype=np.int64)), inside))
    b = reshape(y.transpose(second + columns), (inside, int(np.prod(width, dtype=np.int64))))
    return reshape(matmul(a, b), (*height, *width))


# ---- einsum


def _letters(text: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[list[str]], list[str]]:
    """The names of every dimension of operands and result; those of "..." are numbers."""
    left, arrow, right = text.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(shapes):
        raise ValueError(f"[einsum] {text!r} of {len(shapes)} arrays")
    spare = max(len(s) - len(p.replace("...", "")) for p, s in zip(parts, shapes, strict=True))

    def expand(part: str, count: int) -> list[str]:
        before, dots, after = part.partition("...")
        middle = [str(i) for i in range(spare - count, spare)] if dots else []
        return [*before, *middle, *after]

    operands = [
        expand(p, len(s) - len(p.replace("...", ""))) for p, s in zip(parts, shapes, strict=True)
    ]
    if arrow:
        return operands, expand(right, spare)
    every = [n for names in operands for n in names]
    once = sorted(n for n in set(every) if every.count(n) == 1 and not n.isdigit())
    return operands, [str(i) for i in range(spare) if str(i) in every] + once


def _einsum_spec(*specs: Spec, subscripts: str) -> Spec:
    operands, result = _letters(subscripts, [s for s, _ in specs])
    sizes: dict[str, int] = {}
    for names, (shape, _) in zip(operands, specs, strict=True):
        if len(names) != len(shape):
            raise ValueError(f"[einsum] {subscripts!r} of an array with {len(shape)} dimensions")
        for name, size in zip(names, shape, strict=True):
            if sizes.setdefault(name, size) not in (size, 1) and size != 1:
                raise ValueError(f"[einsum] {subscripts!r}: {name} is {sizes[name]} and {size}")
            sizes[name] = max(sizes[name], size)
    return tuple(sizes[n] for n in result), specs[0][1]


_EINSUM = Op(
    "einsum",
    _einsum_spec,
    upcasting(lambda *xs, subscripts: np.einsum(subscripts, *xs, optimize=len(xs) > 1)),
)


def einsum(subscripts: str, *operands: Any) -> array:
    """`numpy.einsum` of a string."""
    return record(_EINSUM, *promote([as_array(x) for x in operands]), subscripts=subscripts)


def einsum_path(subscripts: str, *operands: Any) -> tuple[list[tuple[int, ...]], str]:
    """(which operands `einsum` takes together, one step after the other; that as text)."""
    arrays = [as_array(x) for x in operands]
    _einsum_spec(*(a.node.specs[0] for a in arrays), subscripts=subscripts)
    path, text = np.einsum_path(subscripts, *(blank(a.node.specs[0]) for a in arrays))
    return [tuple(step) for step in path[1:]], text


# ---- some matrices of many


def _chosen(x: array, indices: Any) -> array:
    """The matrices of x, all but the last two dimensions being one list, at indices."""
    if indices is None:
        return x
    return take(reshape(x, (-1, *x.shape[-2:])), indices, 0)


def _gather_mm_spec(a: Spec, b: Spec, places: Spec) -> Spec:
    return _matmul_spec(a, ((*places[0], *b[0][-2:]), b[1]))


def _gather_mm(a: np.ndarray, b: np.ndarray, places: np.ndarray) -> np.ndarray:
    return upcasting(np.matmul)(a, b.reshape(-1, *b.shape[-2:])[places])


GATHER_MM = Op("gather_mm", _gather_mm_spec, _gather_mm)


def gather_mm(
    a: Any, b: Any, /, lhs_indices: Any = None, rhs_indices: Any = None, *,
    sorted_indices: bool = False,
) -> array:  # fmt: skip
    """a[lhs_indices] @ b[rhs_indices] of matrices, by their places in the lists that dimensions
    before the last two make; None is all of them."""
    a, b = _floats("gather_mm", a, b)
    if lhs_indices is None and rhs_indices is not None:
        return record(GATHER_MM, a, b, as_array(rhs_indices))
    return matmul(_chosen(a, lhs_indices), _chosen(b, rhs_indices))


def block_masked_mm(
    a: Any, b: Any, /, block_size: int = 64, mask_out: Any = None, mask_lhs: Any = None,
    mask_rhs: Any = None,
) -> array:  # fmt: skip
    """a @ b with blocks of the result, of a and of b masked or scaled."""
    a, b = _floats("block_masked_mm", a, b)
    whole_number("block_masked_mm", "block_size", block_size, least=1)
    out = matmul(_masked(a, mask_lhs, block_size), _masked(b, mask_rhs, block_size))
    return _masked(out, mask_out, block_size)


def _masked(x: array, mask: Any, block: int) -> array:
    if mask is None:
        return x
    mask = as_array(mask)
    blocks = tuple(-(-int(n) // block) for n in x.shape[-2:])
    if mask.shape[-2:] != blocks:
        raise ValueError(f"[block_masked_mm] a mask of shape {mask.shape} for {blocks} blocks")
    full = repeat(repeat(mask, block, -1), block, -2)[..., : x.shape[-2], : x.shape[-1]]
    masked = elementwise.where(full, x, 0) if full.dtype.kind == "b" else x * full
    return astype(masked, x.dtype)


def segmented_mm(a: Any, b: Any, /, segments: Any) -> array:
    """a[:, start:stop] @ b[start:stop] for each (start, stop) of the segments."""
    a, b = _floats("segmented_mm", a, b)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"[segmented_mm] {a.shape} and {b.shape}: expected two matrices")
    ends = as_array(segments)
    steps = array(np.arange(a.shape[-1]))
    inside = elementwise.logical_and(steps >= ends[..., :1], steps < ends[..., 1:])
    return matmul(elementwise.where(inside[..., None, :], a, 0), b)
