"""Which tokens of a GGUF file end an answer, and that these are hidden: as llama.cpp has it."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from checkpoint import tiny
from nanocupy.checkpoint import convert_gguf
from nanocupy.checkpoint.gguf.file import GgufFile
from nanocupy.checkpoint.gguf.tokenizer import GgufTokenizer
from nanocupy.text import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
BYTES = tiny.byte_letters()
ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "</s>"),
    *("<|eom_id|>", "<EOT>", "_<EOT>", "< EOT >", "[EOT]", "[EOS]", "<|end_of_text|>", "<turn|>"),
    *("<end_of_utterance>", "<eos>", "<｜end▁of▁sentence｜>", "<|fim_pad|>", "<|file_sep|>"),
)


def read(path: Path, tokens: dict[str, int], **roles: int) -> GgufTokenizer:
    """The tokenizer of a file with `tokens` and their types before the bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *BYTES, "he"])
    writer.add_token_types([*tokens.values(), *[NORMAL] * 257])
    writer.add_token_merges(["h e"])
    for role, token in {"bos": 1, "eos": 0, **roles}.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", token)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return GgufTokenizer(GgufFile(path))


def start(*more: str, kind: int = CONTROL) -> dict[str, int]:
    return {"<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, **dict.fromkeys(more, kind)}


def ends_and_hidden(tokenizer: GgufTokenizer) -> tuple[set[str], set[str]]:
    """By name: the tokens that end an answer, and those that are special."""
    added = tokenizer.tokenizer_json()["added_tokens"]
    special = {token["content"] for token in added if token["special"]}
    return {tokenizer.tokens[i] for i in tokenizer.end_ids}, special


@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER_DEFINED, UNUSED])
@pytest.mark.parametrize("end", ENDS)
def test_ends_by_name_whatever_their_type(tmp_path: Path, end: str, kind: int) -> None:
    ends, hidden = ends_and_hidden(read(tmp_path / "m.gguf", start(end, kind=kind)))
    assert ends == {"<|endoftext|>", end}
    assert hidden == {"<|endoftext|>", "<|im_start|>", end}


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED])
@pytest.mark.parametrize("role", ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_ends_by_id_whatever_their_type(tmp_path: Path, role: str, kind: int) -> None:
    ends, hidden = ends_and_hidden(read(tmp_path / "m.gguf", start("<x>", kind=kind), **{role: 2}))
    assert ends == {"<|endoftext|>", "<x>"} and "<x>" in hidden


@pytest.mark.parametrize(
    "tokens, ends",
    [
        (("<|return|>", "<|call|>", "<|end|>"), {"<|return|>", "<|call|>"}),
        (("<|flush|>", "<|calls|>", "<|end|>"), {"<|flush|>", "<|calls|>"}),
        (("<|call|>", "<|end|>"), {"<|call|>", "<|end|>"}),
        (("<|tool_response>", "</s>"), {"<|tool_response>"}),
    ],
)
def test_what_ends_but_a_part_of_an_answer(
    tmp_path: Path, tokens: tuple[str, ...], ends: set[str]
) -> None:
    found, _ = ends_and_hidden(read(tmp_path / "m.gguf", start(*tokens)))
    assert found == {"<|endoftext|>", *ends}


def test_what_stands_between_parts_is_shown(tmp_path: Path) -> None:
    names = ("<|return|>", "<|call|>", "<|end|>", "<|channel|>", "<|message|>", "<|start|>")
    _, hidden = ends_and_hidden(read(tmp_path / "m.gguf", start(*names)))
    assert hidden == {"<|endoftext|>", "<|im_start|>", "<|return|>", "<|call|>"}


def test_html_strikes_out(tmp_path: Path) -> None:
    html = start("<s>", "</s>", "<table>", "</table>", kind=USER_DEFINED)
    ends, hidden = ends_and_hidden(read(tmp_path / "m.gguf", html))
    assert ends == {"<|endoftext|>"} and "</s>" not in hidden
    ends, hidden = ends_and_hidden(read(tmp_path / "n.gguf", html, eos=3))  # unless a file says so
    assert ends == {"<|endoftext|>", "</s>"} and "</s>" in hidden


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama"])
def test_the_folder_that_a_file_becomes(tmp_path: Path, tokenizer: str) -> None:
    path, at = tmp_path / "m.gguf", {"gpt2": 2, "llama": 4}[tokenizer]
    tiny.write_gguf(path, tokenizer=tokenizer, extra=[("tokenizer.ggml.eot_token_id", 20)])
    made = Tokenizer(convert_gguf(path, tmp_path / "out", progress=False))
    assert {at, 20} <= set(made.eos_ids) and made.id_of("<|im_end|>") == at
    assert made.decode([at, 20]) == "" and made.special_ids >= {at, 20}
