"""Long texts: how many tokens there are at least, and pieces that have the tokens of the whole."""

from __future__ import annotations

import json
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Fast

from nanocupy.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS
from nanocupy.text import Tokenizer, TooLongError
from nanocupy.text import chunks as chunks_module
from nanocupy.text import plain_tokenizer as plain_module
from nanocupy.text.chunks import split_text
from nanocupy.text.plain_tokenizer import PlainTokenizer, with_hidden_markup, without_markup
from text import tiny_tokenizers as tiny

WORDS = (
    *(
        "the",
        "hello",
        "he",
        "Hell",
        "a",
        "x",
        "ä",
        "你好",
        "。你",
        "、か",
        "12",
        "3",
        " ",
        "  ",
        "\n",
    ),
    *(
        "\n\n",
        " \n",
        "<|im_start|>",
        "<think>",
        "'s",
        "e\u0301",
        ".",
        ",",
        "-",
        "\t",
        "é中",
        "    ",
    ),
)
texts = st.lists(st.sampled_from(WORDS), max_size=60).map("".join) | st.text(max_size=80)


PLAIN: dict[Any, PlainTokenizer] = {}  # those that have been made


def changed(change: Callable[[Fast], None], made: Fast | None = None) -> Fast:
    made = made or tiny.byte_level()
    change(made)
    return made


def without(letters: str) -> Fast:
    """The byte-level one without some bytes, which then have no token."""
    raw = json.loads(tiny.byte_level().to_str())
    vocab = raw["model"]["vocab"]
    left = [token for token in sorted(vocab, key=vocab.__getitem__) if token not in letters]
    raw["model"]["vocab"] = {token: i for i, token in enumerate(left)}
    for i, token in enumerate(raw["added_tokens"]):
        token["id"] = len(left) + i
    return Fast.from_str(json.dumps(raw))


def composing(made: Fast) -> None:
    made.normalizer = normalizers.NFC()


def stripping(made: Fast) -> None:
    made.add_special_tokens(
        [AddedToken("<|im_start|>", lstrip=True, rstrip=True, normalized=False)]
    )


def metaspace(made: Fast) -> None:
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)


def prefixed(made: Fast) -> None:
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


BOUND: dict[str, Callable[[], Fast]] = {
    "byte-level": tiny.byte_level,
    "NFC": lambda: changed(composing),
    "lost bytes": lambda: without("Ā!ñ"),  # NUL, "!" and 0xF1
    "byte fallback": tiny.byte_fallback,
    "stripping": lambda: changed(stripping),
    "prefixed": lambda: changed(prefixed),
    "metaspace": lambda: changed(metaspace, tiny.byte_fallback()),
}


def unbounded(change: Callable[[Any], None]) -> Callable[[], Fast]:
    return lambda: changed(change)


UNBOUND: dict[str, Callable[[], Fast]] = {
    "strip": unbounded(lambda t: setattr(t, "normalizer", normalizers.Strip())),
    "accents": unbounded(lambda t: setattr(t, "normalizer", normalizers.StripAccents())),
    "replace": unbounded(lambda t: setattr(t, "normalizer", normalizers.Replace("aa", ""))),
    "removed": unbounded(lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.WhitespaceSplit())),
    "lost": lambda: without("¤"),
}


def load(fast: Fast, folder: Path) -> Tokenizer:
    return Tokenizer(tiny.save(fast, folder))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """All of the above, and one for each splitting rule that is known by name."""
    made = {name: make() for name, make in (BOUND | UNBOUND).items()}
    for name, rule in PRE_TOKENIZERS.items():
        raw = json.loads(tiny.byte_level().to_str())
        raw |= {"pre_tokenizer": rule.rule, "normalizer": rule.normalizer}
        made[name] = Fast.from_str(json.dumps(raw))
    folder = tmp_path_factory.mktemp("long")
    return {name: load(fast, folder / name) for name, fast in made.items()}


# --- how many tokens at least ----------------------------------------------------------------


@given(texts)
@example("\0\0\0!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")
@example("<|im_start|>" + " " * 500)
@example("U\u0308\u0304" * 60)
@example("a" * 500)
@example("\U00040000" * 50)
def test_no_text_has_fewer_tokens(tokenizers: dict[str, Tokenizer], text: str) -> None:
    for name, tokenizer in tokenizers.items():
        assert tokenizer._bound(text) <= len(tokenizer.encode(text, add_special=False)), name


def test_where_a_bound_is_known(tokenizers: dict[str, Tokenizer]) -> None:
    text = "hello " * 1000
    for name, tokenizer in tokenizers.items():
        assert (tokenizer._bound(text) >= 200) == (name not in UNBOUND), name
    stripping = tokenizers["stripping"]
    assert stripping._bound(text) and not stripping._bound(text + "<|im_start|>")


# --- pieces ----------------------------------------------------------------------------------


def same(ours: Any, theirs: Any) -> bool:
    """`==`, of what is too long to be shown."""
    return bool(ours == theirs)


def joined(tokenizer: Tokenizer, text: str, size: int) -> tuple[list[int], int]:
    """The tokens of all pieces, and how many pieces there are."""

    def encode(part: str) -> list[int]:
        ids: list[int] = tokenizer._tokenizer.encode(part, add_special_tokens=False).ids
        return ids

    parts = [part for _, part in split_text(text, encode, size)]
    return [i for part in parts for i in encode(part)], len(parts)


@given(texts, st.integers(4, 40))
@example("hello hello <|im_start|> he he    he", 6)
def test_pieces_have_the_tokens_of_the_whole(
    tokenizers: dict[str, Tokenizer], text: str, size: int
) -> None:
    for name, tokenizer in tokenizers.items():
        whole = tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
        assert joined(tokenizer, text, size)[0] == whole, name


