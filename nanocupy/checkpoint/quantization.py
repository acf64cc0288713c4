"""The quantization in config.json, in every supported format.

Which modules are quantised, and their groups, is found from the tensors: see
`checkpoint.affine_layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nanocupy.quoting import quoted

BITS, GROUPS = (4, 8), (32, 64, 128)
SUPPORTED = (
    "MLX's affine with 4 or 8 bits, awq (4 bits, version gemm), gptq (4 or 8 bits), "
    "compressed-tensors (pack-quantized with 4 or 8 bits, float-quantized with 8) and fp8 (e4m3)"
)
MLX, AWQ, GPTQ, GPTQ_V2, FP8 = "mlx", "awq", "gptq", "gptq_v2", "fp8"
PACKED, FLOAT = "pack-quantized", "float-quantized"
Form = tuple[int, int]


@dataclass(frozen=True)
class Quantization:
    """Affine codes in groups along the inputs: a default form, and modules that differ.

    Attributes:
        overrides: forms by the checkpoint's module names; None for floats.
        packing: "mlx", "awq", "gptq", "gptq_v2", "pack-quantized", "float-quantized" or "fp8". The
            last two are read as floats.
        block: [rows, columns] that share a scale, of floats; (0, 0) for none.
    """

    bits: int
    group_size: int
    overrides: dict[str, Form | None] = field(default_factory=dict)
    packing: str = MLX
    block: tuple[int, int] = (0, 0)

    @property
    def floats(self) -> bool:
        """Whether weights are 8-bit floats, which are read as bfloat16."""
        return self.packing in (FLOAT, FP8)

    def for_module(self, path: str) -> Form | None:
        """(bits, group_size) of a module with a quantised weight; None: it is floats."""
        return self.overrides.get(path, (self.bits, self.group_size))


def read_quantization(raw: Mapping[str, Any]) -> Quantization | None:
    """Read "quantization" (MLX's) or "quantization_config".

    Raises:
        ValueError: the format is not supported; the error names it, and those that are.
    """
    said = [found for name in ("quantization", "quantization_config") if (found := raw.get(name))]
    if not said:
        return None
    one, *others = map(_read, said)
    if any(other != one for other in others):
        raise ValueError("quantization and quantization_config differ: take one of them out")
    return one


def _read(found: Any) -> Quantization:
    if not isinstance(found, dict):
        raise ValueError(f"quantization must be an object, got {quoted(found)}")
    method = found.get("quant_method")
    if method is None:
        return _mlx(found)
    if not isinstance(method, str) or method not in _READERS:
        raise _refused(f"quantization method {quoted(method)}")
    return _READERS[method](found)


def _refused(what: str) -> ValueError:
    return ValueError(f"{what} is not supported; supported: {SUPPORTED}")


# ---- MLX


def _mlx(raw: Mapping[str, Any]) -> Quantization:
    bits, group_size = _form(raw)
    overrides = {
        path: _form({"bits": 4, "group_size": 64, **value}, f" of {quoted(path)}")
        if value
        else None
        for path, value in raw.items()
        if isinstance(value, dict) or value is False
    }
    return Quantization(bits, group_size, overrides)


def _form(raw: Mapping[str, Any], where: str = "") -> Form:
    bits, group_size, mode = raw.get("bits"), raw.get("group_size"), raw.get("mode", "affine")
    small = (bits, group_size) == (8, 16)
    if mode != "affine" or bits not in BITS or not (group_size in GROUPS or small):
        said = f"mode {quoted(mode)} with bits {quoted(bits)} in groups of {quoted(group_size)}"
        raise ValueError(
            f"quantization{where} {said} is not supported; 'affine' with 4 or 8 bits in "
            "groups of 32, 64, 128 is (8 bits: 16 too)"
        )
    return int(raw["bits"]), int(raw["group_size"])


# ---- others, whose groups are found from the tensors


def _awq(raw: Mapping[str, Any]) -> Quantization:
    bits, version = raw.get("bits", raw.get("w_bit")), raw.get("version", raw.get("format", "gemm"))
    if bits != 4 or str(version).lower() != "gemm":
        raise _refused(f"awq with {quoted(bits)} bits, version {quoted(version)}")
    if raw.get("zero_point", True) is not True:
        raise _refused("awq without zero points")
    return Quantization(4, 0, packing=AWQ)


def _gptq(raw: Mapping[str, Any]) -> Quantization:
    bits = raw.get("bits")
    if bits not in BITS:
        raise _refused(f"gptq with {quoted(bits)} bits")
    version = raw.get("checkpoint_format") or raw.get("format") or GPTQ
    if raw.get("is_marlin_format"):
        version = "marlin"
    if version not in (GPTQ, GPTQ_V2):
        raise _refused(f"gptq in checkpoint_format {quoted(version)}")
    if (words := raw.get("pack_dtype", "int32")) != "int32":
        raise _refused(f"gptq packed in {quoted(words)}")
    dynamic = raw.get("dynamic") or {}
    if not isinstance(dynamic, dict):
        raise _refused(f"gptq with dynamic {quoted(dynamic)}")
    if others := [rule for rule in dynamic if not rule.startswith("-:")]:
        raise _refused(f"gptq with other settings for {quoted(others)} (dynamic)")
    return Quantization(int(bits), 0, packing=version)


def _compressed(raw: Mapping[str, Any]) -> Quantization:
    groups = raw.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise ValueError(
            f"config_groups must be an object that holds a scheme, got {quoted(groups)}"
        )
    for part in ("sparsity_config", "transform_config"):
        what = raw.get(part) or {}
        if (
            not isinstance(what, dict)
            or what.get("format", "dense") != "dense"
            or what.get("config_groups")
        ):
            raise _refused(f"compressed-tensors with {part} {quoted(what)}")
    found = {_scheme(group, str(raw.get("format"))) for group in groups.values()}
    if len({packing for packing, _, _ in found}) > 1:
        raise _refused("compressed-tensors with integers and floats in one model")
    if len(blocks := {block for *_, block in found} - {(0, 0)}) > 1:
        raise _refused(f"compressed-tensors in blocks of {blocks}")
    packing, bits, _ = found.pop()
    return Quantization(bits, 0, packing=packing, block=next(iter(blocks), (0, 0)))


def _scheme(group: Any, outer: str) -> tuple[str, int, tuple[int, int]]:
    """(packing, bits, block) of one of config_groups."""
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise _refused(f"compressed-tensors with a scheme {quoted(group)}")
    kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
    form, activations = group.get("format") or outer, group.get("input_activations")
    if form == PACKED and kind == "int" and bits in BITS and not activations:
        return PACKED, int(bits), (0, 0)
    if form in (FLOAT, "naive-quantized") and kind == "float" and bits == 8:
        return FLOAT, 8, _block(weights.get("block_structure") or [0, 0], 0)
    met = " and quantised activations" if activations else ""
    raise _refused(
        f"compressed-tensors in format {quoted(form)} with {kind} weights of {bits} bits{met}"
    )


def _fp8(raw: Mapping[str, Any]) -> Quantization:
    block, form = raw.get("weight_block_size"), raw.get("fmt", "e4m3")
    if form != "e4m3":
        raise _refused(f"fp8 in {quoted(form)}")
    if block is None:  # AutoFP8's: one scale a matrix
        return Quantization(8, 0, packing=FLOAT)
    return Quantization(8, 0, packing=FP8, block=_block(block, 1))


def _block(sizes: Any, least: int) -> tuple[int, int]:
    """Check [rows, columns], both of at least `least`."""
    pair = isinstance(sizes, list) and len(sizes) == 2 and all(type(n) is int for n in sizes)
    if not pair or min(sizes) < least:
        raise _refused(f"8-bit floats in blocks of {quoted(sizes)}")
    return sizes[0], sizes[1]


_READERS = {"awq": _awq, "gptq": _gptq, "compressed-tensors": _compressed, "fp8": _fp8}
