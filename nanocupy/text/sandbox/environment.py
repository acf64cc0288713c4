"""The jinja2 environment of chat templates, in which every operation is checked."""

from __future__ import annotations

from collections.abc import Iterable
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame, operators
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from nanocupy.text.sandbox.filters import FILTER_TABLE
from nanocupy.text.sandbox.formats import braces
from nanocupy.text.sandbox.functions import FUNCTIONS, TEST_TABLE
from nanocupy.text.sandbox.metering import budget, budget_for, metered
from nanocupy.text.sandbox.methods import METHODS, TEXT_METHODS
from nanocupy.text.sandbox.operators import OPERATORS
from nanocupy.text.sandbox.provenance import join, template_text
from nanocupy.text.sandbox.values import compared, concatenate, kind_of, searched, to_text

MAX_SOURCE = 1 << 17
"""Characters of a template; the longest that models come with have 50,000."""
MAX_NODES = 1 << 14
"""Parts of a parsed template: about one for 10 characters of those that models come with."""
MAX_WORDS = 2048
"""Words of one expression or tag (48 in those that models come with). Each may be one level deeper,
and compiling takes stack for each level."""
MAX_NESTING, MAX_LOOPS = 200, 20
"""Nested parts, and nested loops and macros; Python has the same limit for loops."""
MAX_SCOPES = 1 << 20
"""Names times branches: the compiler copies its table of names at each branch."""
MAX_ERROR = 1000


class Template:
    """A compiled chat template. ValueError if it does not compile."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise ValueError(
                f"the chat template does not compile: it has {len(source)} characters, "
                f"at most {MAX_SOURCE} are allowed"
            )
        try:
            self._template = _ENVIRONMENT.from_string(source)
            return
        except Exception as error:  # a template can make the compiler raise anything
            reason = _reason(error)
        raise ValueError(f"the chat template does not compile: {reason}")

    def render(self, variables: dict[str, Any], limit: int) -> str:
        """The text, of at most `limit` characters, with the template's own characters marked (see
        `provenance`). Variables are of plain JSON types. ValueError for whatever goes wrong.
        """
        try:
            return self._render(variables, limit)
        except Exception as error:  # a template is a program: it can raise anything
            reason = _reason(error)
        # Outside of the handler, so that the template's values are freed.
        raise ValueError(f"the chat template failed: {reason}")

    def _render(self, variables: dict[str, Any], limit: int) -> str:
        given = metered(variables)
        with budget_for(given._weight) as left:
            pieces = []
            for piece in self._template.generate(given):
                limit -= len(piece)
                if limit < 0:
                    raise SecurityError("it writes far more text than it was given")
                left.spend(items=1)
                pieces.append(piece)
            return join(pieces)


def _reason(error: Exception) -> str:
    return str(error)[:MAX_ERROR] or type(error).__name__


# Statements that templates may have. None of them loads other templates.
_STATEMENTS = (
    *(nodes.Output, nodes.For, nodes.If, nodes.Macro, nodes.CallBlock, nodes.FilterBlock),
    *(nodes.With, nodes.Assign, nodes.AssignBlock, nodes.ExprStmt, nodes.Break, nodes.Continue),
)


class _Generator(CodeGenerator):
    """Generates code that marks constants, and makes texts and lists through the environment."""

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:
        if isinstance(node.value, str):
            self.write(f"environment.template_text({node.value!r})")
        else:
            super().visit_Const(node, frame)

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:
        self.write(f"environment.template_text({node.data!r})")

    def _output_const_repr(self, group: Any) -> str:
        return f"environment.template_text({''.join(group)!r})"

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._call("concatenate", "(", node.nodes, ",)", frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._call("make_list", "(", node.items, ",)" if node.items else ")", frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._call("make_tuple", "(", node.items, ",)" if node.items else ")", frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("environment.make_dict((")
        for pair in node.items:
            self.write("(")
            self.visit(pair.key, frame)
            self.write(", ")
            self.visit(pair.value, frame)
            self.write("), ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._call("compared", "(", [node.expr], ")", frame)
        for operand in node.ops:
            self.write(f" {operators[operand.op]} ")
            name = "searched" if operand.op in ("in", "notin") else "compared"
            self._call(name, "(", [operand.expr], ")", frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.cut(")
        self.visit(node.node, frame)
        for part in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            self.visit(nodes.Const(None) if part is None else part, frame)
        self.write(")")

    def _call(self, name: str, start: str, parts: Any, end: str, frame: Frame) -> None:
        self.write(f"environment.{name}({start}")
        for index, part in enumerate(parts):
            self.write(", " if index else "")
            self.visit(part, frame)
        self.write(f"{end})")


@pass_context  # else jinja2 would compute constants while it compiles
def _finalize(context: Any, value: Any) -> str:
    return to_text(value)


class _Undefined(Undefined):
    """jinja2's, with errors that name plain str, list and dict."""

    def __init__(self, hint: Any = None, obj: Any = missing, *rest: Any, **named: Any) -> None:
        plain: Any = next((kind() for kind in (str, list, dict) if isinstance(obj, kind)), obj)
        super().__init__(hint, plain, *rest, **named)


