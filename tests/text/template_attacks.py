"""Chat templates that want to hang the process or to fill its memory, by name.

Run as a program it tries each that is named on stdin, and prints a line of JSON for each: its name,
CPU seconds of compiling and of running (those that look at the clock are stopped after 0.1 s), MiB
that the process grew by at most, and how it ended.
"""

from __future__ import annotations

import json
import sys
import time

_DOUBLED = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(100) %}"
_LISTS = _DOUBLED + "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
_MIXED = (  # every second character is a message's
    "{% set ns = namespace(x=messages[0].content[0] ~ 'a') %}{% for i in range(22) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
)
_M = str(2**61 - 1)  # whole numbers that differ by it have one hash
_COLLIDING = f"range(0, {_M} * 99999, {_M})"
_VIEWS = (
    "{% set ns = namespace(x={'a': 1}.values(), y={'a': 1}.items()) %}{% for i in range(60) %}"
    "{% set ns.x = {'a': ns.x, 'b': ns.x}.values() %}"
    "{% set ns.y = {'a': ns.y, 'b': ns.y}.items() %}"
    "{% endfor %}"
)
_SPACES = (
    "{% set ns = namespace(x=namespace()) %}{% for i in range(60) %}"
    "{% set ns.x = namespace(a=ns.x, b=ns.x) %}{% endfor %}"
)


def _long(name: str, letter: str, doublings: int) -> str:
    return f"{{% set {name} = '{letter}' %}}" + f"{{% set {name} = {name} ~ {name} %}}" * doublings


_HEX = _long("a", "f", 21) + _long("b", "f", 20)
_HEX += "{% set a = a|int(0, 16) %}{% set b = b|int(0, 16) %}"
_NEEDLE = _long("h", "a", 21) + _long("n", "a", 19) + "{% set n = n ~ 'b' ~ n %}"
_SHORT = _long("h", "a", 21) + "{% set n = 'a' * 40 ~ 'b' ~ 'a' * 40 %}"
_STRIP = _long("h", "a", 21) + _long("n", "b", 20)


def _many(text: str, count: int) -> str:
    return "".join(text.replace("@", str(i)) for i in range(count))


