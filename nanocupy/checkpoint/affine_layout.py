"""Other programs' quantised weights as the one layout that is run: see `kernels.affine`.

A module's qweight, qzeros, scales, ... stand for its weight, scales and biases, and where inputs
were sorted by their groups (act-order) for `order`, the input that each column is for. Weights of
all experts in one tensor stand for each expert's. What a tensor is made of is read when it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nanocupy import dtypes
from nanocupy.checkpoint import unpack_weights as unpack
from nanocupy.checkpoint.header import TensorInfo
from nanocupy.checkpoint.quantization import (
    AWQ,
    BITS,
    FLOAT,
    FP8,
    GPTQ,
    GPTQ_V2,
    GROUPS,
    PACKED,
    Form,
    Quantization,
)

Tensors = Mapping[str, TensorInfo]
Read = Callable[[str], NDArray[Any]]
FLOATS = {kind.upper(): dtype for dtype, kind in dtypes.FLOATS.items()}
_OF_KEYS = (".k_scale", ".v_scale")  # of keys and values in 8 bits, which are cached otherwise here
_STACK = ".switch_mlp."  # what mlx-lm calls the weights of all experts


class Derived(NamedTuple):
    """A tensor that is made of others: `make(*sources)`, read-only arrays, gives its value."""

    info: TensorInfo
    sources: tuple[str, ...]
    make: Callable[..., NDArray[Any]]


@dataclass
class AffineTensors:
    """
    Attributes:
        parts: tensors that lie inside others, by name.
        derived: tensors that are made of others, by name.
        replaced: tensors of the files that these stand for.
        forms: (bits, group_size) of modules that are quantised; None: of one that is floats now.
    """

    parts: dict[str, TensorInfo] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    forms: dict[str, Form | None] = field(default_factory=dict)


def as_affine(
    quantization: Quantization | None, tensors: Tensors, read: Read, stacked: bool = False
) -> AffineTensors:
    """What a checkpoint's tensors stand for.

    Args:
        stacked: leave weights of all experts in one tensor as they are.

    Raises:
        ValueError: a module's tensors do not fit each other, or are in groups that are not run.
    """
    found = AffineTensors()
    if not stacked:
        _unstack(found, quantization, tensors)
    if quantization and quantization.packing in _MARKS:
        found.replaced |= {name for name in tensors if name.endswith(_OF_KEYS)}
        mark, add = _MARKS[quantization.packing]
        for name in tensors:
            if name.endswith(mark):
                add(Packed(found, quantization, name.removesuffix(mark), tensors, read))
    return found


# ---- experts


def _unstack(found: AffineTensors, quantization: Quantization | None, tensors: Tensors) -> None:
    """x.switch_mlp.up_proj.weight [experts, ...] is x.experts.0.up_proj.weight, ..."""
    for name, info in tensors.items():
        before, stack, after = name.partition(_STACK)
        if not stack or len(info.shape) < 2 or not info.nbytes:
            continue
        found.replaced.add(name)
        for expert in range(info.shape[0]):
            ours = f"{before}.experts.{expert}.{after}"
            size = info.nbytes // info.shape[0]
            place = info.file, info.offset + expert * size
            found.parts[ours] = TensorInfo(ours, info.dtype, info.shape[1:], size, *place)
            if quantization and name.endswith(".scales"):
                form = quantization.for_module(name.removesuffix(".scales"))
                found.forms[ours.removesuffix(".scales")] = form


# ---- quantised modules


@dataclass
class Packed:
    """One module, and the tensors that belong to it."""

    found: AffineTensors
    quantization: Quantization
    module: str
    tensors: Tensors
    read: Read

    def has(self, leaf: str) -> bool:
        return f"{self.module}.{leaf}" in self.tensors

    def value(self, leaf: str) -> NDArray[Any]:
        return self.read(f"{self.module}.{leaf}")

    def need(self, leaf: str, dtypes: str, shape: tuple[int, ...] | None = None) -> TensorInfo:
        """A tensor of the module, of one of the dtypes (one shown as "F16 BF16"), and this shape.

        Raises:
            ValueError: it is not there, or otherwise.
        """
        name = f"{self.module}.{leaf}"
        if name not in self.tensors:
            raise ValueError(f"tensor '{name}' is missing")
        info = self.tensors[name]
        matrix = len(info.shape) == 2 and all(info.shape)
        wanted = matrix if shape is None else info.shape == shape
        if info.dtype not in dtypes.split() or not wanted:
            says = "two dimensions" if shape is None else shape
            raise ValueError(
                f"tensor '{name}' is {info.dtype} {info.shape}: expected {dtypes} and {says}"
            )
        self.found.replaced.add(name)
        return info

    def drop(self, *leaves: str) -> None:
        """Tensors that are known and not wanted."""
        self.found.replaced |= {f"{self.module}.{leaf}" for leaf in leaves if self.has(leaf)}

    def give(
        self,
        leaf: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        sources: tuple[str, ...],
        make: Callable[..., NDArray[Any]],
    ) -> None:
        """A tensor of the module, made of its tensors `sources`."""
        name, names = f"{self.module}.{leaf}", tuple(f"{self.module}.{s}" for s in sources)
        first = self.tensors[names[0]]
        nbytes = math.prod(shape) * dtype.itemsize
        kind = dtypes.KINDS[dtype].upper()
        info = TensorInfo(name, kind, shape, nbytes, first.file, first.offset)
        self.found.derived[name] = Derived(info, names, make)

    def groups(self, n: int, k: int, bits: int, count: int) -> tuple[tuple[int, int], int]:
        """The shape of scales for `count` groups of k inputs, and how often each is repeated."""
        each = k // count if count and k % count == 0 else 0
        group = next((g for g in reversed(GROUPS) if each and each % g == 0), 0)
        if not group or bits not in BITS or k * bits % 32:
            raise ValueError(
                f"'{self.module}': {k} inputs of {bits} bits in {count} groups; supported are 4 or "
                "8 bits in equal groups of a multiple of 32"
            )
        self.found.forms[self.module] = bits, group
        return (n, k // group), each // group

    def order(self, leaf: str, k: int, count: int) -> NDArray[np.int32] | None:
        """The inputs sorted by the groups that a tensor gives them; None where they are already."""
        if not self.has(leaf):
            return None
        self.need(leaf, "I32", (k,))
        of = self.value(leaf)
        known = (of >= 0).all() and (of < count).all()
        if not known or (np.bincount(of, minlength=count) != k // count).any():
            raise ValueError(
                f"tensor '{self.module}.{leaf}' must put {k} inputs into {count} equal groups"
            )
        order = np.argsort(of, kind="stable").astype(np.int32)
        if np.array_equal(order, np.arange(k)):
            return None
        self.give("order", np.dtype(np.int32), (k,), (leaf,), lambda _: order)
        return order


def _zeros(
    of: Packed,
    scales: TensorInfo,
    shape: tuple[int, int],
    times: int,
    zeros: tuple[str, Callable[[NDArray[Any]], NDArray[Any]]],
    transposed: bool,
) -> None:
    """Scales, and the biases of zero points that are 2^(bits-1) everywhere, or not."""
    leaf, unpacked = zeros
    dtype, name = FLOATS[scales.dtype], scales.name.rpartition(".")[2]
    form = of.found.forms[of.module]
    assert form is not None
    middle = 1 << (form[0] - 1)

    def own(numbers: NDArray[Any]) -> NDArray[Any]:
        return unpack.spread(numbers.T if transposed else numbers, times)

    of.give("scales", dtype, shape, (name,), own)
    if not leaf or (unpacked(of.value(leaf)) == middle).all():
        of.give("biases", dtype, shape, (name,), lambda s: unpack.biases(own(s), middle, dtype))
        return
    wide = np.dtype(np.float32)
    of.give(
        *("biases", wide, shape, (name, leaf)),
        lambda s, z: unpack.biases(own(s), unpack.spread(unpacked(z), times), wide),
    )


def _awq(of: Packed) -> None:
    k, words = of.need("qweight", "I32").shape
    n, count = 8 * words, of.need("scales", "F16 BF16 F32").shape[0]
    scales = of.need("scales", "F16 BF16 F32", (count, n))
    of.need("qzeros", "I32", (count, words))
    shape, times = of.groups(n, k, 4, count)
    of.give("weight", np.dtype(np.uint32), (n, k // 8), ("qweight",), unpack.awq_weight)
    _zeros(of, scales, shape, times, ("qzeros", lambda z: unpack.awq_codes(z).T), True)


def _gptq(of: Packed) -> None:
    bits, version = of.quantization.bits, 1 if of.quantization.packing == GPTQ else 2
    words, n = of.need("qweight", "I32").shape
    k, count = words * 32 // bits, of.need("scales", "F16 BF16 F32").shape[0]
    scales = of.need("scales", "F16 BF16 F32", (count, n))
    of.need("qzeros", "I32", (count, n * bits // 32))
    shape, times = of.groups(n, k, bits, count)
    order = of.order("g_idx", k, count)
    of.give(
        *("weight", np.dtype(np.uint32), (n, words), ("qweight",)),
        lambda w: unpack.gptq_weight(w, bits, order),
    )
    _zeros(
        of, scales, shape, times, ("qzeros", lambda z: unpack.gptq_zeros(z, bits, version)), True
    )


def _packed(of: Packed) -> None:
    of.need("weight_shape", "I64 I32", (2,))
    n, k = (int(size) for size in of.value("weight_shape"))
    words = of.need("weight_packed", "I32").shape[1]
    bits = words * 32 // k if k > 0 else 0
    of.need("weight_packed", "I32", (n, k * bits // 32))
    count = of.need("weight_scale", "F16 BF16 F32").shape[1]
    scales = of.need("weight_scale", "F16 BF16 F32", (n, count))
    shape, times = of.groups(n, k, bits, count)
    order = of.order("weight_g_idx", k, count)
    of.give(
        *("weight", np.dtype(np.uint32), (n, words), ("weight_packed",)),
        lambda w: w.view(np.uint32) if order is None else unpack.reordered(w, bits, order),
    )
    zeros = "weight_zero_point" if of.has("weight_zero_point") else ""
    whole = bool(zeros) and of.tensors[f"{of.module}.{zeros}"].dtype == "I8"  # of early versions
    if zeros:
        of.need(zeros, *(("I8", (n, count)) if whole else ("I32", (-(-n * bits // 32), count))))
    _zeros(of, scales, shape, times, (zeros, lambda z: unpack.compressed_zeros(z, bits, n)), False)
    of.drop("input_scale", "output_scale")


def _float(of: Packed) -> None:
    """A scale for all, for each row, or for each block."""
    n, k = of.need("weight", "F8_E4M3").shape
    shape, block = of.tensors[f"{of.module}.weight_scale"].shape, of.quantization.block
    if shape in ((), (1,), (1, 1)):
        block = n, k
    elif shape in ((n,), (n, 1)):
        block = 1, k
    elif not block[0]:
        raise ValueError(
            f"tensor '{of.module}.weight_scale' has the shape {shape}: expected one scale, or one "
            f"for each of {n} rows"
        )
    _floats(of, "weight_scale", block)
    of.drop("input_scale", "output_scale")


def _fp8(of: Packed) -> None:
    _floats(of, "weight_scale_inv", of.quantization.block)
    of.drop("input_scale", "activation_scale")


def _floats(of: Packed, leaf: str, block: tuple[int, int]) -> None:
    n, k = of.need("weight", "F8_E4M3").shape
    count = -(-n // block[0]), -(-k // block[1])
    shape = of.tensors[f"{of.module}.{leaf}"].shape
    flat = shape if math.prod(shape) == math.prod(count) and 1 in count else count
    of.need(leaf, "F32 BF16 F16", flat)
    of.found.forms[of.module] = None
    of.give(
        *("weight", FLOATS["BF16"], (n, k), ("weight", leaf)),
        lambda w, s: unpack.floats(w, s.reshape(count), block),
    )


_MARKS: dict[str, tuple[str, Callable[[Packed], None]]] = {
    AWQ: (".qweight", _awq),
    GPTQ: (".qweight", _gptq),
    GPTQ_V2: (".qweight", _gptq),
    PACKED: (".weight_packed", _packed),
    FLOAT: (".weight_scale", _float),
    FP8: (".weight_scale_inv", _fp8),
}
"""By packing: how the tensor ends that every quantised module has, and what reads the module."""