def test_where_text_is_cut(tokenizers: dict[str, Tokenizer]) -> None:
    text = "".join(
        random.Random(1).choices(["hello ", "the x", " a\n", "ä ", "12", "<think>"], k=4000)
    )
    for name, tokenizer in tokenizers.items():
        whole = tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
        ids, count = joined(tokenizer, text, 1000)
        assert same(ids, whole), name
        assert (count > 20) == (name != "strip"), name  # which drops the space behind a cut


@pytest.mark.parametrize("name", ["byte-level", "byte fallback", "prefixed", "metaspace"])
def test_long_texts_are_encoded_as_short_ones(tokenizers: dict[str, Tokenizer], name: str) -> None:
    tokenizer = tokenizers[name]
    text = "hello the <think> he\nx. <|im_start|>äa <|im_end|> " * 4000
    found = tokenizer._tokenizer.encode(text)
    ids, offsets = found.ids, found.offsets
    assert same(tokenizer.encode(text), ids)
    spans = tokenizer.encode_spans(text)
    assert same([span.id for span in spans], ids)
    assert same([span[1:] for span in spans], offsets)
    plain = tokenizer.encode_plain(text)
    assert tokenizer.added.keys().isdisjoint(plain)
    assert same(tokenizer.decode(plain).strip(), text.strip())


def test_what_is_put_around_is_put_around_once(tmp_path: Path) -> None:
    raw = json.loads(tiny.byte_level().to_str())
    ids = {t["content"]: t["id"] for t in raw["added_tokens"]}
    first, last = "<|im_start|>", "<|im_end|>"
    one = [{"SpecialToken": {"id": t, "type_id": 0}} for t in (first, last)]
    single = [one[0], {"Sequence": {"id": "A", "type_id": 0}}, one[1]]
    raw["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (first, last)},
    }
    tokenizer = load(Fast.from_str(json.dumps(raw)), tmp_path)
    text = "hello he " * 20000
    assert same(tokenizer.encode(text), tokenizer._tokenizer.encode(text).ids)
    inside = len(tokenizer.encode(text, add_special=False))
    assert len(tokenizer.encode(text, limit=inside + 2)) == inside + 2
    with pytest.raises(TooLongError) as caught:
        tokenizer.encode(text, limit=inside + 1)
    assert (caught.value.num_tokens, caught.value.limit) == (inside + 2, inside + 1)


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 3000, 30_000])
def test_a_limit_is_kept_exactly(tokenizers: dict[str, Tokenizer], count: int) -> None:
    for name in ("byte-level", "byte fallback", "NFC"):
        text, tokenizer = "he x" * count, tokenizers[name]
        exact = len(tokenizer.encode(text))
        for encode in (tokenizer.encode, tokenizer.encode_plain, tokenizer.encode_spans):
            assert len(encode(text, limit=exact)) == exact
            with pytest.raises(TooLongError, match=f"at most {exact - 1} fit") as caught:
                encode(text, limit=exact - 1)
            assert exact - 1 < caught.value.num_tokens <= exact


def test_what_cannot_fit_is_not_encoded(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer, text = tokenizers["byte-level"], "a" * 10**8
    assert tokenizer._bound("a") == 1
    start = time.perf_counter()
    with pytest.raises(TooLongError, match="at least") as caught:
        tokenizer.encode(text, limit=1000)
    assert 1000 < caught.value.num_tokens < 10**8
    assert time.perf_counter() - start < 1  # encoding it takes minutes


def test_a_text_that_cannot_be_cut_has_an_end(
    tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks_module, "LARGEST", 1 << 17)
    tokenizer = tokenizers["byte-level"]
    assert len(tokenizer.encode("a" * (1 << 17))) == 1 << 17
    with pytest.raises(ValueError, match="without a place where it could be cut"):
        tokenizer.encode("a" * ((1 << 17) + (1 << 16) + 1))


def test_the_error_travels() -> None:
    error = pickle.loads(pickle.dumps(TooLongError(7, 5, least=True)))
    assert (error.num_tokens, error.limit, error.least) == (7, 5, True)
    assert str(error) == "the text has at least 7 tokens, at most 5 fit"


@pytest.mark.parametrize("text", ["hello \ud800" * 2000, "\udfff" * 10**5])
def test_half_surrogates_in_long_texts(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["byte-level"]
    for encode in (tokenizer.encode, tokenizer.encode_plain, tokenizer.encode_spans):
        with pytest.raises(ValueError, match="half a surrogate pair"):
            encode(text)


# --- text that is no markup ------------------------------------------------------------------


@given(texts)
@example("    <think>    <|im_start|>")
def test_sharing_a_model_spells_as_hiding_markup_does(
    tokenizers: dict[str, Tokenizer], text: str
) -> None:
    for name in ("byte-level", "byte fallback", "prefixed", "metaspace", "llama-bpe", "tekken"):
        tokenizer = tokenizers[name]
        spelled = []
        for way in (without_markup, with_hidden_markup):
            if (name, way) not in PLAIN:
                PLAIN[name, way] = way(tokenizer._tokenizer, tokenizer.added)
            plain = PLAIN[name, way]
            ids = plain.tokenizer.encode(text, add_special_tokens=False).ids
            spelled.append([plain.others.get(i, i) for i in ids])
        assert spelled[0] == spelled[1] == tokenizer.encode_plain(text), name


def test_markup_in_text_is_spelled_at_once(
    tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocabulary is not written out and read again, which stops all threads."""
    monkeypatch.setattr(plain_module, "with_hidden_markup", None)
    tokenizer = tokenizers["NFC"]
    tokenizer._plain.clear()
    assert tokenizer.decode(tokenizer.encode_plain("a<think>b")) == "a<think>b"
