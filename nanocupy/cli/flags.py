"""Flags made from the engine's own dataclasses: name, type, default and help are written once.

`max_model_len: int | None` of EngineOptions becomes `--max-model-len`. Only flags that were given
reach the dataclass, so defaults and checks stay where they are.
"""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Collection
from dataclasses import MISSING, Field, fields
from typing import Any

DEFAULT_MODEL = "smollm2-135m"
_UNITS = {"k": 2**10, "m": 2**20}


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model`, the same in every command that loads one."""
    parser.add_argument(
        "-m", "--model", default=DEFAULT_MODEL, metavar="NAME",
        help=f"a known name, a folder or a hub id (default: {DEFAULT_MODEL})",
    )  # fmt: skip


def add_engine(parser: argparse.ArgumentParser) -> None:
    """One flag per field of EngineOptions."""
    from nanocupy.engine.options import EngineOptions

    add_fields(parser.add_argument_group("engine"), EngineOptions)


def add_sampling(parser: argparse.ArgumentParser, skip: Collection[str] = ()) -> None:
    """One flag per field of SamplingParams. `seed` is the request's here, not the engine's."""
    from nanocupy.engine.params import SamplingParams

    add_fields(parser.add_argument_group("sampling"), SamplingParams, skip)


def add_fields(group: Any, options: type, skip: Collection[str] = ()) -> None:
    """Add a flag for every field of a dataclass whose metadata holds its `help`."""
    types = typing.get_type_hints(options)
    for field in fields(options):
        if field.name not in skip:
            _add_field(group, field, types[field.name])


def given(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """The keyword arguments for `options` that the command line has set."""
    names = {field.name for field in fields(options)}
    found = {name: value for name, value in vars(args).items() if name in names}
    return {k: dict(v) if k == "logit_bias" else v for k, v in found.items()}


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """What LLM(...) is given besides the model."""
    from nanocupy.engine.options import EngineOptions

    options = given(args, EngineOptions)
    EngineOptions(**options)  # a wrong flag is told before a model is loaded
    return options


def flag(name: str) -> str:
    """The flag of a field: `max_tokens` -> `--max-tokens`."""
    return "--" + name.replace("_", "-")


def in_flags(message: str) -> str:
    """The message with `[EngineOptions] chunk` or `max_model_len` said as the flag to change."""
    message = re.sub(r"\[(?:EngineOptions|SamplingParams)\] (\w+)", lambda m: flag(m[1]), message)
    for name in _names():
        if "_" in name:
            message = re.sub(rf"(?<![\w-]){name}(?!\w)", flag(name), message)
    return message


def _names() -> list[str]:
    from nanocupy.engine.options import EngineOptions
    from nanocupy.engine.params import SamplingParams

    return [field.name for options in (EngineOptions, SamplingParams) for field in fields(options)]


def _add_field(group: Any, field: Field[Any], hint: Any) -> None:
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    help_text = _help(field)
    common = {"dest": field.name, "default": argparse.SUPPRESS, "help": help_text}
    if kinds == [bool]:
        group.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, **common)
        return
    origin = typing.get_origin(hint)
    if origin is dict:
        common |= {"action": "append", "type": _pair, "metavar": "ID=BIAS"}
    elif origin is tuple or origin is list:
        item = typing.get_args(hint)[0]
        common |= {"action": "append", "type": _reader(item), "metavar": _metavar(item)}
    else:
        common |= {"type": _reader(kinds[0]), "metavar": _metavar(kinds[0])}
    group.add_argument(flag(field.name), **common)


def _help(field: Field[Any]) -> str:
    text = str(field.metadata["help"]).replace("%", "%%")
    if field.default in (None, MISSING, ()):
        return text
    return f"{text} (default: {field.default})"


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", str: "TEXT"}.get(kind, "VALUE")


def _reader(kind: type) -> Any:
    return {int: _integer, float: _number}.get(kind, str)


def _integer(text: str) -> int | str:
    """An integer, or `32k` (× 1024); anything else is left to the field's own check."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kKmM]?)", text)
    if not match or (not match[2] and "." in match[1]):
        return text
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match[2] else int(match[1])


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _pair(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected TOKEN_ID=BIAS such as 42=-100, got {text!r}"
        ) from None
