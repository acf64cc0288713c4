"""`array`: a shape, a dtype, and a value or the node that will make it. As `mlx.core.array`."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nanocupy.core.recorder.dtypes import named
from nanocupy.core.recorder.graph import CONSTANT, STATIC, Node, Op, Shape, topological
from nanocupy.core.recorder.heap import track
from nanocupy.core.recorder.values import NUMBERS, checked_dtype, host_copy
from nanocupy.device.protocols import Rows
from nanocupy.dtypes import float32

_EVAL_LOCK = threading.RLock()  # a node is one that is computed, or not yet, for other threads, too


class array:
    """A lazy array.

    Operations record; `eval`, printing, `item`, `tolist` and conversion to NumPy run what was
    recorded.

    Args:
        value: anything NumPy makes an array of, which is copied, or a list with arrays in it, which
            are stacked. Python floats become float32, ints int32 (int64 where one needs it), and
            NumPy's float64 becomes float32.
        dtype: of the result; the value's own if None.
    """

    __slots__ = ("__weakref__", "node")
    __array_priority__ = 1000

    if TYPE_CHECKING:  # what `core.methods` sets

        @staticmethod
        def _stack(arrays: list[Any]) -> array: ...

        def _with(self, other: Any) -> array: ...
        def _of(self, *args: Any, **kwargs: Any) -> array: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _with
        __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _with
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __lshift__ = __rshift__ = _with
        __and__ = __or__ = __xor__ = __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = _with

        def __neg__(self) -> array: ...
        def __invert__(self) -> array: ...
        def __abs__(self) -> array: ...
        def __iter__(self) -> Iterator[array]: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...
        def split(self, indices_or_sections: Any, axis: int = 0) -> list[array]: ...

        T: array
        mT: array
        at: Any
        astype = reshape = transpose = squeeze = flatten = moveaxis = swapaxes = view = _of
        sum = mean = max = min = prod = all = any = std = var = logsumexp = argmax = argmin = _of
        cumsum = cumprod = cummax = cummin = logcumsumexp = diag = diagonal = _of
        abs = cos = exp = log = log10 = log1p = log2 = reciprocal = round = _of
        rsqrt = sin = sqrt = square = _of

    def __init__(self, value: Any, dtype: Any = None) -> None:
        if isinstance(value, Node):
            self.node = value
            return
        if type(value) not in NUMBERS and not isinstance(value, array):
            value = _stacked(value)
        if isinstance(value, array):
            self.node = value.node if dtype is None else value.astype(dtype).node
        else:
            self.node = constant(host_copy(value, dtype))

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """A `Dtype`, which is NumPy's in all but its type."""
        return named(self.node.specs[0][1])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements; with symbolic rows, those of one row."""
        known = [1 if isinstance(d, Rows) else d for d in self.shape]
        return int(np.prod(known, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array: a view, read-only, since other arrays may lie there, too."""
        view = self._value().view()
        view.flags.writeable = False
        return view

    def _value(self) -> np.ndarray:
        eval(self)
        return np.asarray(self.node.attrs["value"])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """For `numpy.array`, a copy. For `numpy.asarray`, a view: writing to it changes this array
        and all that share its memory."""
        value = self._value()
        if dtype is not None and value.dtype != dtype:
            if copy is False:
                raise ValueError(f"[array] {value.dtype} as {dtype} without a copy")
            return value.astype(dtype)
        return np.array(value) if copy else value.view()

    def item(self) -> Any:
        return self._value().item()

    def tolist(self) -> Any:
        return self._value().tolist()

    def __copy__(self) -> array:
        return array(self.node)

    def __deepcopy__(self, _: Any) -> array:
        return array(self.node)

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None,
        copy: bool | None = None,
    ) -> Any:  # fmt: skip
        """Return a capsule of this array's memory, or of a copy if that is read-only."""
        value = self._value()
        if copy or (copy is None and not value.flags.writeable):
            value = np.array(value)
        where = {} if dl_device is None else {"dl_device": dl_device}
        return value.__dlpack__(stream=stream, **where)

    def __dlpack_device__(self) -> Any:
        return self._value().__dlpack_device__()

    def __repr__(self) -> str:
        text = np.array2string(self._value(), separator=", ", prefix="array(")
        return f"array({text}, dtype={self.dtype})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a zero-dimensional array has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self._value())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    __hash__ = object.__hash__


