"""Quantise a model into a folder that MLX and mlx-lm read too; or turn a GGUF file into a folder.

Weights of floats become codes of 4 or 8 bits in groups along their inputs, rounded as MLX does.
A GGUF file loses nothing: its blocks become codes of 4 bits (Q4_0, Q4_1, Q4_K) or 8 (the others),
which are the same numbers, and other types stay what they are, unless --bits says otherwise.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nanocupy.cli.output import write, write_json

EXAMPLES = """\
examples:
  nanocupy convert Qwen/Qwen3-0.6B ./qwen3-4bit
  nanocupy convert ./model ./model-8bit --bits 8 --group-size 32
  nanocupy convert model.Q8_0.gguf ./model
  nanocupy generate --model ./model "Why is the sky blue?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy convert`."""
    parser.add_argument("source", metavar="SRC", help="a folder, hub id, known name or GGUF file")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument(
        "--bits", type=int, choices=(4, 8), metavar="N",
        help="bits of a weight, 4 or 8 (default: 4; of a GGUF file: its own)",
    )  # fmt: skip
    parser.add_argument(
        "--group-size", type=int, choices=(32, 64, 128), metavar="N",
        help="weights that share a scale, 32, 64 or 128 (default: 64)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--no-progress", dest="progress", action="store_const", const=False, help="no bars"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, then print the folder and the error of quantisation."""
    with _sigterm_exits():
        return _convert(args)


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, so that partial files are removed."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _convert(args: argparse.Namespace) -> int:
    from nanocupy.checkpoint import convert_gguf, load_config
    from nanocupy.checkpoint.locate import gguf_file
    from nanocupy.checkpoint.writer import scratch

    source = gguf_file(args.source, progress=args.progress)
    if source is None:
        return _quantise(args, args.source)
    if args.bits is args.group_size is None:
        folder = convert_gguf(source, args.out, progress=args.progress)
        return _say(args, {"folder": str(folder)}, "")
    with scratch(args.out) as between:
        folder = convert_gguf(source, between / "floats", progress=args.progress)
        if load_config(folder).quantization:
            raise ValueError(f"{source} has codes already: leave out --bits and --group-size")
        return _quantise(args, str(folder))


def _quantise(args: argparse.Namespace, source: str) -> int:
    from nanocupy.checkpoint import resolve
    from nanocupy.models.quantize_checkpoint import convert

    made = convert(
        resolve(source, progress=args.progress),
        args.out,
        bits=args.bits or 4,
        group_size=args.group_size or 64,
        progress=args.progress,
    )
    facts = {
        "folder": str(made.folder),
        "bits": made.bits,
        "group_size": made.group_size,
        "quantized": made.quantized,
        "kept": made.kept,
        "error": made.error,
        "exact_error": made.exact_error,
    }
    return _say(args, facts, made.text())


def _say(args: argparse.Namespace, facts: dict[str, object], text: str) -> int:
    if args.json:
        write_json(facts)
    else:
        write(f"{facts['folder']}\n" + (f"{text}\n" if text else ""))
    return 0
