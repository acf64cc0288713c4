"""Added tokens that are named outside tokenizer.json, resolved as transformers 5 does.

They are in tokenizer_config.json (added_tokens_decoder, bos_token, ..., extra_special_tokens), or
in special_tokens_map.json and added_tokens.json of older versions. They override the tokens of
tokenizer.json; tokens that it lacks are added after all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nanocupy.files import read_json_if_there
from nanocupy.text.special_tokens import (
    NAMED,
    extra_tokens,
    named_tokens,
    token_text,
    tokenizer_settings,
)

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def add_named_tokens(tokenizer: Any, folder: Path) -> frozenset[int]:
    """Add the tokens named in the files of `folder` to a `tokenizers.Tokenizer`.

    Returns:
        The ids of special tokens.

    Raises:
        ValueError: a file gives a token an id that another token has, or that is not the next.
    """
    settings = tokenizer_settings(folder)
    before = tokenizer.get_added_tokens_decoder()
    listed = _listed(folder, settings)
    has = {token.content: token for token in before.values()}
    wanted = _wanted(settings, listed, tokenizer.get_added_tokens_decoder())
    if new := [token for token in wanted if has.get(token.content) != token]:
        tokenizer.add_tokens(new)
    for index, token in listed.items():
        _check_id(tokenizer, folder, token.content, index)
    after = tokenizer.get_added_tokens_decoder()
    # A token that was special before stays hidden in decoded text.
    return frozenset(i for found in (before, after) for i, token in found.items() if token.special)


def _listed(folder: Path, settings: Mapping[str, Any]) -> dict[int, Any]:
    """The AddedTokens that the files give an id, by id."""
    decoder = settings.get("added_tokens_decoder")
    if decoder is not None:
        source = folder / "tokenizer_config.json"
        if (
            not isinstance(decoder, dict)
            or not all(key.isdecimal() for key in decoder)
            or not all(isinstance(token, dict) for token in decoder.values())
        ):
            raise ValueError(f"{source}: added_tokens_decoder must be an object of ids and tokens")
        return {int(index): _token(token, source) for index, token in decoder.items()}
    source = folder / "added_tokens.json"
    named = (settings.get(role) for role in NAMED)
    special = {token_text(t) for t in (*named, *(settings.get("extra_special_tokens") or ()))}
    ids = read_json_if_there(source)
    if not all(type(index) is int for index in ids.values()):
        raise ValueError(f"{source} must be an object of tokens and their ids")
    return {
        index: _token({"content": text, "special": text in special}, source)
        for text, index in ids.items()
    }


def _wanted(
    settings: Mapping[str, Any], listed: Mapping[int, Any], before: Mapping[int, Any]
) -> Iterable[Any]:
    """All AddedTokens of the files, each text once: those with ids in order, named ones, others."""
    decoder = dict(listed)
    if "added_tokens_decoder" not in settings:
        decoder |= before
    named = [*named_tokens(settings).values()]
    names = {token_text(token) for token in named}
    wanted: dict[str, Any] = {}
    for _, token in sorted(decoder.items()):
        token.special = token.special or token.content in names
        wanted[token.content] = token
    known = wanted.keys() | {token.content for token in before.values()}
    for token in (*named, *extra_tokens(settings)):
        if (text := token_text(token)) not in known and text:
            made = _token(token, "tokenizer_config.json", special=True)
            made.special = made.special or text in names
            wanted.setdefault(text, made)
    return wanted.values()


def _token(said: Any, source: object, special: bool = False) -> Any:
    """An AddedToken from its text, or from an object as transformers writes it."""
    from tokenizers import AddedToken

    said = {"content": said} if isinstance(said, str) else said
    text = said.get("content") if isinstance(said, dict) else None
    flags = {name: said[name] for name in _FLAGS if name in said} if text is not None else {}
    if not isinstance(text, str) or any(type(flag) is not bool for flag in flags.values()):
        raise ValueError(f"{source}: not an added token: {said!r:.200}")
    return AddedToken(text, **{"special": special, **flags})


def _check_id(tokenizer: Any, folder: Path, text: str, index: int) -> None:
    got, there = tokenizer.token_to_id(text), tokenizer.id_to_token(index)
    if text and got != index:
        other = f"{there!r} in tokenizer.json" if there is not None else f"not the next id, {got}"
        raise ValueError(f"{folder}: token {text!r} cannot have the id {index}, which is {other}")
