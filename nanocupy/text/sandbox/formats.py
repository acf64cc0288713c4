"""`text % values` and `text.format(...)`, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedFormatter

from nanocupy.text.sandbox import provenance
from nanocupy.text.sandbox.metering import MAX_PATH, LimitError, budget
from nanocupy.text.sandbox.provenance import template_text
from nanocupy.text.sandbox.values import to_text

_PERCENT = re.compile(
    r"%(?:\(([^()]*)\))?([#0\- +]{0,5}\d{0,3}(?:\.\d{0,3})?)[hlL]?([diouxXeEfFgGcrsa%])"
)


def percent(text: str, values: Any) -> str:
    """`text % values`."""
    pieces = [_paid(piece) for piece in _percent_pieces(text, values)]
    return _with_flags(str.__mod__(text, values), pieces)


def _percent_pieces(text: str, values: Any) -> Iterator[str]:
    given = iter(values if isinstance(values, tuple) else (values,))
    end = 0
    while (at := str.find(text, "%", end)) >= 0:
        yield text[end:at]
        match = _PERCENT.match(text, at)
        if match is None:
            raise SecurityError(f"{str.__str__(text[at : at + 20])!r} is no format for templates")
        end = match.end()
        if match[3] == "%":
            yield text[end - 1 : end]
            continue
        if match[1] is not None and not isinstance(values, dict):
            raise TypeError("format requires a mapping")
        value = values[match[1]] if match[1] is not None else next(given, None)
        if match[3] == "s" and not match[2]:
            yield to_text(value)
        else:
            _check_shown(value)
            shown = str.__mod__(f"%{match[2]}{match[3]}", (value,))
            yield _by_number(value, shown) if match[3] != "c" else shown
    yield text[end:]


def _check_shown(value: Any) -> None:
    budget().charge(letters=12 * budget().weigh(value).letters)


def _by_number(value: Any, shown: str) -> str:
    """A formatted value: of numbers the text is the template's."""
    return template_text(shown) if isinstance(value, (int, float)) else shown


def _paid(piece: str) -> str:
    budget().charge(letters=len(piece))
    return piece


def _with_flags(result: str, pieces: list[str]) -> str:
    """`result`, with the flags of the pieces it should consist of; if it differs, a plain str."""
    followed = provenance.join(pieces)
    return followed if followed == result else result


def braces(environment: Any, text: str, *args: Any, **kwargs: Any) -> str:
    """`text.format(*args, **kwargs)`."""
    pieces = [_paid(piece) for piece in _brace_pieces(environment, text, args, kwargs)]
    return _with_flags(SandboxedFormatter(environment).vformat(text, args, kwargs), pieces)


def _brace_pieces(environment: Any, text: str, args: Any, kwargs: Any) -> Iterator[str]:
    formatter = SandboxedFormatter(environment)
    literal = template_text if provenance.is_whole(text) else str.__str__
    index = 0
    for before, name, spec, conversion in formatter.parse(str.__str__(text)):
        yield literal(before)
        if name is None:
            continue
        if "{" in (spec or "") or re.search(r"\d{4}", spec or ""):
            raise SecurityError("a width in a format is too large, or not a number")
        if len(re.split(r"[.\[]", name, maxsplit=MAX_PATH)) > MAX_PATH:
            raise LimitError("a field of a format is too long")
        if name.split(".")[0].split("[")[0] == "":
            name, index = f"{index}{name}", index + 1
        value, _ = formatter.get_field(name, args, kwargs)
        if not spec and not conversion:
            yield to_text(value)
            continue
        _check_shown(value)
        shown = formatter.format_field(formatter.convert_field(value, conversion), spec or "")
        yield shown if (spec or "").endswith("c") else _by_number(value, shown)
