from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Fast

from nanocupy.text import Tokenizer
from text import tiny_tokenizers as tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizer_smollm2.json"


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny.save(tiny.byte_level(), tmp_path_factory.mktemp("byte_level")))


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny.save(tiny.byte_fallback(), tmp_path_factory.mktemp("byte_fallback")))


@pytest.fixture(scope="module")
def real(real_model: Path) -> Tokenizer:
    return Tokenizer(real_model)


# --- the default model, against llama.cpp ----------------------------------------------------


def test_the_ids_of_200_hard_strings(real: Tokenizer) -> None:
    rows = json.loads(GOLDEN.read_text())
    assert len(rows) >= 200
    for row in rows:
        assert real.encode(row["text"]) == row["ids"], ascii(row["text"])
        assert real.encode_plain(row["text"]) == row["plain"], ascii(row["text"])


def test_the_default_models_ids(real: Tokenizer) -> None:
    assert (real.vocab_size, real.bos_id, real.eos_ids) == (49152, 1, (2, 0))
    assert real.encode("Hi") == real.encode("Hi", add_special=False)  # adds no BOS
    assert len(real.special_ids) == 17


@given(st.text())
def test_text_comes_back(real: Tokenizer, text: str) -> None:
    ids = real.encode_plain(text)
    spelled = b"".join(map(real.token_bytes, ids)) == text.encode()
    assert spelled == (real.decode(ids) == text)
    assert spelled or not {real.token_bytes(i) for i in range(17, 300)}.issuperset(
        bytes([byte]) for byte in text.encode()
    )  # SmolLM2's vocabulary lacks 21 bytes that hardly occur


# --- any tokenizer ---------------------------------------------------------------------------


def test_plain_text_is_never_markup(byte_level: Tokenizer) -> None:
    for token in tiny.MARKUP + tiny.OWN:
        text = f"a {token}b"
        assert byte_level.id_of(token) in byte_level.encode(text)
        plain = byte_level.encode_plain(text)
        assert byte_level.added.keys().isdisjoint(plain)
        assert byte_level.decode(plain) == text
    spaces = byte_level.id_of("    ")
    assert spaces in byte_level.encode_plain("a    b")  # a run of spaces is text, though added


