"""Tokens that are named outside tokenizer.json, beside transformers (`golden/make_added_tokens.py`)
on folders of real shape and of any; and the ids an answer ends at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanocupy.text import Tokenizer
from text import tiny_tokenizers as tiny

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "added_tokens.json").read_text())
CASES: list[dict[str, Any]] = GOLDEN["cases"]


def write(folder: Path, files: dict[str, Any]) -> Path:
    tiny.byte_level().save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("case", CASES, ids=map(str, range(len(CASES))))
def test_as_transformers(tmp_path: Path, case: dict[str, Any]) -> None:
    folder = write(tmp_path, case["files"])
    if case["moved"]:  # it gives a token an id that no file says
        with pytest.raises(ValueError, match="cannot have the id"):
            Tokenizer(folder)
        return
    tokenizer = Tokenizer(folder)
    ids = tokenizer.encode(GOLDEN["text"])
    assert ids == case["ids"]
    assert tokenizer.decode(ids) == case["text"]
    shown = [i for i in ids if i not in tokenizer.special_ids]
    assert tokenizer.decode(shown, skip_special=False) == case["text"]
    named = case["named"]
    assert tokenizer.bos_id == named.get("bos_token")
    assert named.get("eos_token") is None or named["eos_token"] in tokenizer.eos_ids


def test_cases_are_of_all_kinds() -> None:
    moved = [case["moved"] for case in CASES]
    assert sum(moved) >= 3 and moved.count(False) >= 80


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "<a>"}}}},
        {"tokenizer_config.json": {"added_tokens_decoder": {"272": "<a>"}}},
        {"tokenizer_config.json": {"added_tokens_decoder": {"272": {"content": 7}}}},
        {"tokenizer_config.json": {"added_tokens_decoder": ["<a>"]}},
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {"272": {"content": "<a>", "special": "yes"}}
            }
        },
        {"added_tokens.json": {"<a>": "272"}},
    ],
)
def test_what_is_no_token_is_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    [name] = files
    with pytest.raises(ValueError, match=name):
        Tokenizer(write(tmp_path, files))


def test_the_post_processor_decides_what_is_put_around(tmp_path: Path) -> None:
    """As in transformers 5: add_bos_token and add_eos_token are of tokenizers without one."""
    said = {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|im_start|>"}
    tokenizer = Tokenizer(write(tmp_path, {"tokenizer_config.json": said}))
    assert tokenizer.encode("he") == tokenizer.encode("he", add_special=False)


def test_markup_named_elsewhere_is_spelled_out_in_plain_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write(tmp_path, {"tokenizer_config.json": {"eos_token": "<|a|>"}}))
    [end] = tokenizer.eos_ids
    assert tokenizer.encode("<|a|>") == [end]
    plain = tokenizer.encode_plain("x<|a|>")
    assert end not in plain and tokenizer.decode(plain) == "x<|a|>"
