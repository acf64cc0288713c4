"""`convert_gguf`: convert a GGUF file to an ordinary Hugging Face folder, without loss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nanocupy.checkpoint.gguf.file import GgufFile
from nanocupy.checkpoint.gguf.model import GgufModel
from nanocupy.checkpoint.gguf.tokenizer import GgufTokenizer
from nanocupy.checkpoint.writer import new_folder, write_json, write_safetensors
from nanocupy.progress import Advance, bar


def convert_gguf(
    src: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: bool | None = None
) -> Path:
    """Write the model in the GGUF file `src` as the folder `out`, which must not exist yet.

    Weights keep their values: quantised blocks become affine groups of 4 or 8 bits (see
    `gguf.blocks`), F32, F16 and BF16 stay. The folder appears whole or not at all. Raises
    ValueError, before anything is written, naming what is not supported.
    """
    src, out = Path(src), Path(out)
    gguf = GgufFile(src)
    model, tokenizer = GgufModel(gguf), GgufTokenizer(gguf)
    with new_folder(out) as partial:
        _write(partial, model, tokenizer, progress)
    return out


def _write(folder: Path, model: GgufModel, tokenizer: GgufTokenizer, progress: bool | None) -> None:
    config = model.config()
    ends = tokenizer.end_ids
    if len(tokenizer.tokens) > config["vocab_size"]:
        raise ValueError(
            f"{len(tokenizer.tokens)} tokens, but the embedding has {config['vocab_size']} rows"
        )
    ids: dict[str, Any] = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": tokenizer.pad,
    }
    ids = {name: value for name, value in ids.items() if value not in (None, [])}
    write_json(folder / "config.json", {**config, **ids})
    write_json(folder / "generation_config.json", ids)
    write_json(folder / "tokenizer.json", tokenizer.tokenizer_json(), indent=None)
    settings = tokenizer.tokenizer_config()
    write_json(folder / "tokenizer_config.json", settings)
    roles = {role: token for role, token in settings.items() if role.endswith("_token")}
    write_json(folder / "special_tokens_map.json", roles)
    for name, source in tokenizer.chat_templates.items():
        path = folder / "chat_template.jinja"
        if name != "default":
            path = folder / "additional_chat_templates" / f"{name}.jinja"
            path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.encode())
    entries = model.entries()
    total = sum(entry.nbytes for entry in entries.values())
    with bar("Converting", total, progress) as advance:
        tensors = _counted(model.tensors(), advance)
        write_safetensors(folder / "model.safetensors", entries, tensors, {"format": "mlx"})


def _counted(
    tensors: Iterator[tuple[str, NDArray[Any]]], advance: Advance
) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, array in tensors:
        yield name, array
        advance(array.nbytes)
