"""Answer one prompt. The text is streamed to stdout; everything else goes to stderr.

A model that was made for chat gets the prompt in its chat template, unless --raw is given. Ctrl-C
ends the answer and keeps what is there.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nanocupy.cli import flags
from nanocupy.cli.output import note, write, write_json
from nanocupy.cli.session import Session, check_sampling, load, sampling, stream, timings
from nanocupy.distributed.launcher import launched_rank

if TYPE_CHECKING:
    from nanocupy.engine.outputs import Chunk, RequestOutput

EXAMPLES = """\
examples:
  nanocupy generate "Why is the sky blue?"
  nanocupy generate --temperature 0 --max-tokens 50 "Name three rivers."
  nanocupy generate --system "Answer in French." "Good morning!"
  nanocupy generate --raw "Once upon a time"         the prompt as it stands, no template
  git diff | nanocupy generate --max-tokens 60 -     the prompt from stdin
  nanocupy generate --json "Hello" | jq .timings     for programs
"""
INTERRUPTED = 130


class Answers:
    """The `n` answers: the first is printed as it arrives, the others at the end."""

    def __init__(self, n: int, *, live: bool) -> None:
        self.texts = [""] * n
        self.token_ids: list[list[int]] = [[] for _ in range(n)]
        self.output: RequestOutput | None = None
        self._live = live

    def add(self, chunk: Chunk) -> None:
        """Add a chunk of one answer."""
        self.texts[chunk.index] += chunk.text
        self.token_ids[chunk.index] += chunk.token_ids
        self.output = chunk.output or self.output
        if self._live and chunk.index == 0 and chunk.text:
            write(chunk.text)

    def finish(self) -> None:
        """End the line, and print the other answers."""
        if not self._live:
            return
        if self.texts[0] and not self.texts[0].endswith("\n"):
            write("\n")
        for number, text in enumerate(self.texts[1:], 2):
            write(f"\n--- {number} of {len(self.texts)} ---\n{text.rstrip()}\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy generate`."""
    parser.add_argument("prompt", metavar="PROMPT", help="the prompt; - reads it from stdin")
    flags.add_model(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    parser.add_argument("--raw", action="store_true", help="no chat template")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    flags.add_sampling(parser)
    flags.add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Load, answer, print."""
    if args.raw and args.system is not None:
        raise ValueError("--system needs the chat template: leave out --raw")
    check_sampling(args)
    prompt = _stdin() if args.prompt == "-" else args.prompt
    if not prompt and (args.prompt != "-" or launched_rank() == 0):  # mpirun gives rank 0 stdin
        raise ValueError("PROMPT must not be empty")
    with load(args) as session:
        params = sampling(args, session)
        answers, code = Answers(params.n, live=not args.json), 0
        try:
            for chunk in stream(session, _prompt(args, session, prompt), params):
                answers.add(chunk)
        except KeyboardInterrupt:
            code = INTERRUPTED
    answers.finish()
    return _report(args, session, answers) or code


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"PROMPT on stdin is no text in {error.encoding}: {error}") from error


def _prompt(args: argparse.Namespace, session: Session, text: str) -> str | list[dict[str, str]]:
    """The text itself, or messages with it."""
    if args.raw or not session.chats:
        if args.system is not None:
            raise ValueError(f"--system: {args.model} has no chat template; put it in the prompt")
        return text
    system = [] if args.system is None else [{"role": "system", "content": args.system}]
    return [*system, {"role": "user", "content": text}]


def _report(args: argparse.Namespace, session: Session, answers: Answers) -> int:
    output = answers.output
    times = timings(session.load_s, output)
    if args.json:
        write_json(_object(answers, times))
    if output is not None and output.error:
        raise RuntimeError(output.error)
    if not args.json and output is not None:
        if output.outputs[0].finish_reason == "length":
            note("[ended by length: --max-tokens, or the room of --max-model-len]")
        note(
            f"[{len(output.prompt_token_ids)} + {len(answers.token_ids[0])} tokens; prefill "
            f"{times['prefill_tokens_per_s']}/s, decode {times['decode_tokens_per_s']}/s, "
            f"loaded in {times['load_s']} s{_drafts(output)}]"
        )
    return 0


def _drafts(output: RequestOutput) -> str:
    """The result of speculation, if there was any."""
    if not output.drafted:
        return ""
    return f"; {output.accepted} of {output.drafted} guessed tokens were right"


def _object(answers: Answers, times: dict[str, float | None]) -> dict[str, Any]:
    """The object that --json prints. An interrupted answer has finish_reason "abort", no prompt."""
    output = answers.output
    said: dict[str, Any] = {
        "text": answers.texts[0],
        "token_ids": answers.token_ids[0],
        "prompt_token_ids": output.prompt_token_ids if output else None,
        "finish_reason": output.outputs[0].finish_reason if output else "abort",
        "cached_tokens": output.cached_tokens if output else None,
        "drafted": output.drafted if output else None,
        "accepted": output.accepted if output else None,
        "timings": times,
    }
    if output and output.outputs[0].logprobs is not None:
        said["logprobs"] = [_logprobs(at) for at in output.outputs[0].logprobs]
    if output and output.prompt_logprobs is not None:
        said["prompt_logprobs"] = [at and _logprobs(at) for at in output.prompt_logprobs]
    if output and len(output.outputs) > 1:
        said["outputs"] = [
            {"text": o.text, "token_ids": o.token_ids, "finish_reason": o.finish_reason}
            for o in output.outputs
        ]
    return said


def _logprobs(best: dict[int, Any]) -> list[dict[str, Any]]:
    return [
        {"token_id": token, "logprob": at.logprob, "text": at.decoded_token}
        for token, at in best.items()
    ]
