"""What a chat template cannot do: hang, fill the memory, reach Python, or forge its own hand."""

from __future__ import annotations

import _thread
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from nanocupy.text.sandbox import Template, flags
from text.template_attacks import ATTACKS

MESSAGES = [{"role": "user", "content": "hi"}]


def shown(source: str, **variables: Any) -> str:
    return Template(source).render({"messages": MESSAGES, **variables}, 1 << 18)


# --- time and memory -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Any]]:
    """How each attack ended, all of them in one process that must outlive them."""
    program = Path(__file__).with_name("template_attacks.py")
    child = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        out, _ = child.communicate(json.dumps([*ATTACKS]), timeout=300)
    except subprocess.TimeoutExpired:
        child.kill()
        out, _ = child.communicate()
    return {line[0]: line[1:] for line in map(json.loads, out.splitlines())}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_end_soon(outcomes: dict[str, list[Any]], name: str) -> None:
    assert name in outcomes, f"it hangs or kills the process; {len(outcomes)} came before it"
    compiling, running, grown, ended = outcomes[name]
    assert compiling < 2.6 and running < 1.1
    assert grown < 300
    assert ended.startswith(("ValueError: the chat template ", "text of "))
    assert "MemoryError" not in ended


# --- ways out --------------------------------------------------------------------------------

ESCAPES = [
    "''.__class__.__mro__[1].__subclasses__()",
    "''['__class__']",
    "''|attr('__class__')",
    "(''|attr('__class__')).mro()",
    "['']|map(attribute='__class__')|first",
    "['']|map('attr', '__class__')|first",
    "['']|map(attribute='join.__self__')|first",
    "[['']]|map(attribute='0.__class__')|first",
    "['']|groupby('__class__')|first|first",
    "['']|selectattr('__class__')|first",
    "(['', 'a']|sort(attribute='__class__'))[0].__class__",
    "['']|sum(attribute='__class__')",
    "['']|join(attribute='__class__')",
    "['']|min(attribute='__class__')|attr('__class__')",
    "['']|unique(attribute='__class__')|first|attr('__class__')",
    "'{0.__class__}'.format('')",
    "'{0.__class__.__mro__}'.format('')",
    "'{0[__class__]}'.format('')",
    "'{a.__init__.__globals__}'.format(a=namespace())",
    "'{0.format.__self__}'.format('')",
    "'{0.upper}'.format('')",
    "'{!r}'.format(range)",
    "'%s' % range",
    "'%r' % [range]",
    "'%s'|format(namespace)",
    "''.format_map({})",
    "''.format.__globals__",
    "''.format|attr('__wrapped__')",
    "'a'|attr('form' ~ 'at')",
    "''.maketrans('a', 'b')",
    "''.encode('utf-8')",
    "''.translate({})",
    "raise_exception.__globals__",
    "raise_exception.__code__",
    "raise_exception.__closure__",
    "raise_exception|attr('__globals__')",
    "strftime_now['__globals__']",
    "dict.__init__.__globals__",
    "dict.fromkeys('ab')",
    "dict|attr('mro')",
    "namespace.__init__",
    "namespace.mro()",
    "namespace().__class__",
    "namespace()['__class__']",
    "namespace()|attr('_Namespace__attrs')",
    "namespace(__class__=1).__class__.__mro__",
    "range.__wrapped__",
    "range(1).__reduce__()",
    "messages.append(1)",
    "messages.__init__()",
    "messages.clear()",
    "messages[0].update(a=1)",
    "messages[0].setdefault('a', 1)",
    "messages[0].pop('role')",
    "messages[0].__class__",
    "messages[0].items().__class__",
    "messages[0].items().mapping",
    "messages[0].keys().isdisjoint([])",
    "messages.copy()",
    "messages.sort()",
    "(messages|map('string')).gi_frame",
    "(messages|map('string')).gi_code",
    "(messages|map('string')).send(1)",
    "(messages|map('string'))|attr('gi_frame')",
    "(messages|map('string')).throw('x')",
    "nothing.__class__",
    "nothing._undefined_exception",
    "nothing|attr('_undefined_obj')",
    "(nothing|default(nothing))._fail_with_undefined_error()",
    "nothing()",
    "self.__class__",
    "self._TemplateReference__context",
    "self|attr('_TemplateReference__context')",
    "self.x",
    "super()",
    "context",
    "environment",
    "_",
    "l_0_messages",
    "resolve('messages')",
    "(1).__class__",
    "(1).to_bytes(9, 'big')",
    "(1.5).as_integer_ratio()",
    "(1.5).hex()",
    "(1).real.__class__",
    "true.__class__",
    "lipsum(n=100000)",
    "lipsum.__globals__",
    "cycler(1)",
    "cycler.__init__.__globals__",
    "joiner()",
    "get_flashed_messages()",
    "''|safe|attr('__html__')",
    "(''|safe).escape('<')",
    "(''|safe).unescape()",
    "('<'|e).__class__",
    "messages|pprint",
    "messages|random",
    "messages|xmlattr",
    "'x'|striptags",
    "'x'|urlize",
    "'x'|filesizeformat",
    "''.join.__self__.__class__",
    "[].index.__self__.append(1)",
    "{}.get.__self__.update(a=1)",
    "('attr' is filter).__class__",
    "namespace is callable and namespace.__call__",
]
BODIES = {
    "macro function": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "macro environment": "{% macro f() %}{% endmacro %}{{ f._environment }}",
    "macro by attr": "{% macro f() %}{% endmacro %}{{ f|attr('_func') }}",
    "macro call": "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
    "macro itself": "{% macro f() %}{% endmacro %}{{ f }}",
    "macro in a list": "{% macro f() %}{% endmacro %}{{ [f] }}",
    "caller": "{% macro f() %}{{ caller._func.__code__ }}{% endmacro %}{% call f() %}{% endcall %}",
    "loop itself": "{% for i in [1] %}{{ loop }}{% endfor %}",
    "loop function": "{% for i in [1] recursive %}{{ loop._recurse.__globals__ }}{% endfor %}",
    "loop by attr": "{% for i in [1] %}{{ loop|attr('_iterator') }}{% endfor %}",
    "loop undefined": "{% for i in [1] %}{{ loop._undefined }}{% endfor %}",
    "loop vars": "{% for i in [1] %}{{ _loop_vars }}{{ missing }}{% endfor %}",
    "loop in a format": "{% for i in [1] %}{{ '{0._iterator}'.format(loop) }}{% endfor %}",
    "private in namespaces": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "private in namespaces, read": "{% set ns = namespace(_a='secret') %}{{ ns._a }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "module": "{% from 'os' import system %}{{ system('true') }}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "context in calls": "{{ raise_exception(_loop_vars) }}",
}


