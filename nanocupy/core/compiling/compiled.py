"""`compile`: record a function of arrays once for every kind of call, then run its Schedule."""

from __future__ import annotations

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nanocupy.core.compiling.schedule import Schedule
from nanocupy.core.compiling.tracing import COMPILED, PLACEHOLDER, give_away, placeholder
from nanocupy.core.compiling.trees import flatten, places, replaced
from nanocupy.core.recorder.arrays import array, constant, eval, recorded, recording
from nanocupy.core.recorder.graph import CONSTANT, Node, Spec, item, rebuild, topological
from nanocupy.device.protocols import Rows

MAX_KINDS = 64  # kinds of calls of one compiled function whose schedules are kept
_ONE_AT_A_TIME = threading.RLock()  # state holds other arrays while a function is recorded
_OF_SHAPES = {  # attributes that say nothing of shapes: a record with others serves one shape only
    "axis", "axes", "keepdims", "dtype", "decimals", "ddof", "eps", "precise", "index", "function",
    "value", "held",
}  # fmt: skip


class _Recent(OrderedDict[Any, Any]):
    """A dict that keeps the `MAX_KINDS` most recently used entries."""

    def __getitem__(self, key: Any) -> Any:
        self.move_to_end(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > MAX_KINDS:
            del self[next(iter(self))]  # popitem of Python 3.10 would get it first


class _Switch:
    on = os.environ.get("NANOCUPY_DISABLE_COMPILE", "0") in ("", "0")


def disable_compile() -> None:
    """Call the functions themselves in place of compiled ones, for debugging."""
    _Switch.on = False


def enable_compile() -> None:
    """Undo `disable_compile`."""
    _Switch.on = True


class Trace:
    """A function recorded for one kind of call.

    Args:
        function: what is recorded.
        call: its arguments: (args, kwargs).
        specs: of the arrays in `call`, then of those in `inputs`.
        inputs, outputs: as for `compile`.
    """

    def __init__(
        self, function: Callable[..., Any], call: Any, specs: list[Spec], inputs: Any, outputs: Any
    ) -> None:
        self.name = getattr(function, "__name__", type(function).__name__)
        self.leaves = [placeholder(spec, self.name) for spec in specs]
        arrays = iter([array(n) for n in self.leaves])
        args, kwargs = replaced(call, arrays)
        since = array(0).node.order
        with _state_restored(inputs, outputs):
            _fill(inputs, arrays)
            with recorded():
                self.tree = function(*args, **kwargs)
            results: list[array] = []
            flatten(self.tree, results)
            self.returned = len(results)
            results += [place[2] for place in _state(outputs)]
            self.nodes = [a.node for a in results]
        eval([array(n) for n in _captured(self.nodes, since)])
        self.fits_all = _shapeless(self.nodes, since)

    def resized(self, specs: list[Spec]) -> tuple[list[Node], list[Node]]:
        """The record for arrays of other shapes: (leaves, outputs)."""
        leaves = [placeholder(spec, self.name) for spec in specs]
        new = dict(zip(self.leaves, leaves, strict=True))

        def make(node: Node, inputs: tuple[Node, ...]) -> Node:
            if node in new or node.op is CONSTANT:
                return new.get(node, node)
            if "index" in node.attrs and not node.op.infer(
                *(n.specs[0] for n in inputs), **node.attrs
            ):
                return item(inputs[0], node.attrs["index"])
            return Node(node.op, inputs, node.attrs)

        return leaves, rebuild(self.nodes, make)


def _state(tree: Any) -> list[Any]:
    return [] if tree is None else places(tree)


def _fill(inputs: Any, arrays: Iterator[array]) -> None:
    """Put these values into the state."""
    seen: set[array] = set()
    for (container, key, captured), leaf in zip(_state(inputs), arrays, strict=True):
        if captured in seen and isinstance(container, dict | list):
            container[key] = leaf  # one array in two places now, and later perhaps two
        else:
            captured.node = leaf.node
        seen.add(captured)


@contextmanager
def _state_restored(inputs: Any, outputs: Any) -> Iterator[None]:
    """Restore the state after a recording; keep places that it added, unless it fails."""
    before = [(place, place[2].node) for place in _state(inputs) + _state(outputs)]
    keys = [(tree, set(tree)) for tree in _dicts(outputs)]
    try:
        yield
    except BaseException:
        for tree, known in keys:
            for key in set(tree) - known:
                del tree[key]
        raise
    finally:
        for (container, key, captured), node in before:
            captured.node = node
            if isinstance(container, dict | list):
                container[key] = captured


def _dicts(tree: Any) -> list[dict[Any, Any]]:
    """Return the dicts in a tree, itself included."""
    if not isinstance(tree, dict | list | tuple):
        return []
    items = tree.values() if isinstance(tree, dict) else tree
    inner = [found for child in items for found in _dicts(child)]
    return [tree, *inner] if isinstance(tree, dict) else inner


def _captured(nodes: list[Node], since: int) -> list[Node]:
    """Return nodes recorded before the function that are not evaluated: they are computed once,
    not in every call."""
    known: set[Node] = set()
    for node in topological(nodes):
        runs = node.op.numpy and not node.op.effect
        if runs and node.order < since and all(n in known for n in node.inputs):
            known.add(node)
    return [n for n in known if n.op is not CONSTANT]


def _shapeless(nodes: list[Node], since: int) -> bool:
    """Whether nothing in a graph depends on the lengths of its arrays; an array that was made
    while it was recorded may have a length of theirs."""
    return all(
        n.op is PLACEHOLDER
        or (set(n.attrs) <= _OF_SHAPES and (n.op is not CONSTANT or n.order < since or not n.shape))
        for n in topological(nodes)
    )


def compile(
    fun: Callable[..., Any],
    inputs: Any = None,
    outputs: Any = None,
    shapeless: bool = False,
    *,
    donate: Sequence[int] = (),
    device: Any = None,
) -> Callable[..., Any]:
    """`fun`, recorded once for every kind of call, as `mlx.core.compile`.

    Calls are of one kind if their trees, constants, shapes and dtypes are equal, those of `inputs`
    as well. What is recorded runs with chains of elementwise operations as one pass each, to the
    bit as without `compile`. `fun` is not to look at values while it is recorded, nor to change
    anything but `outputs`. Inside a function that is being recorded, and on arrays with a symbolic
    number of rows, `fun` itself is called. The schedules of the 64 kinds that were called last are
    kept: a call of another kind is recorded anew.

    Args:
        fun: takes and returns trees of arrays and constants.
        inputs: a tree of the arrays that `fun` reads besides its arguments; what they are when the
            function is called counts.
        outputs: a tree of arrays that `fun` changes: after each call it has the new ones.
        shapeless: one record serves all shapes of as many dimensions, if no operation in it is
            bound to lengths; else there is one for each. Python code in `fun` that asks for a
            shape keeps the answer of the first call.
        donate: places of arguments that are given away: they are evaluated, the function runs at
            once, in their memory where it can, and using them later is a ValueError.
        device: where to run. None: the CPU, on the arrays where they lie. Operations without a
            kernel there run in NumPy, between the others.

    Raises:
        ValueError: an argument is neither a tree of arrays nor a constant; or `fun` asks for a
            value.
    """
    if not callable(fun):
        raise TypeError(f"[compile] {type(fun).__name__} given: expected a function")
    records, schedules = _Recent(), _Recent()  # what was recorded; that, with its schedule
    name = getattr(fun, "__name__", type(fun).__name__)

    def schedule_of(kind: Any, call: Any, specs: list[Spec]) -> tuple[Trace, Schedule]:
        ranks = (kind, tuple([(len(shape), dtype) for shape, dtype in specs]))
        record = records[ranks] if shapeless and ranks in records else None
        if record is not None and record.fits_all:
            leaves, nodes = record.resized(specs)
        else:
            record = Trace(fun, call, specs, inputs, outputs)
            leaves, nodes = record.leaves, record.nodes
            if shapeless:
                records[ranks] = record
        return record, Schedule(leaves, nodes, device, name)

    @functools.wraps(fun)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _Switch.on or recording():
            return fun(*args, **kwargs)
        arrays: list[array] = []
        kind = flatten((args, kwargs), arrays)
        with _ONE_AT_A_TIME:
            nodes = [a.node for a in arrays] + [place[2].node for place in _state(inputs)]
            specs = [n.specs[0] for n in nodes]
            if any(isinstance(d, Rows) for shape, _ in specs for d in shape[:1]):
                return fun(*args, **kwargs)
            key = (kind, tuple(specs))
            if key not in schedules:
                schedules[key] = schedule_of(kind, (args, kwargs), specs)
            record, schedule = schedules[key]
        results = _apply(schedule, nodes, [args[i] for i in donate if i < len(args)], name)
        for (container, place, _), result in zip(
            _state(outputs), results[record.returned :], strict=True
        ):
            container[place] = result
        return replaced(record.tree, iter(results[: record.returned]))

    return call


def _apply(schedule: Schedule, nodes: list[Node], gifts: list[Any], name: str) -> list[array]:
    """Return the outputs, lazy; computed at once if an argument is donated."""
    if gifts:
        given: list[array] = []
        flatten(gifts, given)
        eval([array(n) for n in nodes])
        values = [n.attrs["value"] for n in nodes]
        for node in {a.node for a in given}:
            if node in nodes:
                give_away(node, name)
        with np.errstate(all="ignore"):  # as `eval`
            return [array(constant(v)) for v in schedule(values)]
    if not schedule.outputs:
        return []
    made = Node(COMPILED, tuple(nodes), {"schedule": schedule})
    if len(schedule.outputs) == 1:
        return [array(made)]
    return [array(item(made, i)) for i in range(len(schedule.outputs))]
