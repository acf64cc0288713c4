"""Strings that remember whose each character is: as str in text, exact in what they remember."""

from __future__ import annotations

import importlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from nanocupy.text.sandbox import Template, flags, marked

provenance = importlib.import_module("nanocupy.text.sandbox.provenance")
LETTERS = "ab<|>c \n\t.,-%{}\\"
SHIFT = 0xF0000  # private use: no case, no space, no format


def text_of(pairs: list[tuple[str, bool]]) -> str:
    """A string, from letters and whether each is the template's."""
    text = "".join(letter for letter, _ in pairs)
    return marked(text, ((i, i + 1) for i, (_, ours) in enumerate(pairs) if ours))


def pairs_of(text: str) -> list[tuple[str, bool]]:
    return list(zip(str.__str__(text), map(bool, flags(text)), strict=True))


letters = st.sampled_from(LETTERS)
strings = st.lists(st.tuples(letters, st.booleans()), max_size=12).map(text_of)
runs = st.lists(st.tuples(st.text(letters, max_size=4), st.booleans()), max_size=5).map(
    lambda parts: text_of([(letter, ours) for text, ours in parts for letter in text])
)
texts = strings | runs
separators = st.text(st.sampled_from("ab<| \n"), min_size=1, max_size=2)
counts = st.integers(-1, 5)
indices = st.none() | st.integers(-14, 14)


def same(result: str, expected: list[tuple[str, bool]]) -> None:
    assert pairs_of(result) == expected


# --- pieces of a text: each character is the one it was ---------------------------------------


def spans(text: str, pieces: list[str], starts: list[int]) -> list[list[tuple[str, bool]]]:
    pairs = pairs_of(text)
    return [pairs[at : at + len(piece)] for piece, at in zip(pieces, starts, strict=True)]


@given(texts, indices, indices, indices.filter(lambda step: step != 0))
def test_slices(text: str, start: int | None, stop: int | None, step: int | None) -> None:
    same(text[start:stop:step], pairs_of(text)[start:stop:step])
    for index in range(-len(text), len(text)):
        same(text[index], [pairs_of(text)[index]])
    assert [pairs_of(letter) for letter in text] == [[pair] for pair in pairs_of(text)]


@given(texts, st.sampled_from(["strip", "lstrip", "rstrip"]), st.none() | st.text(letters))
def test_strips(text: str, method: str, chars: str | None) -> None:
    result = getattr(text, method)(chars)
    plain = str.__str__(text)
    assert result == getattr(plain, method)(chars)
    skipped = len(plain) - len(plain.lstrip(chars)) if method != "rstrip" else 0
    if result:
        same(result, pairs_of(text)[skipped : skipped + len(result)])


@given(texts, separators, counts, st.booleans())
def test_splits_at_a_separator(text: str, sep: str, most: int, right: bool) -> None:
    method = "rsplit" if right else "split"
    result = getattr(text, method)(sep, most)
    plain = getattr(str.__str__(text), method)(sep, most)
    assert result == plain
    starts, at = [], 0
    for piece in plain:
        starts.append(at)
        at += len(piece) + len(sep)
    assert at - len(sep) == len(text)
    assert [pairs_of(piece) for piece in result] == spans(text, plain, starts)


@given(texts, counts, st.booleans())
def test_splits_at_spaces(text: str, most: int, right: bool) -> None:
    method = "rsplit" if right else "split"
    result = getattr(text, method)(None, most)
    assert result == getattr(str.__str__(text), method)(None, most)
    # Numbered: each character's place is found by splitting letters that are all different.
    private = "".join(c if c.isspace() else chr(SHIFT + i) for i, c in enumerate(text))
    places = getattr(private, method)(None, most)
    for piece, numbered in zip(result, places, strict=True):
        for pair, letter in zip(pairs_of(piece), numbered, strict=True):
            if not letter.isspace():
                assert pair == pairs_of(text)[ord(letter) - SHIFT]


@given(texts, st.booleans())
def test_splits_into_lines(text: str, keep: bool) -> None:
    result = text.splitlines(keep)
    plain = str.__str__(text).splitlines(keep)
    assert result == plain
    whole = str.__str__(text).splitlines(True)
    starts = [sum(map(len, whole[:i])) for i in range(len(whole))]
    assert [pairs_of(piece) for piece in result] == spans(text, plain, starts)