@pytest.mark.parametrize(
    "source", [*("{{ " + escape + " }}" for escape in ESCAPES), *BODIES.values()]
)
def test_templates_reach_nothing(source: str) -> None:
    try:
        text = shown(source)
    except ValueError as error:
        assert str(error).startswith("the chat template ")
        return
    assert text == "", "what is not there writes nothing"


def test_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": "hi", "tags": ["a"]}]
    with pytest.raises(ValueError):
        Template("{{ messages[0].tags.append('b') }}").render({"messages": messages}, 1 << 18)
    assert messages == [{"role": "user", "content": "hi", "tags": ["a"]}]


# --- what is allowed works as in jinja2 -------------------------------------------------------

SAME = [
    "{{ '**%s** (%d%%)' % ('a', 50) }}",
    "{{ 'in 2024: %s * %05.2f' % ('a', 1.5) }}",
    "{{ 'in 2024: {} {1}'.format(1) if false else 'in 2024: {}'.format([1, 'a']) }}",
    "{{ '{:>5}|{:<5}|{:^5}|{:05d}|{!r}'.format('a', 'b', 'c', 7, 'd') }}",
    "{{ '%(a)s-%(b)r' % {'a': [1], 'b': 'c'} }}",
    "{{ (1, 2) * 2 }}{{ [1] * 2 }}{{ (1,) + (2,) }}",
    "{{ 'aXbXc'.rsplit('X', 1) }}{{ 'aXbXc'.rpartition('X') }}{{ 'abcb'.rfind('b') }}",
    "{{ 'aXbXc'.replace('X', '', 1) }}{{ 'aa'|replace('a', 'b', 1) }}{{ 11|replace(1, 2) }}",
    "{{ {'a': {'b': 1}}.keys() }}{{ {'a': 1}.values() }}{{ {'a': 1}.items() }}",
    "{{ {'a': 1}.keys()|list }}{{ {'b': 1, 'a': 2}|dictsort }}{{ dict({'a': 1}, b=2) }}",
    "{{ dict([('a', 1)]) }}{{ {'a': 1, 'a': 2} }}{{ {1: 2, none: 3, true: 4, 1.5: 5} }}",
    "{{ [{'f': {'n': 'b'}}, {'f': {'n': 'a'}}]|join(', ', attribute='f.n') }}",
    "{{ [{'f': {'n': 'b'}}, {'f': {'n': 'a'}}]|sort(attribute='f.n')|map(attribute='f.n')|list }}",
    "{{ ['b', 'a', 'B']|unique|list }}{{ ['b', 'a', 'B']|unique(true)|list }}",
    "{{ 'user' in messages|map(attribute='role') }}{{ 'a' not in messages|map(attribute='role') }}",
    "{{ [{'n': 5000}, {'n': 1}]|selectattr('n', 'gt', 4096)|list }}"
    "{{ [5000]|select('gt', 4096)|list }}",
    "{{ [{}]|groupby('n', default=2024)|list }}{{ [{}]|map(attribute='n', default=2024)|list }}",
    "{% macro f() %}x{% endmacro %}{% set ns = namespace(r=range(3), f=f, g=[1]|map('string')) %}"
    "{{ ns.r|list }}{{ ns.f() }}{{ ns.g|list }}{% set ns.g = 'ab'|map('upper') %}{{ ns.g|list }}",
    "{{ x|default(99999) }}{{ 99999|string }}{{ 99999 // 2 }}{{ ['a'] * 2000 }}{{ 'a' * 2000 }}",
    "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 'a' in 'abc' in ['abc'] }}{{ none == none }}",
    "{{ messages|selectattr('role', 'in', ['user'])|list|length }}",
    "{{ messages|groupby('role')|map(attribute='grouper')|join }}",
    "{{ [3, 1, 2]|max }}{{ [3, 1, 2]|min }}{{ [3, 1, 2]|sort(reverse=true) }}{{ [1, 2]|sum }}",
    "{{ [['a'], ['b']]|map('map', 'upper')|map('list')|list }}"
    "{{ [[1]]|map('map', 'string')|map('join')|join }}",
    "{{ range(7)|batch(3, 'x')|list }}{{ range(7)|slice(3)|map('list')|list }}",
    "{{ '<&>'|e }}{{ '<b>'|safe }}{{ 'a\"'|escape }}{{ \"'\"|forceescape }}",
    "{{ '  a '|trim }}{{ 'xxaxx'|trim('x') }}{{ 'a b'|title }}{{ 'a b'|wordcount }}",
    "{{ '7'|int + '1.5'|float }}{{ 'x'|int(3) }}{{ 'ff'|int(0, 16) }}{{ 1.55|round(1) }}",
    "{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 10 }}{{ -7 }}{{ 7 is divisibleby 7 }}{{ 7 is odd }}",
    "{% macro f(a, b='x') %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}"
    "{{ f(1, 2, 3, c=4) }}",
    "{% macro f() %}[{{ caller('a') }}]{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}",
    "{% for i in [1, [2, 3]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}",
    "{% for i in 'abc' %}{{ loop.cycle('x', 'y') }}{{ loop.changed(i) }}{{ loop.previtem }}"
    "{{ loop.nextitem }}{{ loop.last }}{{ loop.revindex }}{% endfor %}",
    "{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}|items|list }}",
    "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + ['x'] %}{{ ns.a }}"
    "{% set x %}a{% endset %}{{ x }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}",
    "{{ 'A' is upper }}{{ 'A' is lower }}{{ 3 is gt 2 }}{{ 'a' is in 'ab' }}{{ [1] is eq [1] }}",
    "{{ 'abc'[::-1] }}{{ 'abc'[1:] }}{{ [1, 2, 3][:-1] }}{{ (1, 2, 3)[1:] }}{{ 'abc'|reverse }}",
    "{{ 'a\nb\n\nc'|indent(2) }}{{ 'a\nb'|indent('> ', true) }}"
    "{{ 'a\n\nb'|indent(2, blank=true) }}",
    "{{ 'ß'|upper }}{{ 'İ'|lower }}{{ 'ﬃ'.title() }}{{ 'a'.isalpha() }}{{ 'x' * 3 }}",
    "{{ messages|tojson if false else [1, 'a', none, {'b': true}]|string }}",
]


