"""Tokenizers for which markup is nothing but text. Runs of spaces that are added tokens stay.

`sharing` has the model of the tokenizer that it is made of, and is made at once. Where a model has
words of its vocabulary from elsewhere than from merges, it may still make markup of text: `hiding`,
which takes seconds for large vocabularies, cannot.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple


class Plain(NamedTuple):
    """A `tokenizers.Tokenizer` for text alone, and the ids that are others in its place."""

    tokenizer: Any
    others: Mapping[int, int]


def sharing(tokenizer: Any, markup: Mapping[int, str]) -> Plain:
    """The same model, with those added tokens alone that are no markup."""
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
        return hiding(tokenizer, markup)  # ids are not in a row: a new one is taken
    return Plain(plain, others)


def hiding(tokenizer: Any, markup: Mapping[int, str]) -> Plain:
    """A tokenizer in which markup has names that no text holds.

    Raises:
        ValueError: that would change other ids.
    """
    from tokenizers import Tokenizer as Fast

    raw = json.loads(tokenizer.to_str())
    raw["post_processor"] = None
    _hide(raw, set(markup.values()))
    plain = Fast.from_str(json.dumps(raw))
    added = tokenizer.get_added_tokens_decoder()
    if any(plain.token_to_id(added[i].content) != i for i in added.keys() - markup.keys()):
        raise ValueError("the tokenizer's added tokens cannot be hidden")
    return Plain(plain, {})


def _hide(raw: dict[str, Any], names: set[str]) -> None:
    """Rename markup in a tokenizer.json to what no text holds: removing it would move other ids."""
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
    # What merges make has its id from the vocabulary, so that it need not be an added token.
    added = [t for t in raw["added_tokens"] if t["content"] not in names & needed]
    raw["added_tokens"] = [{**t, "content": hidden(t["content"])} for t in added]