@given(texts, separators)
def test_partitions(text: str, sep: str) -> None:
    for method in ("partition", "rpartition"):
        result = getattr(text, method)(sep)
        assert result == getattr(str.__str__(text), method)(sep)
        assert [pair for piece in result for pair in pairs_of(piece)] == pairs_of(text)


@given(texts, separators)
def test_prefixes(text: str, part: str) -> None:
    front, back = text.removeprefix(part), text.removesuffix(part)
    assert front == str.__str__(text).removeprefix(part)
    assert back == str.__str__(text).removesuffix(part)
    assert pairs_of(front) == pairs_of(text)[len(text) - len(front) :]
    assert pairs_of(back) == pairs_of(text)[: len(back)]


# --- texts made of others ---------------------------------------------------------------------


@given(st.lists(texts, max_size=5), texts)
def test_joins(pieces: list[str], separator: str) -> None:
    result = provenance.join(pieces, separator)
    assert result == str.__str__(separator).join(map(str.__str__, pieces))
    expected: list[tuple[str, bool]] = []
    for index, piece in enumerate(pieces):
        expected += (pairs_of(separator) if index else []) + pairs_of(piece)
    same(result, expected)


def replaced(text: str, old: str, new: str, count: int) -> list[tuple[str, bool]]:
    """By hand, on pairs."""
    pairs, found, left, at = pairs_of(text), [], count, 0
    while at <= len(pairs):
        here = "".join(letter for letter, _ in pairs[at : at + len(old)])
        if left != 0 and here == old and (old or at <= len(pairs)):
            ours = all(of_template for _, of_template in pairs[at : at + len(old)])
            found += pairs_of(new) if ours else [(letter, False) for letter in str.__str__(new)]
            left -= 1
            if old:
                at += len(old)
                continue
        found += pairs[at : at + 1]
        at += 1
    return found


@given(texts, st.just("") | separators, texts, counts)
def test_replaces(text: str, old: str, new: str, count: int) -> None:
    result = provenance.replace(text, old, new, count)
    assert result == str.__str__(text).replace(old, str.__str__(new), count)
    same(result, replaced(text, old, new, count))


@given(texts, st.integers(-1, 4))
def test_repeats(text: str, count: int) -> None:
    same(provenance.repeat(text, count), pairs_of(text) * max(count, 0))


@given(st.lists(st.tuples(st.characters(), st.booleans()), max_size=6).map(text_of))
def test_cases(text: str) -> None:
    for method in ("upper", "lower", "title", "capitalize", "swapcase", "casefold"):
        changed = getattr(str, method)(text)
        result = provenance.mapped(text, changed)
        assert result == changed
        if len(changed) == len(text):
            assert flags(result) == flags(text)
        else:
            assert 1 not in flags(result)


@given(texts, st.integers(0, 3) | st.sampled_from(["> ", "", "\n"]), st.booleans(), st.booleans())
def test_indents(text: str, width: int | str, first: bool, blank: bool) -> None:
    result = provenance.indent(text, width, first, blank)
    filters = Environment().filters
    assert result == filters["indent"](str.__str__(text), width, first, blank)
    kept = [ours for letter, ours in pairs_of(text) if letter not in "\n\t >" and ours]
    assert [o for letter, o in pairs_of(result) if letter not in "\n\t >" and o] == kept


# --- texts spelled inside others ---------------------------------------------------------------

spelled = st.lists(
    st.tuples(st.sampled_from("ab\"'\\\n é\U0001f600\x7f<"), st.booleans()), max_size=8
).map(text_of)
values = st.recursive(
    spelled | st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(spelled, inner, max_size=3),
    max_leaves=8,
)