@pytest.mark.parametrize("source", SAME)
def test_what_is_allowed_is_as_in_jinja2(source: str) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    assert shown(source) == plain.from_string(source).render(messages=MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ strftime_now(messages[0].content) }}",
        "{{ '%c%c' % (104, 105) }}",
        "{{ '{:c}{:c}'.format(104, 105) }}",
        "{{ [messages[0].content, 'hi']|tojson(separators=('\"hi\"', ':')) }}",
        "{{ messages[0].content|e }}{{ messages[0].content|upper|title }}",
        "{{ '%s' % messages[0].content }}{{ '{}'.format(messages[0].content) }}",
        "{{ '%r' % messages[0].content }}{{ '%5s' % messages[0].content }}",
        "{{ 'x'.replace('x', messages[0].content) }}{{ messages[0].content.replace('', '') }}",
        "{{ messages[0].content|list|join }}{{ messages[0].content|reverse|reverse }}",
        "{% for c in messages[0].content %}{{ c }}{% endfor %}",
        "{{ messages[0].content|map('upper')|join|lower }}",
        "{{ messages[0].content|indent(0)|trim|string|safe }}",
        "{{ dict([(messages[0].content, 1)])|list|first }}",
        "{{ messages[0].content ~ '' }}{{ '' ~ messages[0].content }}{{ messages[0].content * 2 }}",
    ],
)
def test_text_of_messages_stays_theirs(source: str) -> None:
    text = shown(source)
    own = flags(text)
    theirs = "".join(letter for letter, ours in zip(text, own, strict=True) if not ours)
    assert "hi" in theirs.lower()
    ours = "".join(letter for letter, flag in zip(text, own, strict=True) if flag)
    assert not set("hHiI") & set(ours) or "separators" in source


