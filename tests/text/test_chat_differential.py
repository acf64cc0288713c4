"""Chat templates as models bring them, held against what transformers renders.

golden/make_chat_differential.py made the goldens and names what is otherwise here on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from functools import cache

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Fast

from nanocupy.text import ChatTemplate, Tokenizer
from text import chat_cases as cases
from text import tiny_tokenizers as tiny

GOLDEN = json.loads((cases.FOLDER / "golden.json").read_text())
DIGESTS: dict[str, list[str]] = GOLDEN["digests"]
every_template = pytest.mark.parametrize("name", sorted(DIGESTS))


@cache
def chat_template(name: str) -> ChatTemplate:
    return ChatTemplate.from_source(cases.template_source(name), cases.TEXTS)


def with_digests(name: str) -> Iterator[tuple[cases.Case, str]]:
    """Each conversation, and the digest of its text or "error"."""
    return zip(cases.conversations(cases.template_source(name)), DIGESTS[name], strict=True)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes and some merges; its added tokens are the markup of all the templates."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("<", "|"), ("|", ">"), ("i", "m"), ("<", "/"), ("e", "n"), ("Ġ", "<"), ("[", "/")]
    vocab = {token: i for i, token in enumerate([*letters, *("".join(m) for m in merges)])}
    fast = Fast(models.BPE(vocab, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(text, normalized=False) for text in cases.SPECIAL])
    fast.add_tokens([AddedToken(text, normalized=False) for text in cases.OWN])
    return Tokenizer(tiny.save(fast, tmp_path_factory.mktemp("differential")))


def test_the_goldens_are_of_these_conversations_and_templates() -> None:
    names = [case.name for case in cases.conversations()]
    assert GOLDEN["conversations"] == names and len(names) >= 80
    assert sorted(DIGESTS) == sorted(path.stem for path in cases.FOLDER.glob("*.jinja"))
    refused = sum(row.count("error") for row in DIGESTS.values())
    assert len(DIGESTS) >= 40 and refused < len(names) * len(DIGESTS) / 20


@every_template
def test_renders_as_transformers_does(name: str) -> None:
    wrong = []
    for case, wanted in with_digests(name):
        try:
            got = digest(chat_template(name).render(case.messages, **case.kwargs))
        except ValueError:
            got = "error"
        if got != wanted:
            wrong.append(case.name)
    assert wrong == []


@every_template
def test_ids_spell_the_text_and_nothing_of_the_templates_is_lost(
    name: str, tokenizer: Tokenizer
) -> None:
    for case, wanted in with_digests(name):
        if wanted == "error":
            continue
        text, ids = chat_template(name).apply(tokenizer, case.messages, **case.kwargs)
        assert digest(text) == wanted, case.name
        if case.is_hostile:
            assert tokenizer.decode(ids, skip_special=False) == text, case.name
        else:
            assert ids == tokenizer.encode(text, add_special=False), case.name


@every_template
def test_what_messages_say_is_never_markup(name: str, tokenizer: Tokenizer) -> None:
    chat = chat_template(name)
    for case, wanted in with_digests(name):
        if wanted == "error" or not case.is_hostile:
            continue
        # A model's own markup stays markup in what it said, so that special tokens alone are told.
        known = tokenizer.special_ids if "own" in case.name else tokenizer.added.keys()
        found = chat.apply(tokenizer, case.messages, **case.kwargs).ids
        plain = cases.harmless(case)
        ours = chat.apply(tokenizer, plain.messages, **plain.kwargs).ids
        assert _of(known, found) == _of(known, ours), case.name


def _of(known: Collection[int], ids: list[int]) -> list[int]:
    return [i for i in ids if i in known]
