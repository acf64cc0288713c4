"""Talk to a model. Each turn sends the whole history; the prefix cache makes that cheap.

/reset forgets the conversation, /exit (or Ctrl-D) ends it, Ctrl-C ends the answer that is running.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from nanocupy.cli import flags
from nanocupy.cli.output import note, write
from nanocupy.cli.session import Messages, Session, check_sampling, load, sampling, stream

if TYPE_CHECKING:
    from nanocupy import SamplingParams

EXAMPLES = """\
examples:
  nanocupy chat
  nanocupy chat --system "You are a pirate." --temperature 0.7
  printf 'Hi!\\nWhat did I just say?\\n' | nanocupy chat
"""
COMMANDS = "/reset  /exit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy chat`."""
    flags.add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system message before all others")
    flags.add_sampling(parser, skip=("n", "prompt_logprobs", "logprobs"))
    flags.add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Read a line, stream the answer, until the end of input."""
    check_sampling(args)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input())
    with load(args) as session:
        if not session.chats:
            raise ValueError(f"--model {args.model} has no chat template: use nanocupy generate")
        params = sampling(args, session)
        note(f"{args.model}. {COMMANDS}")
        start: Messages = []
        if args.system is not None:
            start = [{"role": "system", "content": args.system}]
        history = list(start)
        while (line := _read()) is not None:
            if line == "/exit":
                break
            if line == "/reset":
                history = list(start)
                note("[forgotten]")
            elif line.startswith("/"):
                note(f"[unknown command {line}: {COMMANDS}]", always=True)
            elif line:
                history = _turn(session, history, line, params)
    return 0


def _read() -> str | None:
    """One line of input, or None at the end."""
    try:
        return (input("> ") if sys.stdin.isatty() else input()).strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        write("\n")
        return None


def _turn(session: Session, history: Messages, line: str, params: SamplingParams) -> Messages:
    """Stream one answer. Returns the history with it, or unchanged if the prompt is refused."""
    asked = [*history, {"role": "user", "content": line}]
    text = ""
    try:
        for chunk in stream(session, asked, params):
            text += chunk.text
            write(chunk.text)
            if chunk.output is not None and chunk.output.error:
                raise RuntimeError(chunk.output.error)
    except KeyboardInterrupt:
        note("[stopped]")
    except ValueError as error:
        note(f"[{flags.in_flags(str(error))}; /reset starts anew]", always=True)
        return history
    write("\n")
    return [*asked, {"role": "assistant", "content": text}]
