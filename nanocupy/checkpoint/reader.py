"""Checkpoint: the weights of a model folder, mapped, never copied on opening."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanocupy.checkpoint.affine_layout import Derived, as_affine
from nanocupy.checkpoint.config import ModelConfig, load_config
from nanocupy.checkpoint.header import DTYPES, TensorInfo, read_header
from nanocupy.files import checked, is_there, read_json
from nanocupy.quoting import listed, quoted

INDEX = "model.safetensors.index.json"
ADAPTERS = (
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    *("adapters.safetensors", "adapters.npz"),
)
"""The files of an adapter of peft or mlx-lm that is not merged into the weights."""
MOST_WEIGHTS = 1 << 63  # bytes: mapped files need no bound


class Checkpoint:
    """Every tensor of a Hugging Face folder: one safetensors file, or shards with an index.

    Opening reads and checks the headers only; `read` gives views of the mapped files. Weights in
    other programs' quantised layouts are shown in the affine layout (`checkpoint.affine_layout`),
    and `config.quantization` has the form of each module. Raises ValueError, naming the file and
    what is wrong with it.

    Args:
        custom_model: see `load_config`. Weights of all experts in one tensor stay in it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, custom_model: bool = False) -> None:
        self.folder = Path(folder)
        self.config: ModelConfig = load_config(self.folder, custom_model=custom_model)
        self._maps: dict[Path, mmap.mmap] = {}
        self._tensors: dict[str, TensorInfo] = {}
        self._derived: dict[str, Derived] = {}
        try:
            for path in weight_files(self.folder):
                self._open(path)
            self._check_index()
            _refuse_adapter(self.folder)
            self._derived = self._as_affine(stacked=custom_model)
            self.config = self._with_own_head()
            if inside := sorted(self.folder.glob("*/adapter_config.json")):
                note = f"the adapter in {inside[0].parent} is not applied"
                self.config = replace(self.config, notes=(*self.config.notes, note))
        except BaseException:
            self.close()
            raise

    def names(self) -> list[str]:
        """The names of all tensors, in the order of the files."""
        return list(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def info(self, name: str) -> TensorInfo:
        """The dtype, shape and place of a tensor; ValueError if there is none of that name."""
        if name not in self._tensors:
            raise ValueError(f"{self.folder} has no tensor '{name}'")
        return self._tensors[name]

    def read(self, name: str) -> NDArray[Any]:
        """The tensor as a read-only array over the mapped file; BF16 as bfloat16.

        Its pages are in this process's memory only while the array is alive. A derived tensor is
        computed at each call.
        """
        return self.reader(name)()

    def reader(self, name: str) -> Callable[[], NDArray[Any]]:
        """A function that reads the tensor, also after `close`."""
        if derived := self._derived.get(name):
            sources = [self._map(self._files[source]) for source in derived.sources]
            return lambda: derived.make(*sources)
        mapped = self._map(self.info(name))
        return lambda: mapped

    def is_derived(self, name: str) -> bool:
        """Whether a tensor is converted from others, so that reading it takes time and memory."""
        return name in self._derived

    def _map(self, info: TensorInfo) -> NDArray[Any]:
        if info.dtype not in DTYPES:
            raise ValueError(
                f"tensor '{info.name}' has dtype {info.dtype}, which is not read; "
                f"supported are {', '.join(DTYPES)}"
            )
        if info.file not in self._maps:
            raise ValueError(f"the checkpoint {self.folder} is closed")
        dtype, file = DTYPES[info.dtype], self._maps[info.file]
        view: NDArray[Any] = np.ndarray(info.shape, dtype, file, info.offset)
        weakref.finalize(view, _release_pages, file, info.offset, info.nbytes)
        if not view.flags.aligned:  # kernels load whole elements: give them an aligned copy
            view = view.copy()
            view.flags.writeable = False
        return view

    def _as_affine(self, stacked: bool) -> dict[str, Derived]:
        """Show quantised tensors in the affine layout; return those that are derived."""
        self._files = self._tensors
        quantization = self.config.quantization
        try:
            found = as_affine(
                quantization, self._files, lambda name: self._map(self._files[name]), stacked
            )
        except ValueError as error:
            raise ValueError(f"{self.folder}: {error}") from None
        kept = {n: info for n, info in self._files.items() if n not in found.replaced}
        made = {name: derived.info for name, derived in found.derived.items()}
        if twice := kept.keys() & (made.keys() | found.parts.keys()):
            raise ValueError(f"{self.folder} holds {listed(sorted(twice))} in two layouts")
        self._tensors = kept | found.parts | made
        if quantization and found.forms:
            overrides = {**quantization.overrides, **found.forms}
            self.config = replace(
                self.config, quantization=replace(quantization, overrides=overrides)
            )
        return found.derived

    def _with_own_head(self) -> ModelConfig:
        """The configuration, where a head in the files that is not the embedding wins over tied
        weights, as in transformers."""
        if not self.config.tie_word_embeddings:
            return self.config
        head, embedding = self._module("lm_head"), self._module("embed_tokens")
        alike = head.keys() == embedding.keys() and all(
            _same(self.read(name), self.read(embedding[leaf])) for leaf, name in head.items()
        )
        if not head or alike:
            return self.config
        note = "lm_head is another matrix than the embedding, and taken: weights are not tied"
        return replace(self.config, tie_word_embeddings=False, notes=(*self.config.notes, note))

    def _module(self, name: str) -> dict[str, str]:
        """The tensors of the module with this last name, by their own last names."""
        of = ((tensor, tensor.split(".")) for tensor in self._tensors)
        return {parts[-1]: tensor for tensor, parts in of if parts[-2:-1] == [name]}

    def account(self, expected: Mapping[str, Sequence[int]]) -> None:
        """Raise one ValueError that names missing, unexpected and misshapen tensors: the first of
        each, and the number of others."""
        missing = [f"missing {n} {tuple(s)}" for n, s in expected.items() if n not in self]
        unexpected = [
            f"unexpected {info.name} {info.dtype} {info.shape}"
            for info in self._tensors.values()
            if info.name not in expected
        ]
        misshapen = [
            f"misshapen {info.name}: {info.shape}, expected {tuple(expected[info.name])}"
            for info in self._tensors.values()
            if info.name in expected and info.shape != tuple(expected[info.name])
        ]
        if wrong := [kind for kind in (missing, unexpected, misshapen) if kind]:
            raise ValueError(
                f"{self.folder} does not hold the tensors of a {self.config.model_type} with its "
                "config.json:\n  " + "\n  ".join(listed(kind, "\n  ") for kind in wrong)
            )

    def close(self) -> None:
        """Close the files. Arrays from `read` stay valid: each keeps its mapping alive."""
        self._maps.clear()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self, path: Path) -> None:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            tensors = read_header(path, file, size)
            self._maps[path] = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        if twice := self._tensors.keys() & tensors.keys():
            raise ValueError(f"{self.folder}: two shards hold {listed(sorted(twice))}")
        self._tensors |= tensors

    def _check_index(self) -> None:
        """Check that every tensor of the index is in the shard it names."""
        if (self.folder / "model.safetensors") in self._maps:
            return
        weight_map = _weight_map(self.folder) if (self.folder / INDEX).is_file() else {}
        wrong = [
            f"{name} in {file}"
            for name, file in weight_map.items()
            if name not in self._tensors or self._tensors[name].file.name != file
        ]
        if wrong:
            raise ValueError(f"{self.folder / INDEX} names what is not there: {listed(wrong)}")