def _check_words(words: Iterable[tuple[int, str, str]]) -> None:
    """Refuse expressions that are too long, before they are parsed."""
    count = 0
    for line, kind, _ in words:
        count = 0 if kind in ("variable_begin", "block_begin", "data") else count + 1
        if count > MAX_WORDS:
            raise TemplateSyntaxError("an expression is too long", line)


def _check_tree(tree: nodes.Template) -> None:
    """Refuse unknown statements, and templates that would take long to compile."""
    found, names, branches = 0, set(), 1
    left: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while left:
        node, depth, scopes = left.pop()
        found += 1
        scopes += isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.With))
        depth += len(node.elif_) if isinstance(node, nodes.If) else 0  # Python nests them
        if found > MAX_NODES or depth > MAX_NESTING or scopes > MAX_LOOPS:
            raise TemplateSyntaxError("it is too long, or nested too deeply", 1)
        if isinstance(node, nodes.Stmt) and not isinstance(node, _STATEMENTS):
            word = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{word!r} cannot be used in chat templates", 1)
        branches += isinstance(node, (nodes.If, nodes.CondExpr))
        if isinstance(node, nodes.Name):
            names.add(node.name)
        left += [(child, depth + 1, scopes) for child in node.iter_child_nodes()]
    if len(names) * branches > MAX_SCOPES:
        raise TemplateSyntaxError("it has too many names and branches", 1)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(OPERATORS)
    code_generator_class = _Generator
    concat = staticmethod(concatenate)  # joins the output of a block or a macro
    concatenate = staticmethod(concatenate)
    template_text = staticmethod(template_text)
    compared = staticmethod(compared)
    searched = staticmethod(searched)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse, and add a check of the time to every loop."""
        _check_words(self.lex(source))
        tree = super()._parse(source, name, filename)
        _check_tree(tree)
        for loop in tree.find_all(nodes.For):
            tick = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(tick).set_lineno(loop.lineno))
        return tree

    @staticmethod
    def tick() -> None:
        """Called in every turn of a loop: `call` checks the time."""

    @staticmethod
    def make_list(items: Any) -> Any:
        """`[a, b]`"""
        return budget().make_list(items)

    @staticmethod
    def make_tuple(items: Any) -> Any:
        """`(a, b)`"""
        budget().charge(items=len(items) + 2)
        budget().weigh(items)
        return items

    @staticmethod
    def make_dict(items: Any) -> Any:
        """`{"a": b}`"""
        return budget().make_dict(items)

    @staticmethod
    def cut(value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`"""
        if isinstance(value, str):
            budget().charge(letters=len(value))
        elif isinstance(value, (list, tuple)):
            budget().charge(items=len(value))
        part = value[start:stop:step]
        return budget().make_list(part) if isinstance(value, list) else part

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`"""
        if isinstance(argument, (list, dict)):  # as jinja2: they have no hash
            return self.undefined(obj=obj, name=to_text(argument))
        if argument is not None and not isinstance(argument, (str, int, float, Undefined)):
            raise SecurityError(f"a {type(argument).__name__} cannot be a key")
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`left operator right`"""
        budget().check_time()
        return OPERATORS[operator](left, right)

    def wrap_str_format(self, value: Any) -> Any:
        """Do nothing: `call` checks formats."""
        return None

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Make any call of a template."""
        budget().check_time()
        if obj is self.tick:
            return None
        if isinstance(obj, (BuiltinMethodType, MethodType, Macro, LoopContext)):
            kwargs.pop("_loop_vars", None)  # added by jinja2
            kwargs.pop("_block_vars", None)
        if isinstance(obj, (BuiltinMethodType, MethodType)):
            return self._call_method(obj.__self__, obj.__name__, obj, args, kwargs)
        if isinstance(obj, (Macro, LoopContext)):
            _check_arguments((*args, *kwargs.values()))
            with budget().call():
                return super().call(context, obj, *args, **kwargs)
        if not isinstance(obj, Undefined) and obj not in self.globals.values():
            raise SecurityError(f"a {kind_of(obj)} cannot be called by templates")
        return super().call(context, obj, *args, **kwargs)

    def _call_method(
        self, owner: Any, name: str, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(owner, str) and name in TEXT_METHODS:
            return TEXT_METHODS[name](owner, *args, **kwargs)
        if isinstance(owner, str) and name == "format":
            return braces(self, owner, *args, **kwargs)
        known = next((names for kind, names in METHODS.items() if isinstance(owner, kind)), ())
        if name in known or isinstance(owner, LoopContext):
            _check_arguments((*args, *kwargs.values()))
            return method(*args, **kwargs)
        raise SecurityError(f"{name} of a {kind_of(owner)} cannot be called by templates")


def _check_arguments(values: Any) -> None:
    budget().charge(items=len(values))
    for value in values:
        compared(value)


class _Generation(Extension):
    """`{% generation %}`, which marks the assistant's text for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own interface)

    def parse(self, parser: Parser) -> nodes.Node:
        """The nodes between the tags, in a scope of their own, as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.With([], [], body).set_lineno(line)


def _make_environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        finalize=_finalize,
        undefined=_Undefined,
        optimized=False,
    )
    environment.filters.clear()
    environment.filters.update(FILTER_TABLE)
    environment.tests.clear()
    environment.tests.update(TEST_TABLE)
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    environment.globals.update(FUNCTIONS)
    return environment


_ENVIRONMENT = _make_environment()
