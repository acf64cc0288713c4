"""Tokenizers that read markup as nothing but text. Added tokens that are runs of spaces stay.

`without_markup` shares the model of the tokenizer it is made of, and is made at once. A model that
has words beside those that merges make may still find markup in a text; `with_hidden_markup`, which
takes seconds for large vocabularies, never does.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple


class PlainTokenizer(NamedTuple):
    """A `tokenizers.Tokenizer` for text alone; `others`: its ids that differ, to the model's."""

    tokenizer: Any
    others: Mapping[int, int]


def without_markup(tokenizer: Any, markup: Mapping[int, str]) -> PlainTokenizer:
    """A tokenizer with the same model, and only those added tokens that are not markup."""
    from tokenizers import Tokenizer as Fast

    plain = Fast(tokenizer.model)
    if tokenizer.normalizer is not None:
        plain.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        plain.pre_tokenizer = tokenizer.pre_tokenizer
    added = tokenizer.get_added_tokens_decoder()
    kept = {i: token for i, token in added.items() if i not in markup}
    plain.add_tokens([token for _, token in sorted(kept.items())])
    others = {plain.token_to_id(token.content): i for i, token in kept.items()}
    if any(new != i and tokenizer.model.id_to_token(new) is not None for new, i in others.items()):
        return with_hidden_markup(tokenizer, markup)  # ids have gaps, and a new one is taken
    return PlainTokenizer(plain, others)


def with_hidden_markup(tokenizer: Any, markup: Mapping[int, str]) -> PlainTokenizer:
    """A tokenizer in which markup has names that no text contains.

    Raises:
        ValueError: this would change other ids.
    """
    from tokenizers import Tokenizer as Fast

    raw = json.loads(tokenizer.to_str())
    raw["post_processor"] = None
    _hide(raw, set(markup.values()))
    plain = Fast.from_str(json.dumps(raw))
    added = tokenizer.get_added_tokens_decoder()
    if any(plain.token_to_id(added[i].content) != i for i in added.keys() - markup.keys()):
        raise ValueError("the tokenizer's added tokens cannot be hidden")
    return PlainTokenizer(plain, {})


def _hide(raw: dict[str, Any], names: set[str]) -> None:
    """Rename markup in a tokenizer.json to random names: removing it would change other ids."""
    secret, model = secrets.token_hex(16), raw["model"]
    vocab = model["vocab"]
    pairs = [m if isinstance(m, list) else m.split(" ", 1) for m in model.get("merges") or ()]
    needed = {name for pair in pairs for name in (*pair, "".join(pair))} | {model.get("unk_token")}

    def hidden(name: str) -> str:
        return f"{secret} {name}" if name in names and name not in needed else name

    if isinstance(vocab, list):  # Unigram: [piece, score]
        model["vocab"] = [[hidden(piece), score] for piece, score in vocab]
    else:
        model["vocab"] = {hidden(piece): i for piece, i in vocab.items()}
    # What merges make has its id from the vocabulary, and need not be an added token.
    added = [t for t in raw["added_tokens"] if t["content"] not in names & needed]
    raw["added_tokens"] = [{**t, "content": hidden(t["content"])} for t in added]
