from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from checkpoint import pre_tokenizer_cases as cases
from checkpoint import tiny
from nanocupy.checkpoint import convert_gguf
from nanocupy.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "pre_tokenizers.json").read_text())


def differs_in_llama_cpp(name: str, text: str) -> bool:
    """Where llama.cpp only comes near the model's own tokenizer.json, which we follow."""
    if name in ("tekken", "gpt-4o"):  # its rule for letters leaves marks out
        return any(unicodedata.category(letter).startswith("M") for letter in text)
    return name == "qwen2" and not unicodedata.is_normalized("NFC", text)  # no normalisation


@pytest.mark.parametrize("name", GOLDEN)
def test_texts_are_split_as_llama_cpp_does(tmp_path: Path, name: str) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", **cases.options(name))
    folder = convert_gguf(tmp_path / "m.gguf", tmp_path / "out", progress=False)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, ids in zip(cases.TEXTS, GOLDEN[name], strict=True):
        if not differs_in_llama_cpp(name, text):
            assert tokenizer.encode(text).ids == ids, ascii(text)


def test_the_splits_differ_so_the_test_can_tell_them_apart() -> None:
    groups = {json.dumps(ids) for ids in GOLDEN.values()}
    assert GOLDEN.keys() == {*PRE_TOKENIZERS, "spm", "spm_bare"} and len(groups) == 9
