from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocupy.text import Detokenizer, Tokenizer
from text import tiny_tokenizers as tiny

TEXTS = [
    "👨‍👩‍👧‍👦 ok",
    "你好，世界",
    "e\u0301 a\u0300\u0301",
    "🇩🇪🏴\U000e0067\U000e007f",
    "naïve  x\n\n",
    "a<think>b",
]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny.save(tiny.byte_level(), tmp_path_factory.mktemp("byte_level")))


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(tiny.save(tiny.byte_fallback(), tmp_path_factory.mktemp("byte_fallback")))


@pytest.fixture(scope="module")
def real(real_model: Path) -> Tokenizer:
    return Tokenizer(real_model)


def pieces(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    """What a detokenizer gives for `ids`, the end last."""
    detokenizer = Detokenizer(tokenizer, prompt or [])
    return [*(detokenizer.feed(i) for i in ids), detokenizer.finish()]


@given(st.lists(st.integers(0, 290)), st.lists(st.integers(0, 270), max_size=5))
def test_any_tokens_join_to_the_decoded_whole(
    byte_level: Tokenizer, ids: list[int], prompt: list[int]
) -> None:
    assert "".join(pieces(byte_level, ids, prompt)) == byte_level.decode(ids)


@given(st.text(), st.text(alphabet="hel o<>é中", max_size=8))
def test_byte_fallback_adds_to_the_prompt(byte_fallback: Tokenizer, text: str, prompt: str) -> None:
    before = byte_fallback.encode(prompt)
    ids = byte_fallback.encode(text)
    whole = byte_fallback.decode(before + ids)
    given_out = "".join(pieces(byte_fallback, ids, before))
    assert byte_fallback.decode(before) + given_out == whole or not before


@pytest.mark.parametrize("text", TEXTS)
def test_no_piece_holds_half_a_character(
    byte_level: Tokenizer, byte_fallback: Tokenizer, text: str
) -> None:
    for tokenizer in (byte_level, byte_fallback):
        ids = tokenizer.encode(text)
        given_out = pieces(tokenizer, ids)
        assert "".join(given_out) == text and given_out[-1] == ""
        assert not any("\ufffd" in piece for piece in given_out)


def test_a_cut_character_shows_at_the_end(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("a好")
    assert pieces(byte_level, ids[:-1]) == ["a", "", "", "\ufffd"]


def test_a_prompt_that_ends_inside_a_character_does_not_leak(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("好x")
    given_out = "".join(pieces(byte_level, ids[2:], ids[:2]))
    assert given_out == byte_level.decode(ids[2:]) == "\ufffdx"


def test_special_tokens_have_no_text(byte_level: Tokenizer) -> None:
    ids = byte_level.encode("h<|im_start|>e<think><|im_end|>")
    assert "".join(pieces(byte_level, ids)) == "he<think>"


def test_errors_are_value_errors_of_one_detokenizer(
    byte_level: Tokenizer, byte_fallback: Tokenizer
) -> None:
    for tokenizer in (byte_level, byte_fallback):
        with pytest.raises(ValueError, match="token ids"):
            Detokenizer(tokenizer).feed(-1)
        assert Detokenizer(tokenizer).feed(10**6) == ""  # padding of the embedding: no text


def test_bytes_that_never_make_a_character_are_not_held_for_ever(byte_fallback: Tokenizer) -> None:
    broken = [3 + 0x80] * 100
    given_out = pieces(byte_fallback, broken)
    assert all(len(piece) <= 32 for piece in given_out) and "".join(given_out).count("\ufffd") >= 90


@given(st.lists(st.integers(0, 49151), max_size=30))
def test_the_default_model(real: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces(real, ids)) == real.decode(ids)