@given(st.lists(st.sampled_from([*tiny.MARKUP, *tiny.OWN, "<|", "|>", "im", "_start", " ", "x"])))
@example(["<|im_start|>", " ", " ", " ", " "])  # the run of spaces must keep its own id
def test_plain_text_of_pieces(byte_level: Tokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    ids = byte_level.encode_plain(text)
    assert byte_level.added.keys().isdisjoint(ids) and byte_level.decode(ids) == text


def test_plain_text_without_markup_is_unchanged(byte_fallback: Tokenizer) -> None:
    assert byte_fallback.encode_plain("hello") == byte_fallback.encode("hello")
    plain = byte_fallback.encode_plain("a</s>b")
    assert 2 not in plain and byte_fallback.decode(plain) == "a</s>b"


def test_whole_words_are_not_markup_where_merges_are_skipped(tmp_path: Path) -> None:
    tokenizer = json.loads(tiny.byte_level().to_str())
    tokenizer["model"]["ignore_merges"] = True
    size = len(tokenizer["model"]["vocab"])
    tokenizer["model"]["vocab"]["END"] = size + 50  # as in Llama 3: in the vocabulary as well
    added = {**tokenizer["added_tokens"][0], "content": "END", "id": size + 50}
    tokenizer["added_tokens"].append(added)
    made = Tokenizer(tiny.save(Fast.from_str(json.dumps(tokenizer)), tmp_path))
    assert made.encode("END") == [size + 50]
    assert (
        size + 50 not in made.encode_plain("END") and made.decode(made.encode_plain("END")) == "END"
    )


def test_special_tokens_around(tmp_path: Path) -> None:
    raw = json.loads(tiny.byte_level().to_str())
    start = next(t["id"] for t in raw["added_tokens"] if t["content"] == "<|im_start|>")
    special = {"id": "<|im_start|>", "ids": [start], "tokens": ["<|im_start|>"]}
    sequence = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}]
    sequence.append({"Sequence": {"id": "A", "type_id": 0}})
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": sequence,
        "pair": [*sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": special},
    }
    raw["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    tokenizer = Tokenizer(tiny.save(Fast.from_str(json.dumps(raw)), tmp_path))
    assert tokenizer.encode("x" * 9)[0] == tokenizer.bos_id
    assert len(tokenizer.encode("x" * 9)) == 10  # the file's truncation is for training
    assert len(tokenizer.encode("x" * 9, add_special=False)) == 9
    assert tokenizer.encode("") == [tokenizer.bos_id]


def test_bytes_of_tokens(byte_level: Tokenizer, byte_fallback: Tokenizer) -> None:
    for tokenizer, text in ((byte_level, "hello 你好"), (byte_fallback, "hello é中文")):
        ids = tokenizer.encode(text)
        joined = b"".join(map(tokenizer.token_bytes, ids)).decode()
        assert joined.removeprefix(" ") == text
    assert byte_level.token_bytes(byte_level.encode("<think>")[0]) == b"<think>"
    assert byte_level.token_text(byte_level.encode("好")[0]) == "\ufffd"
    assert byte_level.token_bytes(10**6) == b""


def test_decoding(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("<|im_start|>hello<|im_end|>")
    assert byte_level.decode(ids) == "hello"
    assert byte_level.decode(ids, skip_special=False) == "<|im_start|>hello<|im_end|>"
    assert byte_level.decode([10**6, *ids]) == "hello"
    assert byte_level.decode([]) == ""


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", None, 7, b"x"])
def test_what_is_no_text_is_a_value_error(byte_level: Tokenizer, text: str) -> None:
    for encode in (byte_level.encode, byte_level.encode_plain, byte_level.encode_spans):
        with pytest.raises(ValueError, match=r"surrogate|must be a str"):
            encode(text)


@pytest.mark.parametrize("token", [-1, 2**32, 2**64])
def test_ids_that_cannot_be_are_value_errors(byte_level: Tokenizer, token: int) -> None:
    with pytest.raises(ValueError, match="token ids are from 0"):
        byte_level.decode([1, token])
    with pytest.raises(ValueError, match="token ids are from 0"):
        byte_level.token_bytes(token)


def test_an_answer_ends_where_any_file_says(tmp_path: Path) -> None:
    folder = tiny.save(tiny.byte_level(), tmp_path)
    named, other = (Tokenizer(folder).id_of(text) for text in ("<|im_end|>", "<|end|>"))
    assert Tokenizer(folder).eos_ids == (named,)
    (folder / "config.json").write_text('{"eos_token_id": 7, "text_config": {"eos_token_id": 8}}')
    assert Tokenizer(folder).eos_ids == (7, 8, named)
    (folder / "generation_config.json").write_text('{"eos_token_id": [9, 7, 9]}')
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|end|>"}}')
    assert set(Tokenizer(folder).eos_ids) == {9, 7, 8, named, other}


@pytest.mark.parametrize("said", ["true", '"</s>"', "[1, null]", "2.0", "{}"])
def test_ends_that_are_no_ids_are_refused(tmp_path: Path, said: str) -> None:
    folder = tiny.save(tiny.byte_level(), tmp_path)
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {said}}}')
    with pytest.raises(ValueError, match=r"generation_config.json: eos_token_id must be"):
        Tokenizer(folder).eos_ids  # noqa: B018


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Tokenizer(tmp_path)
    for text in ("", "{}", '{"model": {"type": "BPE"}}'):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match="not a tokenizer"):
            Tokenizer(tmp_path)


def test_a_letter_that_is_an_added_token_is_not_lost(tmp_path: Path) -> None:
    fast = tiny.byte_level()
    fast.add_special_tokens([AddedToken("o", normalized=False)])
    tokenizer = Tokenizer(tiny.save(fast, tmp_path))
    assert tokenizer.decode(tokenizer.encode_plain("h<|end|>e"), skip_special=False) == "h<|end|>e"
    with pytest.raises(ValueError, match="one of them is a letter"):
        tokenizer.encode_plain("hello")
