"""`convert`: quantise a float checkpoint into a folder of affine codes in mlx-lm's layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint import Checkpoint
from nanocupy.checkpoint.header import FLOATS
from nanocupy.checkpoint.quantization import BITS, GROUPS
from nanocupy.checkpoint.writer import Entry, new_folder, write_json, write_shards
from nanocupy.core.maths.quantized import quantize_rows
from nanocupy.files import TOKENIZER_BYTES, checked
from nanocupy.kernels.linear import dequantize
from nanocupy.models.load import match, to_quantize
from nanocupy.progress import Advance, bar
from nanocupy.utils import tree_flatten

_COPIED = (".json", ".jinja", ".model", ".txt")
_NOT_COPIED = ("config.json", "model.safetensors.index.json")


@dataclass
class Converted:
    """What was written, and its error.

    Attributes:
        quantized, kept: the numbers of weights that were quantised, and that stayed floats.
        error: the root mean square of the error, relative to the weights' own.
        exact_error: the same, if scales and biases were not rounded to the weights' dtype.
    """

    folder: Path
    bits: int
    group_size: int
    quantized: int = 0
    kept: int = 0
    _sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3), repr=False)

    @property
    def error(self) -> float:
        return float(np.sqrt(self._sums[1] / max(self._sums[0], 1e-300)))

    @property
    def exact_error(self) -> float:
        return float(np.sqrt(self._sums[2] / max(self._sums[0], 1e-300)))

    def text(self) -> str:
        """A sentence for people."""
        return (
            f"{self.quantized} weights have {self.bits} bits in groups of {self.group_size}, "
            f"{self.kept} stay floats. Codes are off by {self.error:.2%} of the weights (root mean "
            f"square); with scales and biases in float32 it would be {self.exact_error:.2%}."
        )


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    bits: int = 4,
    group_size: int = 64,
    shard_bytes: int = 5 << 30,
    progress: bool | None = None,
) -> Converted:
    """Quantise the model in the folder `source` into the folder `out`, which must not exist yet.

    Every linear layer and embedding whose inputs divide into groups is quantised, with the rounding
    of `mlx.core.quantize` and scales and biases in the dtype of its weight; other tensors stay. The
    folder appears whole or not at all.

    Raises:
        Unwritable: the system refuses what is written in `out` (an OSError).
        ValueError: bits or group_size are not supported, `source` is no folder, `out` is not
            empty, the model is not supported, or it is quantised already.
    """
    if bits not in BITS or group_size not in GROUPS or {type(bits), type(group_size)} & {float}:
        raise ValueError(
            f"bits must be one of {BITS}, group_size of {GROUPS}; got {bits} and {group_size}"
        )
    if not Path(source).is_dir():
        raise ValueError(
            f"source must be a model folder, got {os.fspath(source)!r}: checkpoint.resolve gets "
            "one of a name, convert_gguf makes one of a GGUF file"
        )
    report = Converted(Path(out), bits, group_size)
    with Checkpoint(source) as checkpoint:
        tensors = _tensors(checkpoint, report)
        entries = {n: entry for each in tensors for n, entry in each.entries().items()}
        total = sum(tensor.nbytes for tensor in tensors)
        with new_folder(report.folder) as folder, bar("Quantising", total, progress) as advance:
            _copy(checkpoint.folder, folder)
            write_json(folder / "config.json", _config(checkpoint, report))
            written = _written(tensors, report, advance)
            write_shards(folder, entries, written, {"format": "mlx"}, shard_bytes)
    return report


def _config(checkpoint: Checkpoint, report: Converted) -> dict[str, Any]:
    """config.json with the quantization, which MLX writes twice, and tying as in the files."""
    quantization = {"group_size": report.group_size, "bits": report.bits, "mode": "affine"}
    raw, tied = checkpoint.config.raw, {"tie_word_embeddings": False}
    if not checkpoint.config.tie_word_embeddings:
        raw = {**raw, **tied}
        if isinstance(inner := raw.get("text_config"), dict):
            raw["text_config"] = {**inner, **tied}
    return {**raw, "quantization": quantization, "quantization_config": quantization}


@dataclass
class _Tensor:
    """A parameter, or all experts' parameters of one name, which lie in one tensor."""

    name: str
    checkpoint: Checkpoint
    form: tuple[int, int] | None
    sources: list[str]
    stacked: bool = False

    def entries(self) -> dict[str, Entry]:
        """The tensors that are written, in order."""
        info = self.checkpoint.info(self.sources[0])
        if info.dtype not in FLOATS:
            raise ValueError(f"tensor '{info.name}' is {info.dtype}: expected {', '.join(FLOATS)}")
        stack = (len(self.sources),) if self.stacked else ()
        if self.form is None:
            return {self.name: Entry.of(info.dtype, (*stack, *info.shape))}
        (bits, group), (n, k) = self.form, info.shape
        numbers = Entry.of(info.dtype, (*stack, n, k // group))
        module = self.name.removesuffix(".weight")
        codes = Entry.of("U32", (*stack, n, k * bits // 32))
        return {self.name: codes, f"{module}.scales": numbers, f"{module}.biases": numbers}

    @property
    def nbytes(self) -> int:
        return sum(self.checkpoint.info(source).nbytes for source in self.sources)

    def values(self, report: Converted) -> list[NDArray[Any]]:
        """The values of `entries`."""
        each = [self._one(self.checkpoint.read(source), report) for source in self.sources]
        return [np.stack(parts) if self.stacked else parts[0] for parts in zip(*each, strict=True)]

    def _one(self, w: NDArray[Any], report: Converted) -> tuple[NDArray[Any], ...]:
        if self.form is None:
            report.kept += 1
            return (w,)
        bits, group = self.form
        words, *exact = quantize_rows(w, group, bits)
        rounded = [x.astype(w.dtype) for x in exact]
        report.quantized += 1
        report._sums += _errors(w, words, exact, rounded, bits)
        return words, *rounded


def _tensors(checkpoint: Checkpoint, report: Converted) -> list[_Tensor]:
    """The tensors that are written, by mlx-lm's names."""
    model, wanted = match(checkpoint)
    forms = to_quantize(checkpoint, model, (report.bits, report.group_size))
    outer = "language_model." if "text_config" in checkpoint.config.raw else ""
    found: dict[str, _Tensor] = {}
    for name, _ in tree_flatten(model.parameters()):
        before, experts, after = name.partition(".experts.")
        stack = f"{before}.switch_mlp.{after.partition('.')[2]}" if experts else name
        form = forms.get(name.removesuffix(".weight"))
        tensor = found.setdefault(
            stack, _Tensor(outer + stack, checkpoint, form, [], bool(experts))
        )
        tensor.sources.append(wanted[name])
    return list(found.values())


def _written(
    tensors: list[_Tensor], report: Converted, advance: Advance
) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor in tensors:
        yield from zip(tensor.entries(), tensor.values(report), strict=True)
        advance(tensor.nbytes)


def _errors(
    w: NDArray[Any],
    words: NDArray[np.uint32],
    exact: list[NDArray[Any]],
    rounded: list[NDArray[Any]],
    bits: int,
) -> NDArray[np.float64]:
    """Sums of squares: of the weight, of its error, of its error with unrounded scales."""
    total = np.zeros(3)
    step = max(1, (1 << 18) // w.shape[1])
    for start in range(0, len(w), step):
        rows = slice(start, start + step)
        wide = w[rows].astype(np.float32)
        for index, numbers in ((1, rounded), (2, exact)):
            scales, biases = (x[rows] for x in numbers)
            off = dequantize(words[rows], scales, biases, bits) - wide
            total[index] += float(np.square(off, dtype=np.float64).sum())
        total[0] += float(np.square(wide, dtype=np.float64).sum())
    return total


def _copy(source: Path, out: Path) -> None:
    """Copy the text files: tokenizer, chat templates, generation_config.json."""
    for path in sorted(source.glob("additional_chat_templates/*.jinja")):
        (out / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, out / path.parent.name / path.name)
    for path in sorted(source.iterdir()):
        if path.suffix in _COPIED and path.name not in _NOT_COPIED and path.is_file():
            shutil.copyfile(checked(path, TOKENIZER_BYTES), out / path.name)
