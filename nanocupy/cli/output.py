"""Output: answers to stdout, remarks to stderr."""

from __future__ import annotations

import codecs
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def write(text: str) -> None:
    """Write text to stdout, unbuffered."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """Write one JSON object to stdout.

    Characters are escaped if stdout is not UTF-8, or cannot encode one (half a surrogate pair).
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not _is_utf8(text):
        text = json.dumps(value, allow_nan=False)
    write(text + "\n")


def _is_utf8(text: str) -> bool:
    """Whether stdout can write this text as UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if codecs.lookup(encoding).name != "utf-8":
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def note(text: str, *, always: bool = False) -> None:
    """Print a remark on stderr: only at a terminal, unless `always`."""
    if not (always or sys.stderr.isatty()):
        return
    sys.stdout.flush()
    if sys.stderr.isatty():
        text = f"\x1b[2m{text}\x1b[0m"
    print(text, file=sys.stderr, flush=True)


def table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Aligned columns: the first to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [
        len(cells) > 1 and all(_numeric(row[i]) for row in cells[bool(header) :])
        for i in range(len(widths))
    ]
    lines = (
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        )
        for row in cells
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def size(nbytes: float) -> str:
    """Bytes for people: `93.8 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} GiB"


def _numeric(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).rstrip("%× ").isdigit() or cell in ("", "-")


@contextmanager
def warnings_noted() -> Iterator[None]:
    """Show our own warnings (ModelWarning, CacheWarning) as notes."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
            if category.__module__.partition(".")[0] == "nanocupy":
                note(f"[{message}]", always=True)
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        yield
