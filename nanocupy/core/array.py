"""`array`: a shape, a dtype, and a value or the node that will make it. As `mlx.core.array`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from nanocupy.core.graph import CONSTANT, Node, Op, Shape, topological

bool_ = np.dtype(np.bool_)
uint8 = np.dtype(np.uint8)
uint32 = np.dtype(np.uint32)
int8 = np.dtype(np.int8)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
float16 = np.dtype(np.float16)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
float32 = np.dtype(np.float32)


class array:
    """A lazy array.

    Operations record; `eval`, printing, `item`, `tolist` and conversion to NumPy run what was
    recorded.

    Args:
        value: anything NumPy makes an array of; Python floats become float32, ints int32.
        dtype: of the result; the value's own if None.
    """

    __array_priority__ = 1000

    if TYPE_CHECKING:  # operators and methods that `core.ops` sets

        def _with(self, other: Any) -> array: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _with
        __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __matmul__ = _with
        __and__ = __or__ = __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = _with

        def __neg__(self) -> array: ...
        def __invert__(self) -> array: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def astype(self, dtype: Any) -> array: ...

        reshape: Callable[..., array]
        transpose: Callable[..., array]
        squeeze: Callable[..., array]
        sum: Callable[..., array]
        mean: Callable[..., array]
        max: Callable[..., array]
        min: Callable[..., array]
        argmax: Callable[..., array]
        split: Callable[..., list[array]]
        at: Any

    def __init__(self, value: Any, dtype: Any = None) -> None:
        if isinstance(value, Node):
            self.node = value
            return
        host = np.asarray(value.numpy() if isinstance(value, array) else value)
        if dtype is not None:
            host = host.astype(dtype)
        elif not isinstance(value, np.ndarray | np.generic | array):
            host = host.astype({"f": float32, "i": int32}.get(host.dtype.kind, host.dtype))
        self.node = constant(host)

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> array:
        return self.transpose()

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array (not a copy where the array already exists)."""
        eval(self)
        return np.asarray(self.node.attrs["value"])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        value = self.numpy()
        return value if dtype is None else value.astype(dtype)

    def item(self) -> Any:
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def __repr__(self) -> str:
        return f"array({self.numpy()}, dtype={self.dtype})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a zero-dimensional array has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.numpy())

    __hash__ = object.__hash__


def constant(value: np.ndarray) -> Node:
    return Node(CONSTANT, (), {"value": value}, [(value.shape, value.dtype)])


def record(op: Op, *inputs: Any, **attrs: Any) -> array:
    """Record one operation on arrays (or values that become arrays)."""
    return array(Node(op, tuple(as_array(x).node for x in inputs), attrs))


def as_array(value: Any) -> array:
    return value if isinstance(value, array) else array(value)


def _arrays(tree: Any) -> Iterable[array]:
    if isinstance(tree, array):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _arrays(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _arrays(value)


def eval(*trees: Any) -> None:
    """Compute every array in the trees (dicts, lists, tuples) by the operations' NumPy forms."""
    roots = [a.node for a in _arrays(trees)]
    for node in topological([n for n in roots if n.op is not CONSTANT]):
        if node.op is CONSTANT:
            continue
        if node.op.numpy is None:
            raise NotImplementedError(f"[{node.op.name}] runs only inside a compiled function")
        value = node.op.numpy(*(n.attrs["value"] for n in node.inputs), **node.attrs)
        settle(node, value)


def settle(node: Node, value: Any) -> None:
    """Turn a computed node into a constant, in place, and let go of what made it."""
    if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
    node.op, node.inputs, node.attrs = CONSTANT, (), {"value": value}


async_eval = eval
