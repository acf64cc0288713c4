"""Other programs' quantised weights, shown in the affine layout that is run: see `kernels.linear`.

A module's qweight, qzeros, scales, ... become its weight, scales and biases, and where inputs were
sorted by their groups (act-order) also `order`, the input that each column is for. The weights of
all experts in one tensor become each expert's. Values are computed when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint import unpack_weights as unpack
from nanocupy.checkpoint.header import FLOATS, NAMES, TensorInfo
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
_KV_SCALES = (".k_scale", ".v_scale")  # for a cache in 8 bits, which has scales of its own here
_STACK = ".switch_mlp."  # mlx-lm's module of all experts' weights


class Derived(NamedTuple):
    """A tensor computed from others: `make(*sources)`, read-only arrays, returns its value."""

    info: TensorInfo
    sources: tuple[str, ...]
    make: Callable[..., NDArray[Any]]


@dataclass
class AffineTensors:
    """
    Attributes:
        parts: tensors that lie inside others, by name.
        derived: tensors that are computed from others, by name.
        replaced: tensors of the files that are not shown any more.
        forms: (bits, group_size) of quantised modules; None for one that is floats now.
    """

    parts: dict[str, TensorInfo] = field(default_factory=dict)
    derived: dict[str, Derived] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)
    forms: dict[str, Form | None] = field(default_factory=dict)


def as_affine(
    quantization: Quantization | None, tensors: Tensors, read: Read, stacked: bool = False
) -> AffineTensors:
    """Find the quantised modules among a checkpoint's tensors, and convert them.

    Args:
        stacked: keep the weights of all experts in one tensor.

    Raises:
        ValueError: a module's tensors do not fit each other, or its groups are not supported.
    """
    found = AffineTensors()
    if not stacked:
        _unstack(found, quantization, tensors)
    if quantization and quantization.packing in _PACKINGS:
        found.replaced |= {name for name in tensors if name.endswith(_KV_SCALES)}
        suffix, convert = _PACKINGS[quantization.packing]
        for name in tensors:
            if name.endswith(suffix):
                module = name.removesuffix(suffix)
                convert(PackedModule(found, quantization, module, tensors, read))
    return found


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
            offset = info.offset + expert * size
            found.parts[ours] = TensorInfo(
                ours, info.dtype, info.shape[1:], size, info.file, offset
            )
            if quantization and name.endswith(".scales"):
                form = quantization.for_module(name.removesuffix(".scales"))
                found.forms[ours.removesuffix(".scales")] = form


@dataclass
class PackedModule:
    """A quantised module: its tensors in the files, and the conversion of them."""

    found: AffineTensors
    quantization: Quantization
    module: str
    tensors: Tensors
    read: Read

    def has(self, leaf: str) -> bool:
        return f"{self.module}.{leaf}" in self.tensors

    def value(self, leaf: str) -> NDArray[Any]:
        return self.read(f"{self.module}.{leaf}")

    def shape(self, leaf: str) -> tuple[int, ...]:
        return self.tensors[f"{self.module}.{leaf}"].shape

    def require(self, leaf: str, dtypes: str, shape: tuple[int, ...] | None = None) -> TensorInfo:
        """Return a tensor of the module, and mark it as replaced.

        Args:
            dtypes: those it may have, as "F16 BF16".
            shape: its shape. None: it has two dimensions.

        Raises:
            ValueError: it is missing, or of another dtype or shape.
        """
        name = f"{self.module}.{leaf}"
        if name not in self.tensors:
            raise ValueError(f"tensor '{name}' is missing")
        info = self.tensors[name]
        matrix = len(info.shape) == 2 and all(info.shape)
        fits = matrix if shape is None else info.shape == shape
        if info.dtype not in dtypes.split() or not fits:
            expected = "two dimensions" if shape is None else shape
            raise ValueError(
                f"tensor '{name}' is {info.dtype} {info.shape}: expected {dtypes} and {expected}"
            )
        self.found.replaced.add(name)
        return info

    def ignore(self, *leaves: str) -> None:
        self.found.replaced |= {f"{self.module}.{leaf}" for leaf in leaves if self.has(leaf)}

    def add(
        self,
        leaf: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        sources: tuple[str, ...],
        make: Callable[..., NDArray[Any]],
    ) -> None:
        """Add a tensor to the module, computed from its tensors `sources`."""
        name, names = f"{self.module}.{leaf}", tuple(f"{self.module}.{s}" for s in sources)
        first = self.tensors[names[0]]
        nbytes = math.prod(shape) * dtype.itemsize
        info = TensorInfo(name, NAMES[dtype], shape, nbytes, first.file, first.offset)
        self.found.derived[name] = Derived(info, names, make)

    def add_weight(
        self, shape: tuple[int, int], leaf: str, make: Callable[..., NDArray[Any]]
    ) -> None:
        self.add("weight", np.dtype(np.uint32), shape, (leaf,), make)

    def groups(self, n: int, k: int, bits: int, count: int) -> tuple[tuple[int, int], int]:
        """Return the shape of the scales of `count` groups of k inputs, and how often each scale is
        repeated."""
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
        """Return the inputs sorted by their groups, and add `order`. None: they are sorted."""
        if not self.has(leaf):
            return None
        self.require(leaf, "I32", (k,))
        groups = self.value(leaf)
        known = (groups >= 0).all() and (groups < count).all()
        if not known or (np.bincount(groups, minlength=count) != k // count).any():
            raise ValueError(
                f"tensor '{self.module}.{leaf}' must put {k} inputs into {count} equal groups"
            )
        order = np.argsort(groups, kind="stable").astype(np.int32)
        if np.array_equal(order, np.arange(k)):
            return None
        self.add("order", np.dtype(np.int32), (k,), (leaf,), lambda _: order)
        return order

    def add_scales_and_biases(
        self,
        scales: TensorInfo,
        shape: tuple[int, int],
        times: int,
        zeros: tuple[str, Callable[[NDArray[Any]], NDArray[Any]]],
        transposed: bool,
    ) -> None:
        """Add scales, and the biases -zero * scale.

        Biases of zero points 2^(bits-1) are exact in the scales' dtype; others are float32.

        Args:
            times: how often each scale is repeated.
            zeros: the tensor of zero points, "" for none, and what unpacks them to [n, groups].
            transposed: whether scales are [groups, n].
        """
        leaf, unpacked = zeros
        dtype, name = FLOATS[scales.dtype], scales.name.rpartition(".")[2]
        form = self.found.forms[self.module]
        assert form is not None
        middle = 1 << (form[0] - 1)

        def repeated(numbers: NDArray[Any]) -> NDArray[Any]:
            return unpack.repeat_groups(numbers.T if transposed else numbers, times)

        def biases(scales: NDArray[Any], zeros: NDArray[Any]) -> NDArray[Any]:
            points = unpack.repeat_groups(unpacked(zeros), times)
            return unpack.biases(repeated(scales), points, np.dtype(np.float32))

        def middle_biases(scales: NDArray[Any]) -> NDArray[Any]:
            return unpack.biases(repeated(scales), middle, dtype)

        self.add("scales", dtype, shape, (name,), repeated)
        if not leaf or (unpacked(self.value(leaf)) == middle).all():
            self.add("biases", dtype, shape, (name,), middle_biases)
        else:
            self.add("biases", np.dtype(np.float32), shape, (name, leaf), biases)

    def add_floats(self, leaf: str, block: tuple[int, int]) -> None:
        """Add the bfloat16 weight of an fp8 weight with a scale for each block."""
        n, k = self.require("weight", "F8_E4M3").shape
        count = -(-n // block[0]), -(-k // block[1])
        shape = self.shape(leaf)
        flat = shape if math.prod(shape) == math.prod(count) and 1 in count else count
        self.require(leaf, "F32 BF16 F16", flat)
        self.found.forms[self.module] = None

        def weight(w: NDArray[Any], scales: NDArray[Any]) -> NDArray[Any]:
            return unpack.floats(w, scales.reshape(count), block)

        self.add("weight", FLOATS["BF16"], (n, k), ("weight", leaf), weight)


# ---- packings


def _awq(of: PackedModule) -> None:
    k, words = of.require("qweight", "I32").shape
    n, count = 8 * words, of.require("scales", "F16 BF16 F32").shape[0]
    scales = of.require("scales", "F16 BF16 F32", (count, n))
    of.require("qzeros", "I32", (count, words))
    shape, times = of.groups(n, k, 4, count)
    of.add_weight((n, k // 8), "qweight", unpack.awq_weight)
    zeros = "qzeros", lambda z: unpack.awq_codes(z).T
    of.add_scales_and_biases(scales, shape, times, zeros, True)


def _gptq(of: PackedModule) -> None:
    bits, version = of.quantization.bits, 1 if of.quantization.packing == GPTQ else 2
    words, n = of.require("qweight", "I32").shape
    k, count = words * 32 // bits, of.require("scales", "F16 BF16 F32").shape[0]
    scales = of.require("scales", "F16 BF16 F32", (count, n))
    of.require("qzeros", "I32", (count, n * bits // 32))
    shape, times = of.groups(n, k, bits, count)
    order = of.order("g_idx", k, count)
    of.add_weight((n, words), "qweight", lambda w: unpack.gptq_weight(w, bits, order))
    zeros = "qzeros", lambda z: unpack.gptq_zeros(z, bits, version)
    of.add_scales_and_biases(scales, shape, times, zeros, True)


def _pack_quantized(of: PackedModule) -> None:
    of.require("weight_shape", "I64 I32", (2,))
    n, k = (int(size) for size in of.value("weight_shape"))
    words = of.require("weight_packed", "I32").shape[1]
    bits = words * 32 // k if k > 0 else 0
    of.require("weight_packed", "I32", (n, k * bits // 32))
    count = of.require("weight_scale", "F16 BF16 F32").shape[1]
    scales = of.require("weight_scale", "F16 BF16 F32", (n, count))
    shape, times = of.groups(n, k, bits, count)
    order = of.order("weight_g_idx", k, count)
    of.add_weight((n, words), "weight_packed", lambda w: unpack.reordered(w, bits, order))
    zeros = "weight_zero_point" if of.has("weight_zero_point") else ""
    if zeros and of.tensors[f"{of.module}.{zeros}"].dtype == "I8":  # written by early versions
        of.require(zeros, "I8", (n, count))
    elif zeros:
        of.require(zeros, "I32", (-(-n * bits // 32), count))
    unpacked = zeros, lambda z: unpack.compressed_zeros(z, bits, n)
    of.add_scales_and_biases(scales, shape, times, unpacked, False)
    of.ignore("input_scale", "output_scale")


def _float_quantized(of: PackedModule) -> None:
    """One scale, or one for each row or each block."""
    n, k = of.require("weight", "F8_E4M3").shape
    shape, block = of.shape("weight_scale"), of.quantization.block
    if shape in ((), (1,), (1, 1)):
        block = n, k
    elif shape in ((n,), (n, 1)):
        block = 1, k
    elif not block[0]:
        raise ValueError(
            f"tensor '{of.module}.weight_scale' has the shape {shape}: expected one scale, or one "
            f"for each of {n} rows"
        )
    of.add_floats("weight_scale", block)
    of.ignore("input_scale", "output_scale")


def _fp8(of: PackedModule) -> None:
    of.add_floats("weight_scale_inv", of.quantization.block)
    of.ignore("input_scale", "activation_scale")


_PACKINGS: dict[str, tuple[str, Callable[[PackedModule], None]]] = {
    AWQ: (".qweight", _awq),
    GPTQ: (".qweight", _gptq),
    GPTQ_V2: (".qweight", _gptq),
    PACKED: (".weight_packed", _pack_quantized),
    FLOAT: (".weight_scale", _float_quantized),
    FP8: (".weight_scale_inv", _fp8),
}
"""By packing: the suffix of a tensor that every quantised module has, and the conversion."""
