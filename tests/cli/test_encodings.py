"""A stdout that lacks a character loses none of it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from nanocupy.cli import main

SAID = "Grüße 中文 🙂"


class Stdout(io.TextIOWrapper):
    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="\n")

    @property
    def bytes(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


ENCODINGS = pytest.mark.parametrize(
    "encoding", ["ascii", "latin-1", "cp1252", "utf-16-le", "utf-8"]
)


@ENCODINGS
def test_json_keeps_every_character(fake, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", stdout := Stdout(encoding))
    assert main(["generate", "--json", SAID]) == 0
    assert json.loads(stdout.bytes.decode(encoding))["text"] == f"{SAID} "
    if encoding == "utf-8":
        assert SAID in stdout.bytes.decode()
    else:
        assert stdout.bytes.decode(encoding).isascii()


@ENCODINGS
def test_text_shows_what_there_is_no_byte_for(
    fake, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stdout := Stdout(encoding))
    assert main(["generate", SAID]) == 0
    text = stdout.bytes.decode(encoding).strip()
    assert text == SAID.encode(encoding, "backslashreplace").decode(encoding)


@ENCODINGS
def test_an_argument_that_is_no_text(fake, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of the command line that are not UTF-8 come as halves of surrogate pairs."""
    monkeypatch.setattr(sys, "stdout", stdout := Stdout(encoding))
    assert main(["generate", "--json", "a\udcff"]) == 0
    assert json.loads(stdout.bytes.decode(encoding))["text"] == "a\udcff "
    assert main(["generate", "b\udcff"]) == 0
    assert "b\\udcff" in stdout.bytes.decode(encoding)


def test_errors_on_stderr(fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stderr", err := Stdout("ascii"))
    assert main(["info", f"{tmp_path}/größe\udcff"]) == 2
    assert b"gr\\xf6\\xdfe\\udcff" in err.bytes


def test_a_prompt_on_stdin_that_is_no_text(cli, fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff"), encoding="utf-8"))
    ran = cli("generate", "-")
    assert ran.code == 2 and "PROMPT on stdin is no text in utf-8" in ran.err