def constant(value: np.ndarray) -> Node:
    return Node(CONSTANT, (), _evaluated(value), [(value.shape, value.dtype)])


def shared(value: np.ndarray) -> array:
    """Return the array in this memory, without a copy: nobody may change it afterwards."""
    return array(constant(checked_dtype(value, value)))


def uniform(shape: Shape, number: float, dtype: np.dtype[Any] = float32) -> array:
    """Return an array with the number everywhere, in the memory of one element."""
    return shared(np.broadcast_to(np.asarray(number, dtype), shape))


def static(
    buffer: Any,
    shape: tuple[int, ...] | None = None,
    limit: int | None = None,
    fixed: bool = False,
) -> array:
    """A device buffer as an array that a Program reads where it lies, at the contents of each run.

    Args:
        shape: of the array, perhaps with symbolic rows. Default: the buffer's.
        limit: every value will be below it (for positions: how long the tables must be).
        fixed: its contents never change.
    """
    spec = (shape or buffer.shape, buffer.dtype)
    return array(Node(STATIC, (), {"buffer": buffer, "limit": limit, "fixed": fixed}, [spec]))


def _stacked(value: Any) -> Any:
    """Stack a list with arrays in it; convert what has `__mlx_array__`."""
    if isinstance(value, list | tuple):
        if any(_has_arrays(child) for child in value):
            return array._stack([_stacked(child) for child in value])
        return value
    return value.__mlx_array__() if hasattr(value, "__mlx_array__") else value


def _has_arrays(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_has_arrays(child) for child in value)
    return isinstance(value, array)


def _evaluated(value: np.ndarray) -> dict[str, Any]:
    """Return a constant's attributes. The share comes first, to be dropped before the value."""
    return {"held": track(value), "value": value}


def record(op: Op, *inputs: Any, **attrs: Any) -> array:
    """Record one operation on arrays (or values that become arrays)."""
    return array(Node(op, tuple([as_array(x).node for x in inputs]), attrs))


def as_array(value: Any) -> array:
    return value if isinstance(value, array) else array(value)


def arrays_in(tree: Any) -> Iterable[array]:
    """The arrays in dicts, lists and tuples."""
    if isinstance(tree, array):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from arrays_in(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from arrays_in(value)


def eval(*trees: Any) -> None:
    """Compute every array in the trees (dicts, lists, tuples) by the operations' NumPy forms."""
    waiting = [n for n in [a.node for a in arrays_in(trees)] if n.op is not CONSTANT]
    if not waiting:
        return
    with np.errstate(all="ignore"):  # NaN and infinities are values like others
        for node in topological(waiting):
            with _EVAL_LOCK:
                op, inputs, attrs = node.op, node.inputs, node.attrs
            if op is not CONSTANT:
                set_value(node, run(op, [n.attrs["value"] for n in inputs], attrs))


def run(op: Op, values: list[Any], attrs: dict[str, Any]) -> Any:
    """Run an operation's NumPy form on values."""
    if op.numpy is None:
        raise NotImplementedError(f"[{op.name}] runs only inside a compiled function")
    return op.numpy(*values, **attrs)


def set_value(node: Node, value: Any) -> None:
    """Turn a computed node into a constant, in place, and release its inputs."""
    if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
        attrs = _evaluated(value)
    else:  # of several outputs, or a handle: those count that are arrays
        attrs = {"value": value}
    with _EVAL_LOCK:
        node.attrs, node.op, node.inputs = attrs, CONSTANT, ()


async_eval = eval


# ---- whether a function is being recorded, in this thread

_state = threading.local()


def recording() -> bool:
    return getattr(_state, "depth", 0) > 0


@contextmanager
def recorded() -> Iterator[None]:
    """Mark this thread as recording a function."""
    _state.depth = getattr(_state, "depth", 0) + 1
    try:
        yield
    finally:
        _state.depth -= 1