def _refuse_adapter(folder: Path) -> None:
    """Refuse an adapter beside the weights, which transformers would apply."""
    if found := [name for name in ADAPTERS if is_there(folder / name)]:
        raise ValueError(
            f"{folder} holds an adapter beside the weights ({', '.join(found)}), and adapters are "
            "not applied here: merge it into the weights (merge_and_unload of peft, mlx_lm.fuse); "
            "or, if they have it already, take these files out of the folder"
        )


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal to the bit, read a part at a time."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    rows = max(1, (1 << 24) // max(1, a[:1].nbytes))
    return all(
        a[at : at + rows].tobytes() == b[at : at + rows].tobytes() for at in range(0, len(a), rows)
    )


def _release_pages(file: mmap.mmap, start: int, nbytes: int) -> None:
    """Release a tensor's pages; another read loads them again."""
    first, last = start // mmap.PAGESIZE, (start + nbytes) // mmap.PAGESIZE
    if last > first and hasattr(file, "madvise"):  # Windows has no such call
        file.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; ValueError if they are ambiguous or not safe."""
    if (folder / "model.safetensors").exists():
        names = ["model.safetensors"]
    elif (folder / INDEX).is_file():
        names = list(dict.fromkeys(_weight_map(folder).values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
        if len(names) != 1:
            raise ValueError(
                f"{folder} holds {len(names)} .safetensors files and no {INDEX} that says "
                f"which to read"
            )
    return [checked(folder / name, MOST_WEIGHTS) for name in names]


def _weight_map(folder: Path) -> dict[str, str]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{folder / INDEX} has no weight_map")
    for file in weight_map.values():
        plain = isinstance(file, str) and not set(file) & set("/\\:\0")
        if not plain or not file.endswith(".safetensors"):
            raise ValueError(
                f"{folder / INDEX} names the file {quoted(file)}; shards are plain names of "
                f".safetensors files in the same folder"
            )
    return weight_map