def all_of(value: Any, change: Any) -> Any:
    """The value with each of its strings changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {all_of(key, change): all_of(inner, change) for key, inner in value.items()}
    return [all_of(inner, change) for inner in value] if isinstance(value, list) else value


def letters_of(value: Any, sort: bool = False) -> list[tuple[str, bool]]:
    """Every character inside a value in the order in which it is written out."""
    if isinstance(value, str):
        return pairs_of(value)
    if isinstance(value, dict):
        keys = sorted(value) if sort else value
        return [p for key in keys for p in pairs_of(key) + letters_of(value[key], sort)]
    return (
        [p for inner in value for p in letters_of(inner, sort)] if isinstance(value, list) else []
    )


@given(
    values,
    st.booleans(),
    st.sampled_from([None, 0, 2, provenance.template_text("\t")]),
    st.sampled_from([None, tuple(map(provenance.template_text, (" , ", ":")))]),
    st.booleans(),
)
def test_json(value: Any, ascii_only: bool, indent: Any, separators: Any, sort: bool) -> None:
    options = {
        "ensure_ascii": ascii_only,
        "indent": indent,
        "separators": separators,
        "sort_keys": sort,
    }
    result = provenance.to_json(value, **options)
    assert result == json.dumps(all_of(value, str.__str__), **options)
    assert quoted_flags(result, '"') == [
        ours
        for letter, ours in letters_of(value, sort)
        for _ in json.dumps(letter, ensure_ascii=ascii_only)[1:-1]
    ]


def quoted_flags(text: str, quotes: str) -> list[bool]:
    """The flags inside of quotes; what is outside is checked to be the template's."""
    inside, found, skip = "", [], False
    for letter, ours in pairs_of(text):
        if inside and (skip or letter not in (inside, "\\")):
            found.append(ours)
            skip = False
        elif inside and letter == "\\":
            found.append(ours)
            skip = True
        else:
            assert ours
            inside = "" if inside else letter if letter in quotes else ""
    return found


@given(values)
def test_repr(value: Any) -> None:
    value = [value]
    result = provenance.to_repr(value)
    assert result == str(all_of(value, str.__str__))
    assert quoted_flags(result, "'\"") == [
        ours
        for text in texts_of(value)
        for letter, ours in pairs_of(text)
        for _ in range(width_in_repr(letter, text))
    ]


def width_in_repr(letter: str, text: str) -> int:
    if letter == "'":
        return 2 if repr(str.__str__(text))[0] == "'" else 1
    return len(repr(letter)) - 2


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for key, inner in value.items() for t in [key, *texts_of(inner)]]
    return [t for inner in value for t in texts_of(inner)] if isinstance(value, list) else []


# --- the safe direction: no template makes message text its own ----------------------------

# Messages are spelled in letters that no template has, so that where they are is known.
MESSAGE = "\u4e00\u4e01 \u4e02\n\u4e03"
THEIRS = set(MESSAGE) - {" ", "\n"}

atoms = st.sampled_from(
    ["m", "m", "m", "'ab'", "'<|x|>'", "'a\u00e9 '", "[m, 'k']", "{'k': m}", "{m: 'v'}", "('z', m)"]
)
TEXT_TO_TEXT = [
    *("{0}|upper", "{0}|lower", "{0}|title", "{0}|capitalize", "{0}|trim", "{0}|string"),
    *("{0}|safe", "{0}|e", "{0}|reverse", "{0}|indent(2, true)", "{0}|indent({1})", "{0}|tojson"),
    *("{0}|replace({1}, {2})", "{0}|replace({1}, {2}, 1)", "{0}|join", "{0}|join({1})"),
    *("{0}|list|join({1})", "{0}|list|string", "{0}|first", "{0}|last", "{0}|default({1})"),
    *("{0}|map('upper')|join", "{0}|select|join", "{0}|batch(2)|map('join')|join({1})"),
    *("{0}|sort|join", "{0}|unique|join", "{0}|format({1})", "({0}|string) % ({1},)"),
    *("({0}|string).split({1}|string)|join({2})", "({0}|string).split()|join", "{0} ~ {1}"),
    *("({0}|string).rsplit()|string", "({0}|string).splitlines()|tojson", "({0}|string)[::-1]"),
    *("({0}|string).partition('k')|join", "({0}|string).strip({1}|string)", "({0}|string) * 2"),
    *("({0}|string)[1:]", "({0}|string)[:-1:2]", "({0}|string)[0]", "({0}|string) + ({1}|string)"),
    *("({0}|string).replace('', {1}|string)", "'%s|%r'|format({0}, {1})", "'%5s' % ({0},)"),
    *("'{}{}'.format({0}, {1})", "'{0!r:>9}'.format({0})", "'{a}'.format(a={0})"),
    *("({0}|string).join([{1}|string, {2}|string])", "({0}|string).removeprefix('k')"),
    *("({0}|string).title().swapcase().casefold()", "{0}|tojson(indent=2)|tojson"),
    *("{0}|tojson(separators=({1}|string, ':'))", "{0}|tojson(indent={1}|string)"),
    *("dict([({0}|string, {1})])|tojson", "dict([({0}|string, {1})])|dictsort|string"),
    *("{'x': {0}}|items|list|string", "{'x': {0}}.items()|string", "{'x': {0}}.values()"),
    *("[{'x': {0}}]|groupby('x')|string", "[{0}, {1}]|min", "[{'x': {0}}]|map(attribute='x')"),
    *(
        "{0} if {1} else {2}",
        "({0} or {1})",
        "strftime_now({0}|string)",
        "{0}|slice(2)|list|string",
    ),
]