# --- more than one at once --------------------------------------------------------------------


def test_threads_have_budgets_of_their_own() -> None:
    hungry = Template("{% for i in range(99999) %}{% set x = 'a' * 1000 %}{% endfor %}")
    modest = Template("{% for i in range(300) %}{{ 'a' * 100 }}{% endfor %}")
    begun, results = threading.Barrier(2), []

    def starve() -> None:
        begun.wait(10)
        with pytest.raises(ValueError, match="too much text"):
            hungry.render({}, 1 << 18)

    thread = threading.Thread(target=starve)
    thread.start()
    begun.wait(10)
    while thread.is_alive() or not results:
        results.append(modest.render({}, 1 << 18))
    thread.join()
    assert set(results) == {"a" * 30000}


def test_an_interrupt_gets_through() -> None:
    template = Template(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    )
    threading.Timer(0.1, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        template.render({}, 1 << 18)


def test_long_expressions_are_refused_before_they_are_parsed() -> None:
    assert shown("{{ [" + "1," * 500 + "] | length }}") == "500"
    with pytest.raises(ValueError, match="an expression is too long"):
        shown("{{ 1" + "+1" * 1500 + " }}")


def test_small_stacks_are_enough() -> None:
    deep = (
        "nested sums",
        "nested if",
        "nested lists",
        "endless macro",
        "recursive loop",
        "many elifs",
    )
    sources = [ATTACKS[name] for name in deep]
    ends: list[str] = []

    def attack() -> None:
        for source in sources:
            try:
                ends.append(shown(source))
            except ValueError as error:
                ends.append(str(error))

    before = threading.stack_size(512 << 10)
    try:
        thread = threading.Thread(target=attack)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(ends) == len(sources)


def test_errors_hold_nothing_of_the_template() -> None:
    with pytest.raises(ValueError) as caught:
        shown("{% set x = 'a' * 4000000 %}{{ raise_exception('b' * 4000000) }}")
    assert len(str(caught.value)) < 1100
    assert caught.value.__cause__ is None and caught.value.__context__ is None
