"""Which command runs, and how it ends: one parser, one place that turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import redirect_stderr
from difflib import get_close_matches
from types import ModuleType
from typing import Any, NoReturn

from nanocupy.cli.flags import in_flags
from nanocupy.cli.output import warnings_noted
from nanocupy.distributed.launcher import launched_rank

COMMANDS = {
    "generate": "answer one prompt, streamed as it comes",
    "chat": "talk to a model",
    "bench": "measure tokens/s, and how near they are to the machine's limit",
    "info": "show versions, CPU, devices and folders; or what a model holds",
    "convert": "quantise a model, or turn a GGUF file into a folder",
}
ALONE = ("info", "convert")  # run by rank 0 alone, if mpirun starts them several times
EXAMPLES = """\
start here:
  nanocupy generate "Why is the sky blue?"
  nanocupy chat
  nanocupy info

every command explains itself: nanocupy generate --help
NANOCUPY_TRACEBACK=1 shows where an error came from
"""
INTERRUPTED = 130
BROKEN_PIPE = 141


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that accepts no abbreviations, and gives hints for misspelt flags."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", Help)
        super().__init__(allow_abbrev=False, **kwargs)

    def unknown(self, extra: list[str]) -> NoReturn:
        """Exit with an error that names the unknown argument and the closest known flag."""
        word = extra[0]
        known = [flag for action in self._actions for flag in action.option_strings]
        close = get_close_matches(word.split("=")[0].replace("_", "-"), known, 1)
        hint = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
        self.error(f"unknown argument {word}: {hint}")


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples, and has a column wide enough for our flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Version(argparse.Action):
    """`--version`, imported only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nanocupy.version import __version__

        print(f"nanocupy {__version__}")
        parser.exit()


def run(argv: list[str]) -> int:
    """Parse, run, and turn every expected failure into one line on stderr and an exit code."""
    try:
        code = _dispatch(argv) if launched_rank() == 0 else _run_on_other_rank(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader is gone: nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return _failed(error, 2)
    except (RuntimeError, MemoryError) as error:
        return _failed(error, 1)


def _run_on_other_rank(argv: list[str]) -> int:
    """Run the command on another rank than the first: it takes part, and prints nothing.

    It never fails because of wrong arguments: mpirun would end rank 0 before it prints the error.
    """
    if argv and argv[0] in ALONE:
        return 0
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end)
    try:
        with redirect_stderr(sys.stdout):
            module, args = _parse(argv)
        return int(module.run(args)) if module else 0
    except (SystemExit, ValueError):
        return 0


def _dispatch(argv: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # escape what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    module, args = _parse(argv)
    with warnings_noted():
        return int(module.run(args)) if module else 2


def _parse(argv: list[str]) -> tuple[ModuleType | None, argparse.Namespace]:
    """The command's module and its arguments; without a command print help: no module."""
    name = argv[0] if argv and argv[0] in COMMANDS else None
    module = importlib.import_module(f"nanocupy.cli.{name}") if name else None
    parser, sub = _parser(name, module)
    args, extra = parser.parse_known_args(argv)
    if extra:
        (sub or parser).unknown(extra)
    if module is None:
        parser.print_help(sys.stderr)
    return module, args


def _parser(name: str | None, module: ModuleType | None) -> tuple[Parser, Parser | None]:
    """(the parser, that of the command that will run). Only that command gets its arguments, so
    that help stays quick."""
    parser = Parser(
        prog="nanocupy",
        description="LLM inference without a deep-learning framework.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    chosen = None
    for command, line in COMMANDS.items():
        if command != name or module is None:
            commands.add_parser(command, help=line)
            continue
        chosen = commands.add_parser(
            command, help=line, description=module.__doc__, epilog=module.EXAMPLES
        )
        module.add_arguments(chosen)
    return parser, chosen


def _failed(error: Exception, code: int) -> int:
    if os.environ.get("NANOCUPY_TRACEBACK"):
        raise error
    text = in_flags(str(error)) or type(error).__name__
    print(f"nanocupy: error: {text}", file=sys.stderr)
    return code