ATTACKS: dict[str, str] = {
    # loops and recursion
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{{ '' }}"
    "{% endfor %}{% endfor %}",
    "empty loops": "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% for k in r %}"
    "{% endfor %}{% endfor %}{% endfor %}",
    "loop filters": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}"
    "{% endfor %}",
    "loop over generators": "{% for i in range(99999) %}"
    "{% for j in range(99999)|map('string')|select %}{% endfor %}{% endfor %}",
    "continue": "{% for i in range(99999) %}{% for j in range(99999) %}{% continue %}{% endfor %}"
    "{% endfor %}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "macro varargs": "{% macro f() %}{{ f(varargs, varargs) }}{{ f(*varargs) }}{% endmacro %}"
    "{{ f(1) }}",
    "macro kwargs": "{% macro f() %}{{ f(a=kwargs, b=kwargs) }}{% endmacro %}{{ f(a=1) }}",
    "macro splat": "{% macro f() %}{{ varargs|length }}{% endmacro %}"
    + "{% set r = range(99999)|list %}"
    + "{{ f(*r) }}" * 3000,
    "call blocks": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call f() %}" * 60
    + "x"
    + "{% endcall %}" * 60,
    "call block recursion": "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}"
    "{{ f() }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "recursive loop, wide": "{% for x in range(99999) recursive %}{{ loop(range(99999)) }}"
    "{% endfor %}",
    "loop.changed": _LISTS + "{% for i in [1, 2] %}{{ loop.changed(ns.x) }}{% endfor %}",
    "loop.cycle": "{% for i in range(99999) %}{{ loop.cycle('a' * 25000, 'b' * 25000) }}"
    "{% endfor %}",
    "loop.length of generators": "{% for i in range(9999) %}"
    "{% for j in range(99999)|map('string') %}{{ loop.length }}{% break %}{% endfor %}{% endfor %}",
    "loop.previtem chain": "{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
    "{% set ns.x = [loop.previtem, ns.x] %}{% endfor %}{{ ns.x }}",
    "self": "{{ self }}{{ self.x() }}{{ 1 / 0 }}",
    # text that grows
    "constant folding": "{{ 'a' * 2000000000 }}",
    "constant folding, later": "{% if false %}{{ 'a' * 2000000000 }}{% endif %}{{ [0] * 10**9 }}",
    "doubling with +": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling with ~": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling, no loop": "{% set x = 'aaaa' %}" + "{% set x = x ~ x %}" * 50 + "{{ x }}",
    "doubling, mixed": _MIXED + "{{ ns.x|length }}",
    "doubling, mixed, kept": _MIXED
    + "{% set a = ns.x[1:] %}{% set b = a[1:] %}{% set c = b[::-1] %}"
    "{{ c|length }}",
    "mixed, letters": _MIXED + "{% for c in ns.x %}{% endfor %}{{ ns.x|list|length }}",
    "mixed, json": _MIXED + "{{ ns.x|tojson|length }}{{ [ns.x]|string|length }}",
    "mixed, split": _MIXED + "{{ ns.x.split('a')|length }}",
    "mixed, replaced": _MIXED + "{{ ns.x.replace('a', 'b')|length }}{{ ns.x|upper|length }}",
    "mixed, stripped": _MIXED + "{% for i in range(99999) %}{% set y = ns.x.strip('b') %}"
    "{% endfor %}",
    "set block": "{% set x %}{% for i in range(90000) %}{{ 'a' * 2500 }}{% endfor %}{% endset %}",
    "set blocks, nested": "{% set x = 'aaaa' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 50,
    "set block, filtered": "{% set x = 'a' * 250000 %}{% set y|replace('a', x) %}{{ x }}"
    "{% endset %}",
    "filter block": "{% filter replace('a', 'aaaaaaaa') %}" * 12 + "a" + "{% endfilter %}" * 12,
    "with": "{% with x = 'aa' %}" + "{% with x = x ~ x %}" * 18 + "{% endwith %}" * 19,
    "much text": "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "much buffered": "{% set a = 'a' * 2000000 %}{% set x %}{% for i in range(99999) %}"
    + "{{ a }}" * 500
    + "{% endfor %}{% endset %}",
    "indent": "{{ 'a\nb'|indent(2000000000) }}",
    "indent, many lines": "{% set q = 'a\n' * 250000 %}{{ q|indent(1)|length }}",
    "indent, wide text": "{{ ('\n' * 25000)|indent('a' * 25000)|length }}",
    "replace": "{% set x = 'a' * 250000 %}{{ x|replace('a', x) }}",
    "method replace": "{% set x = 'a' * 250000 %}{{ x.replace('a', x) }}",
    "replace nothing": "{{ ('a' * 250000).replace('', 'b' * 1000)|length }}",
    "replace in messages": "{{ (messages[0].content * 250000).replace('h', 'ab')|length }}",
    "join": "{% set x = 'a' * 250000 %}{{ range(99999)|join(x) }}",
    "method join": "{% set x = 'a' * 250000 %}{{ x.join('a' * 99999) }}",
    "escaped join": "{{ ('a' * 250000)|e|replace('a', 'b' * 25000) }}",
    "safe join": "{{ (('a' * 250000)|safe).join(['b'] * 90000)|length }}",
    "safe replace": "{{ (('a' * 250000)|safe).replace('a', 'b' * 25000)|length }}",
    "safe percent": "{{ ((('%s' * 1000)|safe) % (('a' * 25000,) * 1000))|length }}",
    "case that grows": "{{ ('\u0390' * 2000000)|upper|length }}",
    "splitlines, kept": "{% set q = 'a\n' * 250000 %}" + _many("{% set a@ = q.splitlines() %}", 60),
    "split, kept": "{% set q = 'a,' * 250000 %}" + _many("{% set a@ = q.split(',') %}", 60),
    "letters, kept": "{% set q = 'a' * 250000 %}" + _many("{% set a@ = q|list %}", 60),
    "slices, kept": "{% set ns = namespace(x=[]) %}{% set q = 'a' * 2000000 %}"
    "{% for i in range(99999) %}{% set ns.x = [ns.x, q[1:]] %}{% endfor %}",
    "steps": "{% set q = 'a' * 2000000 %}{% for i in range(99999) %}{% set a = q[::2] %}"
    "{% endfor %}",
    # formats
    "percent": "{{ '%2000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (2000000000, 1) }}",
    "percent, many": "{{ (('%(a)s' * 25000) % {'a': 'a' * 25000})|length }}",
    "percent, many widths": "{{ (('%(a)999d' * 250000) % {'a': 1})|length }}",
    "percent, repr": "{{ (('%(a)r' * 1000) % {'a': '\U000e0001' * 250000})|length }}",
    "percent, open": "{{ ('%(' * 2000000) % {'a': 1} }}",
    "percent, flags": "{{ ('%' ~ '#' * 2000000) % 1 }}",
    "filter format": "{{ '%2000000000d'|format(1) }}",
    "filter format, many": "{{ ('%(a)s' * 25000)|format(a='a' * 25000)|length }}",
    "method format": "{{ '{:>2000000000}'.format(1) }}",
    "method format, nested": "{{ '{:>{}}'.format(1, 2000000000) }}",
    "method format, many": "{{ ('{0}' * 25000).format('a' * 25000)|length }}",
    "method format, many widths": "{{ ('{0:999}' * 250000).format(1)|length }}",
    "method format, many items": "{{ ('{0[a]}' * 25000).format({'a': 'a' * 25000})|length }}",
    "method format, repr": "{{ ('{0!r}' * 1000).format(['a' * 250000])|length }}",
    "method format, path": "{{ ('{0' ~ '[0]' * 2000000 ~ '}').format([[1]]) }}",
    "method format, open": "{{ ('{' * 2000000).format(1) }}",
    "strftime": "{{ strftime_now('%2000000000d') }}",
    "strftime, long": "{{ strftime_now('%c' * 2000000) }}",
    "separators": "{{ (range(99999)|list)|tojson(separators=('a' * 250000, ':'))|length }}",
    "json indent": "{{ [[[[1]]]]|tojson(indent='a' * 2000000)|length }}",
    "json indent, deep": "{% set ns = namespace(x=range(9999)|list) %}{% for i in range(90) %}"
    "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson(indent=999)|length }}",
    "json astral": "{{ ('\U000e0001' * 2700000)|tojson(ensure_ascii=true)|length }}",
    "json escapes": "{{ ('\\\\' * 2700000)|tojson|length }}{{ ['\\n' * 2700000]|string|length }}",
    "json of marks": "{{ ('\"' * 2700000)|tojson|tojson|tojson|length }}",
    # searches
    "rfind": _NEEDLE + "{{ h.rfind(n) }}",
    "rindex": _NEEDLE + "{{ h.rindex(n) }}",
    "rsplit": _NEEDLE + "{{ h.rsplit(n)|length }}",
    "rpartition": _NEEDLE + "{{ h.rpartition(n)|length }}",
    "find": _NEEDLE + "{{ h.find(n) }}" * 999,
    "count": _NEEDLE + "{{ h.count(n) }}" * 999,
    "in, short": _SHORT + "{{ [" + "n in h," * 3000 + "] }}",
    "in, short, one test": _SHORT + "{{ [n] * 99999 | select('in', h) | list }}",
    "in, selected": _SHORT + "{{ ([n] * 999)|select('in', h)|list }}",
    "in, mapped": _SHORT + "{{ ([h] * 9)|map('replace', n, '')|list|length }}",
    "not in a list": "{% set h = ['a' * 200000] * 16 %}{{ ["
    + "'a' * 199999 ~ 'b' in h," * 1500
    + "] }}",
    "equal": "{% set a = 'a' * 2000000 %}{% set b = 'a' * 4000000 %}{{ ["
    + "a == b," * 3000
    + "] }}",
    "strip": _STRIP + "{{ h.strip(n ~ 'a')|length }}{{ h.strip(n ~ 'c')|length }}",
    "strip, wide": _long("h", "\u4e00", 21)
    + "{{ h.strip('"
    + "".join(map(chr, range(0x4E01, 0x4E01 + 20000)))
    + "\u4e00')|length }}",
    "trim": _STRIP + "{{ h|trim(n ~ 'a')|length }}",
    "startswith many": "{{ ('a' * 250000).startswith(('a' * 99999 ~ 'b',) * 99999) }}",
    # lists, dicts, comparisons
    "lists of lists": "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 50 + "{{ x }}",
    "lists of lists, tojson": "{% set x = ['a'] %}"
    + "{% set x = [x, x] %}" * 50
    + "{{ x|tojson }}",
    "lists of lists, %": "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 50 + "{{ '%s' % [x] }}",
    "lists of lists, ==": _LISTS + "{{ ns.x == ns.y }}",
    "lists of lists, in": _LISTS + "{{ ns.x in [ns.y] }}",
    "lists of lists, <": _LISTS + "{{ ns.x < ns.y }}",
    "tuples of tuples": "{% set x = ('a',) %}{% set y = ('a',) %}"
    + "{% set x = (x, x) %}{% set y = (y, y) %}" * 50
    + "{{ x == y }}",
    "dicts of dicts": "{% set x = {} %}{% set y = {} %}"
    + "{% set x = {1: x, 2: x} %}{% set y = {1: y, 2: y} %}" * 50
    + "{{ x == y }}",
    "views of views": _VIEWS + "{{ [ns.x] }}",
    "views of views, ==": _VIEWS + _VIEWS.replace("ns", "nt") + "{{ ns.y == nt.y }}",
    "views of views, raised": _VIEWS + "{{ raise_exception(ns.x) }}",
    "views as keys": _VIEWS + "{{ messages[ns.x].y }}",
    "namespaces": _SPACES + "{{ [ns.x] }}",
    "namespaces raised": _SPACES + "{{ raise_exception(ns.x) }}",
    "namespaces as keys": _SPACES + "{{ [][ns.x].y }}",
    "namespaces as filters": _SPACES + "{{ [1]|map(ns.x)|list }}",
    "namespaces as tests": _SPACES + "{{ [1]|select(ns.x)|list }}",
    "namespaces as attributes": _SPACES + "{{ ([1]|map(attribute=ns.x)|first).y }}",
    "namespaces formatted": _SPACES + "{{ '%s' % ns.x }}",
    "namespaces in formats": _SPACES + "{{ '{!r}'.format(ns.x) }}",
    "namespaces as arguments": _SPACES + "{{ 'a'.replace(ns.x, 'b') }}{{ [].index(ns.x) }}",
    "namespaces of themselves": "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x }}"
    "{{ ns.x == [ns.x] }}{{ ns.x|tojson }}",
    "generators kept": "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}"
    "{% set ns.x = ns.x|map('string') %}{% endfor %}{{ ns.x|list }}",
    "generators of each other": "{% set ns = namespace(x=[1], y=[1], z={1: 1}) %}"
    "{% for i in range(99999) %}{% set ns.x = ns.x|unique %}{% set ns.y = ns.y|select %}"
    "{% endfor %}{{ ns.x|list }}{{ ns.y|list }}",
    "maps of maps of maps": "{% set ns = namespace(x=['a']) %}{% for i in range(90) %}"
    "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|map(" + "'map', " * 80 + "'upper')|list|string }}",
    "sorted by filters": "{{ (range(99999)|map('string')|list)|map('replace', '1', 'a' * 99999)"
    "|list|length }}",
    "json of everything": "{{ (range(9999)|list)|map('tojson', indent=999)|join|length }}",
    "joined attributes": "{{ ([{'a': 'b' * 9999}] * 9999)|join(attribute='a')|length }}",
    "rendered lists": "{% set q = range(99999)|list %}{% for i in range(9999) %}"
    "{% set s = q|string %}{% endfor %}",
    "counted": "{% set q = ['a' * 1000] * 1000 %}{% for i in range(99999) %}"
    "{% set s = q.count('a' * 1000) + q.index('a' * 1000) %}{% endfor %}",
    "compared twice": "{% set q = ['a' * 1000] * 1000 %}{% set r = ['a' * 1000] * 1000 %}"
    "{% for i in range(99999) if q == r and q <= r and q in [r] %}{% endfor %}",
    "tested": "{% set q = range(99999)|list %}{{ ([q] * 1)|select('in', [q] * 1)|list|length }}"
    "{{ q|select('in', q)|list|length }}",
    "starts": "{% set t = ('a' * 4000,) * 1000 %}{{ ('a' * 4000000).startswith(t) }}"
    "{% for i in range(99999) %}{% set s = ('b' * 4000).endswith(t) %}{% endfor %}",
    "generators compared": "{{ ([1]|map('string')) == ([1]|map('string')) }}"
    "{{ ([1]|map('string')) < 1 }}",
    "generators of generators": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x|list, ns.x|list]|map('list') %}{% endfor %}{{ ns.x|list }}",
    "colliding, unique": "{{ " + _COLLIDING + "|unique|list|length }}",
    "colliding, dict": "{{ dict(" + _COLLIDING + "|batch(2))|length }}",
    "colliding, namespace": "{% set ns = namespace(" + _COLLIDING + "|batch(2)) %}",
    "colliding, literal": "{% set M = "
    + _M
    + " %}{{ {"
    + "".join(f"M*{i}:1," for i in range(2500))
    + "}|length }}",
    "colliding tuples": "{{ {"
    + "".join(
        "(" + ",".join("-1" if i >> b & 1 else "-2" for b in range(13)) + "):1," for i in range(500)
    )
    + "}|length }}",
    "sort": "{% set q = range(99999)|map('string')|list %}" + _many("{% set a@ = q|sort %}", 60),
    "sort, long": "{% set q = ['a' * 1000] * 9999 %}{% for i in range(999) %}"
    "{% set r = q|sort(case_sensitive=true) %}{% endfor %}",
    "sort, attribute": "{% set q = [{'a': 'b' * 25000}] * 160 %}{% for i in range(9999) %}"
    "{% set r = q|sort(attribute='" + "a," * 400 + "a') %}{% endfor %}",
    "sort, lists": "{% set q = (range(99999)|batch(3)|list) * 2 %}{{ q|sort|length }}",
    "groupby": "{% set q = (range(99999)|batch(1)|list) * 2 %}{{ q|groupby(0)|length }}",
    "groupby, kept": "{% set q = range(9999)|batch(1)|list %}"
    + _many("{% set a@ = q|groupby(0) %}", 999),
    "long attribute": "{{ [1]|map(attribute='ab.' * 5000000)|list }}",
    "long attribute, many": "{{ (range(99999)|list)|map(attribute='" + "a." * 400 + "a')|list }}",
    "long attribute, sum": "{{ [1]|sum(attribute='ab.' * 5000000) }}",
    "long attribute, join": "{{ [1]|join(attribute='ab.' * 5000000) }}",
    "dictsort": "{% set d = dict(range(99999)|map('string')|batch(2)) %}"
    "{% for i in range(9999) %}{% set r = d|dictsort(by='value') %}{% endfor %}",
    "dicts kept": "{% set q = range(99999)|map('string')|list %}"
    + _many("{% set a@ = dict(q|batch(2)) %}", 99),
    "dict copies": "{% set q = dict(range(99999)|batch(2)) %}"
    + _many("{% set a@ = dict(q) %}", 99),
    "map of lists": "{% set q = ['a' * 1000] * 99999 %}{{ q|map('list')|list|length }}",
    "map of maps": "{% set q = [range(99999)] * 99 %}{{ q|map('list')|list|length }}",
    "map of sums": "{% set q = [range(99999)] * 999 %}{{ q|map('sum')|list|length }}",
    "map of joins": "{% set q = [range(99999)] * 999 %}{{ q|map('join')|map('length')|sum }}",
    "map of firsts": "{% set q = ['a' * 999] * 99999 %}{{ q|map('last')|map('int')|sum }}" * 99,
    "select of tests": "{% set q = ['a' * 9999] * 999 %}{{ q|select('upper')|list }}" * 999,
    "batch": "{{ range(99999)|batch(1000, 'x')|list|length }}{{ range(9)|batch(10**9, 0)|list }}",
    "slice": "{{ range(99999)|slice(10**9)|list|length }}",
    "sum of lists": "{{ ([[0]] * 80000)|sum(start=[])|length }}",
    "lists added": "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}"
    "{% set ns.x = ns.x + [i] %}{% endfor %}",
    "tuples added": "{% set ns = namespace(x=(1,)) %}{% for i in range(99999) %}"
    "{% set ns.x = ns.x + (i,) %}{% endfor %}",
    "wordcount": "{{ ('ab ' * 5000000)|wordcount }}",
    "title": "{{ ('ab ' * 5000000)|title|length }}",
    # numbers
    "power": "{{ 9 ** 99 ** 99 }}",
    "product": "{% set ns = namespace(x=10) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}"
    "{% endfor %}",
    "long division": _HEX + "{{ a // b }}",
    "long remainder": _HEX + "{{ a % b }}",
    "long divisor": _HEX + "{{ a is divisibleby(b) }}",
    "long round": _HEX + "{{ a|round(-900) }}",
    "long digits": "{{ ('9' * 2000000)|int }}{{ ('9' * 4000000)|float }}",
    "long fraction": "{{ ('0.' ~ '1' * 3000000)|float }}",
    "long hex": "{{ 0x" + "f" * 25000 + " // 3 }}",
    "long literal": "{{ " + "9" * 25000 + " }}",
    "infinite range": "{{ range('inf'|float) }}{{ range('inf'|int) }}",
    "negative steps": "{{ range(0, -99999999999, -1)|list|length }}",
    "round": "{{ 1.5|round(400000000) }}{{ 10|round(-400000000) }}",
    # at compile time
    "nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "nested lists": "{{ " + "[" * 50000 + "]" * 50000 + " }}",
    "nested not": "{{ " + "not " * 30000 + "1 }}",
    "nested minus": "{{ " + "-" * 25000 + "1 }}",
    "nested if": "{% if 1 %}" * 6000 + "{% endif %}" * 6000,
    "nested for": "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    "nested conditions": "{{ " + "1 if 1 else " * 9000 + "1 }}",
    "nested macros": "{% macro a() %}" * 4000 + "{% endmacro %}" * 4000,
    "nested filters": "{{ 1" + "|abs" * 15000 + " }}",
    "nested sums": "{{ 1" + "+1" * 20000 + " }}",
    "nested attributes": "{{ a" + ".a" * 20000 + " }}",
    "nested calls": "{{ a" + "()" * 20000 + " }}",
    "many elifs": "{% if 0 %}" + "{% elif 0 %}" * 2500 + "{% endif %}",
    "many outputs": "{{a}}" * 9000,
    "many texts": "{{1}}a" * 9000,
    "many ifs": "{%if 1%}{%endif%}" * 7700,
    "many names": _many("{%set a@=1%}", 7000),
    "many names and ifs": _many("{%set a@=1%}", 3500) + "{%if 1%}{%endif%}" * 3500,
    "many names and loops": _many("{%set a@=1%}", 3500) + "{%for i in a%}{%endfor%}" * 2600,
    "many names and macros": _many("{%set a@=1%}", 3500)
    + _many("{%macro m@()%}{%endmacro%}", 2000),
    "many names and includes": _many("{%set a@=1%}", 3500) + "{%include 'x'%}" * 4000,
    "many names and blocks": _many("{%set a@=1%}", 3500)
    + _many("{%block b@ scoped%}{%endblock%}", 1800),
    "many macros": _many("{%macro m@()%}{%endmacro%}", 2500),
    "many items": "{{ [" + "0," * 20000 + "]|length }}",
    "many comparisons": "{{ 1" + "<1" * 20000 + " }}",
    "many arguments": "{{ f(" + "a," * 20000 + ") }}",
    "many names and conditions": _many("{%set a@=1%}", 2500) + "{{a if a}}" * 2900,
    "many parts, deep in loops": "{% for i in a %}" * 19
    + "{{a}}{{1}}" * 3000
    + "{% endfor %}" * 19,
    "many parts, deep in macros": "{% macro a() %}" * 20
    + "{{a}}{{1}}" * 3000
    + "{% endmacro %}" * 20,
    "many parts, deep in branches": "{% if a %}" * 90 + "{{a}}{{1}}" * 3000 + "{% endif %}" * 90,
    "many parts, deep in calls": "{% call a() %}" * 20 + "{{a}}{{1}}" * 3000 + "{% endcall %}" * 20,
    "many parts, deep in captures": "{% set a %}" * 90 + "{{a}}{{1}}" * 3000 + "{% endset %}" * 90,
    "many sums": "{{ " + "(1" + "+1" * 90 + ")" + (",(1" + "+1" * 90 + ")") * 80 + " }}",
    "many strings": "{{ '" + "'~'" * 30000 + "' }}",
    "many strings, side by side": "{{ " + "'a' " * 30000 + " }}",
    "many comments": "{# #}" * 20000,
    "open comments": "{# " * 20000,
    "open strings": "{{ '" * 30000,
    "open raw": "{% raw %}" * 14000,
    "many spaces": "{{ a" + " " * 120000 + "}}",
    "many lines": "\n" * 130000,
    "many lines, stripped": "{%- set a = 1 -%}\n    " * 6000,
    "blanks before tags": " " * 20000 + "{% set a = 1 %}" + " \n" * 30000 + "{%- set a = 1 %}",
    "many digits": "{{ 1" + "_1" * 20000 + " }}",
    "many points": "{{ 1" + ".1" * 20000 + " }}",
    "long name": "{{ " + "a" * 130000 + " }}",
    "long name, often": "{{ " + "a" * 1000 + " }}" + ("{% set " + "a" * 1000 + " = 1 %}") * 120,
    "huge source": "a" * 50_000_000,
    "broken": "{% for %}",
    "trans": "{% trans %}x{% endtrans %}",
    "autoescape": "{% autoescape true %}{{ '<' * 2000000 }}{% endautoescape %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'os' import path %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "super": "{% block a %}{{ super() }}{% endblock %}",
}


def _peak_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main() -> None:
    """Try each attack named on stdin."""
    from nanocupy.text.sandbox import Template, metering

    metering.MAX_SECONDS = 0.1  # what looks at the clock need not run to the end of it
    variables = {"messages": [{"role": "user", "content": "hi"}]}
    for name in json.load(sys.stdin):
        _forget_peak()
        before, start = _peak_mib(), time.process_time()
        compiled = None
        try:
            template = Template(ATTACKS[name])
            compiled = time.process_time()
            ended = f"text of {len(template.render(variables, 1 << 18))}"
        except ValueError as error:
            ended = f"ValueError: {error}"
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"[:300]
        end, grown = time.process_time(), _peak_mib() - before
        seconds = (compiled or end) - start, end - (compiled or end)
        print(json.dumps([name, *seconds, grown, ended]), flush=True)


if __name__ == "__main__":
    main()
