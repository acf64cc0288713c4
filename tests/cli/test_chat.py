"""`nanocupy chat`: lines in, answers out, with the history sent each time."""

from __future__ import annotations

import io

import pytest


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Lines for stdin."""
    return lambda *lines: monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))


def test_the_history_grows(cli, fake, typed) -> None:
    typed("hello", "", "again")
    assert cli("chat", "--system", "Be brief.").out == "hello \nagain \n"
    assert [m["role"] for m in fake.seen[1][0]] == ["system", "user", "assistant", "user"]


def test_reset_and_exit(cli, fake, typed) -> None:
    typed("hello", "/reset", "again", "/exit", "never")
    assert cli("chat").code == 0
    assert fake.seen[1][0] == [{"role": "user", "content": "again"}]
    assert len(fake.seen) == 2


def test_an_unknown_command_is_not_a_message(cli, fake, typed) -> None:
    typed("/help")
    assert "/reset" in cli("chat").err
    assert fake.seen == []


def test_ctrl_c_ends_the_answer_and_keeps_it(cli, fake, typed) -> None:
    fake.stop_after = 1
    typed("one two", "three")
    assert cli("chat").code == 0
    assert fake.seen[1][0][1] == {"role": "assistant", "content": "one "}


def test_a_model_without_a_template_cannot_chat(cli, fake) -> None:
    fake.template = None
    ran = cli("chat")
    assert ran.code == 2 and "--model" in ran.err
