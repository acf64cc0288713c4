"""Turn a GGUF file into an ordinary Hugging Face folder, losing nothing.

Quantised blocks become affine safetensors of 4 bits (Q4_0, Q4_1, Q4_K) or 8 (the others), which
are the same numbers; other types stay what they are. The folder can be given to --model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nanocupy.cli.output import write, write_json

EXAMPLES = """\
examples:
  nanocupy convert model.Q8_0.gguf ./model
  nanocupy generate --model ./model "Why is the sky blue?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `nanocupy convert`."""
    parser.add_argument("source", metavar="SRC.gguf", type=Path, help="the GGUF file")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no bars")


def run(args: argparse.Namespace) -> int:
    """Convert, then say where the folder is."""
    from nanocupy import checkpoint

    if not args.source.is_file():
        raise ValueError(f"SRC.gguf must be a GGUF file, got {str(args.source)!r}: no such file")
    folder = checkpoint.convert_gguf(args.source, args.out, progress=args.progress)
    if args.json:
        write_json({"folder": str(folder)})
    else:
        write(f"{folder}\n")
    return 0
