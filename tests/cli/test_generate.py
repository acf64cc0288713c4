"""`nanocupy generate`: text to stdout, remarks to stderr, one object for programs."""

from __future__ import annotations

import gc
import io
import json

import pytest

from nanocupy import LLM
from nanocupy.cli import session


def test_the_answer_is_all_there_is_on_stdout(cli, fake) -> None:
    ran = cli("generate", "Why is the sky blue?")
    assert ran == (0, "Why is the sky blue? \n", "")


def test_the_prompt_becomes_a_message(cli, fake) -> None:
    cli("generate", "--system", "Be kind.", "Hello")
    assert fake.seen[0][0] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]


def test_raw_and_models_without_a_template_get_the_text(cli, fake) -> None:
    cli("generate", "--raw", "Hello")
    fake.template = None
    cli("generate", "Hello")
    assert [prompt for prompt, _ in fake.seen] == ["Hello", "Hello"]
    assert "--system" in cli("generate", "--system", "x", "Hello").err


def test_the_prompt_from_stdin(cli, fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    assert cli("generate", "-").out == "from a pipe \n"
    assert cli("generate", "-").code == 2  # nothing left


def test_json(cli, fake) -> None:
    ran = cli("generate", "--json", "one two three")
    said = json.loads(ran.out)
    assert said["text"] == "one two three " and said["token_ids"] == [0, 1, 2]
    assert said["prompt_token_ids"] == [5, 6, 7] and said["finish_reason"] == "stop"
    assert said["timings"]["prefill_tokens_per_s"] == pytest.approx(30, rel=0.01)
    assert said["timings"]["decode_tokens_per_s"] == pytest.approx(20, rel=0.01)
    assert {"load_s", "ttft_s"} <= said["timings"].keys()


def test_guesses_are_told_where_there_were_any(cli, fake, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("nanocupy.cli.generate.note", notes.append)
    cli("generate", "a")
    fake.guesses = 8, 6
    cli("generate", "a")
    assert "guessed" not in notes[0] and "; 6 of 8 guessed tokens were right]" in notes[1]
    said = json.loads(cli("generate", "--json", "a").out)
    assert (said["drafted"], said["accepted"]) == (8, 6)


def test_several_answers(cli, fake) -> None:
    assert cli("generate", "--n", "2", "a b").out == "a b \n\n--- 2 of 2 ---\na b\n"
    said = json.loads(cli("generate", "--n", "2", "--json", "a b").out)
    assert [o["text"] for o in said["outputs"]] == ["a b ", "a b "]


def test_flags_beat_the_model_s_file_which_beats_the_defaults(cli, fake) -> None:
    fake.generation_config = {"temperature": 0.6, "top_k": 20}
    cli("generate", "--temperature", "0", "--stop", "x", "--stop", "y", "Hi")
    params = fake.seen[0][1]
    assert (params.temperature, params.top_k, params.top_p) == (0, 20, 0.9)
    assert params.stop == ("x", "y") and params.max_tokens == 1024


@pytest.mark.parametrize(
    ("file", "words", "told"),
    [
        ({}, (), "[temperature 0.2, top_p 0.9, max_tokens 1024; ends with <|im_end|> or </s>]"),
        (
            {"temperature": 0.6, "top_k": 20, "do_sample": True},
            ("--top-k", "0"),
            "[temperature 0.6 (the model's), top_k 0, top_p 0.9, max_tokens 1024; ends with",
        ),
        ({"do_sample": False}, (), "[temperature 0.0 (the model's), "),
    ],
)
def test_what_sampling_goes_by_is_told_at_the_start(
    cli, fake, file, words, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.generation_config = file
    if "do_sample" in file:
        fake.default_params = LLM.default_params
    notes: list[str] = []
    monkeypatch.setattr(session, "note", notes.append)
    assert cli("generate", *words, "Hi").code == 0
    assert notes[0].startswith(told)


def test_logit_bias_and_seed(cli, fake) -> None:
    cli("generate", "--logit-bias", "42=-100", "--logit-bias", "7=1.5", "--seed", "3", "Hi")
    params = fake.seen[0][1]
    assert params.logit_bias == {42: -100.0, 7: 1.5} and params.seed == 3


def test_ctrl_c_keeps_what_is_there(cli, fake) -> None:
    fake.stop_after = 2
    assert cli("generate", "one two three four") == (130, "one two \n", "")
    ran = cli("generate", "--json", "one two three four")
    said = json.loads(ran.out)
    assert ran.code == 130 and said["text"] == "one two " and said["finish_reason"] == "abort"


def test_an_answer_that_failed_is_exit_code_1(cli, fake) -> None:
    fake.error = "the logits are not finite"
    ran = cli("generate", "Hi")
    assert ran.code == 1 and "not finite" in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("threads", ["1", "0"])  # a model that loads, and one that does not
def test_garbage_is_looked_for_again_once_a_model_is_there(cli, fake, threads: str) -> None:
    code = cli("generate", "--threads", threads, "Hi").code
    assert (code == 0) == (threads == "1") and gc.isenabled()
