"""Flags made from the engine's own dataclasses: name, type, default and help are written once.

`max_model_len: int | None` of EngineOptions becomes `--max-model-len`. Only flags that were given
reach the dataclass, so defaults and checks stay where they are.
"""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from nanocupy.quoting import quoted

DEFAULT_MODEL = "smollm2-135m"
# Defaults if neither a flag nor the model sets them: small models work best with little randomness,
# and an answer that repeats itself must end.
SAMPLING = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 1024}
ENGINE = {"tensor_parallel": "auto"}  # if mpirun starts a command several times, it is one engine
NONE: Mapping[str, Any] = {}
_UNITS = {"k": 2**10, "m": 2**20}


class Switch(argparse.Action):
    """A flag `--name` with its opposite `--no-name`."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any) -> None:
        negated = [f"--no-{name[2:]}" for name in option_strings]
        super().__init__([*option_strings, *negated], dest, nargs=0, **kwargs)

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, not (option or "").startswith("--no-"))

    def format_usage(self) -> str:
        return "|".join(self.option_strings)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, the same in every command that loads one."""
    parser.add_argument(
        "-m", "--model", default=DEFAULT_MODEL, metavar="NAME",
        help=f"a known name, a folder, a GGUF file or a hub id (default: {DEFAULT_MODEL})",
    )  # fmt: skip


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of EngineOptions but `seed`: the one request has its own."""
    from nanocupy.engine.options import EngineOptions

    add_fields(parser.add_argument_group("engine"), EngineOptions, ("seed",), ENGINE)


def add_sampling(parser: argparse.ArgumentParser, skip: Collection[str] = ()) -> None:
    """Add a flag for each field of SamplingParams."""
    from nanocupy.engine.params import SamplingParams

    group = parser.add_argument_group(
        "sampling", "What is not given is as the model's generation_config.json says, if it does."
    )
    add_fields(group, SamplingParams, skip, SAMPLING)


def add_fields(
    group: Any, options: type, skip: Collection[str] = (), defaults: Mapping[str, Any] = NONE
) -> None:
    """Add a flag for every field of a dataclass whose metadata has a `help`.

    `defaults` replace the dataclass's own in the help; the caller applies them.
    """
    types = typing.get_type_hints(options)
    for field in fields(options):
        if field.name not in skip:
            help_text = _help(field, defaults.get(field.name, field.default))
            _add_field(group, field.name, types[field.name], help_text)


def given(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """The keyword arguments for `options` that are set on the command line."""
    names = {field.name for field in fields(options)}
    found = {name: value for name, value in vars(args).items() if name in names}
    return {k: dict(v) if k == "logit_bias" else v for k, v in found.items()}


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of LLM(...) besides the model."""
    from nanocupy.engine.options import EngineOptions

    options = ENGINE | given(args, EngineOptions)
    options.pop("seed", None)
    return options


def flag(name: str) -> str:
    """The flag of a field: `max_tokens` -> `--max-tokens`."""
    return "--" + name.replace("_", "-")


def in_flags(message: str) -> str:
    """An error with options named as flags: `--max-model-len` for `max_model_len`."""
    message = re.sub(r"\[(?:EngineOptions|SamplingParams)\] (\w+)", lambda m: flag(m[1]), message)
    message = re.sub(r"^\[(model_file)\] ", lambda m: f"{flag(m[1])}: ", message)
    message = re.sub(r"^\[\w+\] ", "", message)
    for name in _names():
        if "_" in name:
            message = re.sub(rf"(?<![\w-]){name}(?!\w)", flag(name), message)
        elif len(name) > 1:  # an ordinary word, except in `threads=99`
            message = re.sub(rf"(?<![\w-]){name}(?==)", flag(name), message)
    return message


def _names() -> list[str]:
    from nanocupy.engine.options import EngineOptions
    from nanocupy.engine.params import SamplingParams

    return [field.name for options in (EngineOptions, SamplingParams) for field in fields(options)]


def _add_field(group: Any, name: str, hint: Any, help_text: str) -> None:
    common: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help_text}
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    origin = typing.get_origin(hint)
    if origin in (dict, Mapping):
        group.add_argument(flag(name), action="append", type=_pair, metavar="ID=BIAS", **common)
    elif origin in (tuple, list):
        _add_value(group, name, kinds[0], common | {"action": "append"})
    elif kinds == [bool]:
        group.add_argument(flag(name), action=Switch, **common)
    else:
        _add_value(group, name, kinds[0], common)


def _add_value(group: Any, name: str, kind: type, common: dict[str, Any]) -> None:
    group.add_argument(flag(name), type=_reader(kind), metavar=_metavar(kind), **common)


def _help(field: Field[Any], default: Any) -> str:
    """The field's help with its default; `None = all` of the field is the default `all`."""
    text, _, otherwise = str(field.metadata["help"]).partition("; None = ")
    if default is None or default is MISSING or default == ():
        default = otherwise
    elif isinstance(default, bool):
        default = "on" if default else "off"
    return (f"{text} (default: {default})" if str(default) else text).replace("%", "%%")


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
            f"expected TOKEN_ID=BIAS such as 42=-100, got {quoted(text)}"
        ) from None