def filled(form: str, *parts: str) -> str:
    for index, part in enumerate(parts):
        form = form.replace(f"{{{index}}}", f"({part})")
    return form


def composed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda form, *parts: f"({filled(form, *parts)})",
        st.sampled_from(TEXT_TO_TEXT),
        *(inner, inner, inner),
    )


expressions = st.recursive(atoms, composed, max_leaves=6)
FRAMES = [
    "{{ {0} }}",
    "{% set x %}<{{ {0} }}>{% endset %}{{ x|upper }}",
    "{% filter replace('k', m) %}{{ {0} }}{% endfilter %}",
    "{% macro f(a) %}[{{ a }}{{ varargs|join }}]{% endmacro %}{{ f({0}, m)|title }}",
    "{% macro f() %}{{ caller()|lower }}{% endmacro %}{% call f() %}{{ {0} }}{% endcall %}",
    "{% for c in {0} %}{{ c }}{{ loop.previtem }}{{ loop.cycle(m, 'b') }}{% endfor %}",
    "{% set ns = namespace(x={0}) %}{% set ns.y = [ns.x] %}{{ ns.y|string }}",
    "{% with a = {0} %}{{ a ~ 'b' }}{% endwith %}",
]


@settings(max_examples=400)
@given(expressions, st.sampled_from(FRAMES))
def test_no_template_makes_message_text_its_own(expression: str, frame: str) -> None:
    source = filled(frame, expression)
    try:
        text = Template(source).render({"m": MESSAGE}, 1 << 18)
    except ValueError as error:
        assert str(error).startswith("the chat template ")
        return
    assert not {letter for letter, ours in pairs_of(text) if ours} & THEIRS


@settings(max_examples=200)
@given(expressions)
def test_text_is_as_jinja2_has_it(expression: str) -> None:
    """Whatever the sandbox lets through is what jinja2 makes of it, where that runs at all."""
    if "safe" in expression or "|e" in expression or "strftime" in expression:
        return  # in jinja2 these mark text as escaped
    source = "{{ " + expression + " }}"
    plain = Environment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = lambda value, **options: json.dumps(
        value, **{"ensure_ascii": False, **options}
    )
    try:
        text = Template(source).render({"m": MESSAGE}, 1 << 18)
    except ValueError:
        return
    try:
        expected = plain.from_string(source).render(m=MESSAGE)
    except Exception:
        return  # ours takes what is no text for text in some places
    if " object at 0x" not in expected:
        assert text == expected


def test_what_the_template_writes_is_its_own() -> None:
    source = "<|a|>{{ 'b' if m else m }}{{ '%s-%d' % ('c', 5) }}{{ [1, 'd'] }}{{ {'e': 1}|tojson }}"
    text = Template(source).render({"m": MESSAGE}, 1 << 18)
    assert 0 not in flags(text) and text == "<|a|>bc-5[1, 'd']{\"e\": 1}"
