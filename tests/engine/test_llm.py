"""LLM: prompts of every form, streams, chat, defaults, errors, closing."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from engine.fake import EOS, VOCAB, FakeRunner, prompts, token_ids
from engine.fake_text import BOS, BYTES, FakeTokenizer, cut, loaded
from nanocupy.engine import llm as llm_module
from nanocupy.engine.batch import Sampled, SampleRow, Scheduled
from nanocupy.engine.engine import PromptTooLongError
from nanocupy.engine.llm import LLM
from nanocupy.engine.params import SamplingParams

ENGINE = Path(llm_module.__file__).parent
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SEEDED = SamplingParams(seed=5, max_tokens=30, ignore_eos=True)


def make(
    runner: FakeRunner | None = None, parts: dict[str, Any] | None = None, **options: Any
) -> LLM:
    return LLM._from_parts(loaded(runner, **(parts or {})), **options)


def idle(llm: LLM) -> bool:
    pool = llm.engine.pool
    return (
        not llm.engine.has_work
        and pool.num_available == len(pool.blocks) - 1
        and not llm._driver.tickets
    )


# --- prompts ----------------------------------------------------------------------------------


def test_prompts_of_every_form() -> None:
    tokenizer = FakeTokenizer()
    with make() as llm:
        ids = tokenizer.encode("hello")
        forms: list[Any] = ["hello", ids, tuple(ids), np.array(ids), {"prompt": "hello"}]
        forms.append({"prompt_token_ids": ids})
        outs = llm.generate(forms, GREEDY)
        assert len({str(token_ids(out)) for out in outs}) == 1
        assert all(out.prompt_token_ids == ids for out in outs)
        assert [out.prompt for out in outs] == ["hello", None, None, None, "hello", None]
        for form in forms:
            [one] = llm.generate(form, GREEDY)
            assert token_ids(one) == token_ids(outs[0])
        assert llm.generate([], GREEDY) == []
        assert idle(llm)


def test_outputs_come_in_the_order_of_the_prompts() -> None:
    made = prompts(20)
    params = [SamplingParams(temperature=0, max_tokens=20 - i, ignore_eos=True) for i in range(20)]
    with make(max_num_seqs=3) as llm:
        outs = llm.generate(made, params)
        assert [out.prompt_token_ids for out in outs] == made
        assert [len(out.outputs[0].token_ids) for out in outs] == [20 - i for i in range(20)]


def test_an_empty_prompt_is_bos_or_refused() -> None:
    with make() as llm:
        outs = llm.generate(["", [[]], {"prompt_token_ids": []}][::2], GREEDY)
        assert [out.prompt_token_ids for out in outs] == [[BOS], [BOS]]
    with make(parts={"bos": False}) as llm, pytest.raises(ValueError, match="no BOS token"):
        llm.generate("", GREEDY)


@pytest.mark.parametrize(
    "prompts, message",
    [
        (5, "a prompt must be a string, .* got int"),
        (None, "a prompt must be a string"),
        (b"bytes", "a prompt must be a string, .* got bytes"),
        (["a", 5], r"prompts\[1\]: .* got int"),
        (["a", [1, True]], r"prompts\[1\]: .*must be an integer, got True"),
        (["a", [1.0]], r"prompts\[1\]: .*must be an integer, got 1.0"),
        ([1, "a"], "a token id: must be an integer, got 'a'"),
        ({"promt": "a"}, r"one key, 'prompt' or 'prompt_token_ids', got \['promt'\]"),
        ({"prompt": "a", "prompt_token_ids": [1]}, "one key"),
        ({}, "one key"),
        ({"prompt": [1]}, "'prompt' cannot be a list"),
        ({"prompt_token_ids": "a"}, "'prompt_token_ids' cannot be a str"),
        ([[1], [VOCAB]], rf"prompts\[1\]: .*token {VOCAB} is not in \[0, {VOCAB}\)"),
        ([[-1]], r"must be in \[0, .* got -1"),
        (["a", "\ud800"], r"prompts\[1\]: .*valid Unicode"),
    ],
)
def test_wrong_prompts_are_refused_and_nothing_runs(prompts: Any, message: str) -> None:
    with make() as llm:
        with pytest.raises(ValueError, match=message):
            llm.generate(prompts, GREEDY)
        assert idle(llm) and llm.engine.runner.steps == 0  # type: ignore[attr-defined]


def test_a_prompt_that_never_fits_says_which_and_the_numbers() -> None:
    with make(FakeRunner(max_model_len=20)) as llm:
        with pytest.raises(PromptTooLongError, match=r"prompts\[1\]: .*30 tokens, at most 19") as e:
            llm.generate([[1], [1] * 30], GREEDY)
        assert (e.value.num_tokens, e.value.limit) == (30, 19)
        assert idle(llm)


def test_params_are_one_or_one_per_prompt() -> None:
    with make() as llm:
        with pytest.raises(ValueError, match="one per prompt, got 1 for 2"):
            llm.generate(["a", "b"], [GREEDY])
        with pytest.raises(ValueError, match="must be SamplingParams or a list of them"):
            llm.generate("a", {"temperature": 0})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be SamplingParams, got 5"):
            llm.generate(["a"], [5])  # type: ignore[list-item]
        short = SamplingParams(max_tokens=1)
        one, two = llm.generate(["a", "b"], [short, GREEDY])
        assert len(one.outputs[0].token_ids) == 1 and len(two.outputs[0].token_ids) == 12


def test_unknown_options_are_refused_by_name_before_anything_is_loaded() -> None:
    with pytest.raises(TypeError, match=r"has no 'max_modellen'\. Did you mean 'max_model_len'"):
        LLM("there is no such model", max_modellen=5)
    with pytest.raises(ValueError, match="block_size must be one of"):
        LLM("there is no such model", block_size=7)


def test_max_model_len_limits_the_room() -> None:
    with make(max_model_len=10) as llm:
        [out] = llm.generate([1, 2], SamplingParams(temperature=0, ignore_eos=True))
        assert len(out.outputs[0].token_ids) == 8


# --- defaults ---------------------------------------------------------------------------------


def test_defaults_come_from_the_model_and_what_is_given_wins() -> None:
    own = {"temperature": 0.3, "top_p": 0.8, "top_k": None, "pad_token_id": 0}
    with make(parts={"generation_config": own}) as llm:
        assert llm.default_params() == SamplingParams(temperature=0.3, top_p=0.8)
        assert llm.default_params(top_p=0.5, max_tokens=3) == SamplingParams(
            temperature=0.3, top_p=0.5, max_tokens=3
        )
        assert llm._prepare("a", None).params.temperature == 0.3
        assert llm._prepare("a", SamplingParams()).params.temperature == 1.0
    with make(parts={"generation_config": {"do_sample": False, "temperature": 0.6}}) as llm:
        assert llm.default_params().greedy


@pytest.mark.parametrize("eos", [7, [7, 8]])
def test_every_end_token_of_the_model_ends(eos: Any) -> None:
    with make(parts={"generation_config": {"eos_token_id": eos}}) as llm:
        for token in (7, EOS):
            [out] = llm.generate([1], SamplingParams(temperature=0, logit_bias={token: 100}))
            assert out.outputs[0].token_ids == [token] and out.outputs[0].finish_reason == "stop"
            assert out.outputs[0].text == "", "the end is never shown"


# --- text -------------------------------------------------------------------------------------


def test_text_is_the_decoded_tokens() -> None:
    tokenizer = FakeTokenizer()
    with make() as llm:
        for seed in range(20):
            params = SamplingParams(seed=seed, max_tokens=40, ignore_eos=True)
            [out] = llm.generate("hello", params)
            assert out.outputs[0].text == tokenizer.decode(out.outputs[0].token_ids)


@pytest.mark.parametrize("stops", [["a"], ["ab", "b", "xyz"], ["e", "é", "�"], [" ", "q"]])
def test_streams_join_to_the_text_and_never_show_a_stop_string(stops: list[str]) -> None:
    tokenizer, stopped = FakeTokenizer(), 0
    with make() as llm:
        for seed in range(25):
            params = SamplingParams(
                seed=seed, max_tokens=40, ignore_eos=True, stop=stops, logprobs=1
            )
            [out] = llm.generate("hello", params)
            answer = out.outputs[0]
            chunks = list(llm.stream("hello", params))
            assert "".join(chunk.text for chunk in chunks) == answer.text
            assert [t for chunk in chunks for t in chunk.token_ids] == answer.token_ids
            assert [p for chunk in chunks for p in chunk.logprobs or []] == answer.logprobs
            assert chunks[-1].finish_reason == answer.finish_reason
            assert chunks[-1].output is not None and chunks[-1].output.outputs == out.outputs
            full = tokenizer.decode(answer.token_ids)
            assert answer.text == cut(full, stops)
            if answer.finish_reason == "stop":
                assert answer.stop_reason in stops and answer.text != full
                stopped += 1
            else:
                assert not any(stop in full for stop in stops)
    assert stopped > 5


def make_scripted(text: str) -> LLM:
    """An LLM whose every answer is `text`, where < is BOS and > is EOS."""
    markup = {ord("<"): BOS, ord(">"): EOS}
    tokens = [markup.get(byte) or BYTES.index(byte) for byte in text.encode()]
    runner = FakeRunner()

    def answer(item: Scheduled, row: SampleRow) -> Sampled:
        at = item.start + len(item.tokens) - item.request.num_prompt
        return Sampled(tokens[at % len(tokens)], 0.0, [])

    runner._sample = answer  # type: ignore[method-assign]
    return make(runner)


@pytest.mark.parametrize(
    "text, stops, ignore_eos, shown, reason",
    [
        ("ab<cd", ["<bos>"], True, "ab", "<bos>"),
        ("ab>cd", ["<eos>"], True, "ab", "<eos>"),
        ("ab>cd", ["<eos>"], False, "ab", "<eos>"),
        ("ab>cd", ["b<eos>"], False, "a", "b<eos>"),
        ("ab>cd", ["b<eos>"], True, "a", "b<eos>"),
        ("ab<cd", ["b<bos>c", "d"], True, "a", "b<bos>c"),
        ("ab<<cd", ["<bos><bos>"], True, "ab", "<bos><bos>"),
        ("ab<cd", ["bc"], True, "a", "bc"),  # what is hidden is not there, for others
        ("ab>cd", ["x<eos>"], False, "ab", None),
        ("ab\n>c", ["\n<eos>", "\n\n"], False, "ab", "\n<eos>"),
        ("ab\n>c", ["\n\n"], False, "ab\n", None),
        ("abé<c", ["é<bos>"], True, "ab", "é<bos>"),
    ],
)
def test_a_stop_string_may_spell_a_special_token(
    text: str, stops: list[str], ignore_eos: bool, shown: str, reason: str | None
) -> None:
    params = SamplingParams(temperature=0, max_tokens=20, stop=stops, ignore_eos=ignore_eos)
    with make_scripted(text) as llm:
        [out] = llm.generate("x", params)
        answer = out.outputs[0]
        assert (answer.text, answer.finish_reason, answer.stop_reason) == (shown, "stop", reason)
        chunks = list(llm.stream("x", params))
        assert "".join(chunk.text for chunk in chunks) == shown
        assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == ("stop", reason)


def test_markup_that_does_not_complete_a_stop_string_ends_nothing() -> None:
    params = SamplingParams(temperature=0, max_tokens=5, stop=["<bos>d", "<eos>c"], ignore_eos=True)
    with make_scripted("ab<cd") as llm:
        [out] = llm.generate("x", params)
        assert out.outputs[0].text == "abcd" and out.outputs[0].finish_reason == "length"


def test_min_tokens_lets_a_stop_string_pass_before() -> None:
    with make() as llm:
        params = SamplingParams(
            temperature=0, logit_bias={FakeTokenizer().encode("a")[0]: 100}, stop="aa", max_tokens=9
        )
        [out] = llm.generate("x", params)
        assert out.outputs[0].text == "" and len(out.outputs[0].token_ids) == 2
        [out] = llm.generate("x", SamplingParams(**{**vars(params), "min_tokens": 5}))
        assert out.outputs[0].text == "aaaa" and len(out.outputs[0].token_ids) == 6


def test_a_tokenizer_that_fails_ends_one_request_only() -> None:
    with make() as llm:
        wanted = token_ids(llm.generate("two", GREEDY)[0])
        streams = [llm.stream(prompt, GREEDY) for prompt in ("one", "two")]
        first = [next(stream) for stream in streams]
        text: Any = llm.engine.groups[first[0].request_id].requests[0].text
        for name in ("feed", "finish"):

            def broken(*args: object) -> str:
                raise OverflowError("odd bytes")

            setattr(text._detokenizer, name, broken)
        chunks = [[one, *stream] for one, stream in zip(first, streams, strict=True)]
        assert chunks[0][-1].finish_reason == "error"
        assert chunks[0][-1].output is not None
        assert chunks[0][-1].output.error == "OverflowError: odd bytes"
        assert [t for chunk in chunks[1] for t in chunk.token_ids] == wanted[0]
        assert idle(llm)


def test_logprobs_name_their_tokens() -> None:
    with make() as llm:
        [out] = llm.generate(
            "hi", SamplingParams(seed=1, max_tokens=5, logprobs=2, prompt_logprobs=1)
        )
        for entry in (out.outputs[0].logprobs or []) + (out.prompt_logprobs or [])[1:]:
            assert entry is not None
            assert {t: p.decoded_token for t, p in entry.items()} == {
                t: FakeTokenizer().token_text(t) for t in entry
            }


# --- streams ----------------------------------------------------------------------------------


def test_a_stream_starts_lazily_but_refuses_at_once() -> None:
    with make(FakeRunner(max_model_len=20)) as llm:
        with pytest.raises(ValueError, match="at most 19 fit"):
            llm.stream([1] * 30)
        stream = llm.stream("hi", GREEDY)
        assert idle(llm)
        del stream
        assert idle(llm)


def test_leaving_a_stream_aborts() -> None:
    with make() as llm:
        for chunk in llm.stream("hi", GREEDY):
            assert chunk.token_ids and not idle(llm)
            break
        gc.collect()
        assert idle(llm)
        stream = llm.stream("hi", GREEDY)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert idle(llm)


def test_streams_and_generate_interleave() -> None:
    with make() as llm:
        wanted = [llm.generate(p, SEEDED)[0].outputs[0].text for p in ("one", "two", "three")]
        one, two = llm.stream("one", SEEDED), llm.stream("two", SEEDED)
        texts = ["", ""]
        for _ in range(10):
            texts[0] += next(one).text
            texts[1] += next(two).text
        [three] = llm.generate("three", SEEDED)
        texts[0] += "".join(chunk.text for chunk in one)
        texts[1] += "".join(chunk.text for chunk in two)
        assert [*texts, three.outputs[0].text] == wanted
        assert idle(llm)


def test_threads_share_one_engine() -> None:
    with make() as llm:
        wanted = {p: llm.generate(p, SEEDED)[0].outputs[0].text for p in "abcdefgh"}
        found: dict[str, str] = {}

        def work(prompt: str) -> None:
            if prompt < "e":
                found[prompt] = llm.generate(prompt, SEEDED)[0].outputs[0].text
            else:
                found[prompt] = "".join(chunk.text for chunk in llm.stream(prompt, SEEDED))

        threads = [threading.Thread(target=work, args=(p,)) for p in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == wanted and idle(llm)


def test_interrupting_generate_aborts_its_requests_and_no_others() -> None:
    with make() as llm:
        wanted = llm.generate("one", SEEDED)[0].outputs[0].text
        stream = llm.stream("one", SEEDED)
        text = next(stream).text
        runner: Any = llm.engine.runner

        def interrupt(batch: object) -> None:
            raise KeyboardInterrupt

        runner.before_step = interrupt
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["two", "three"], SEEDED)
        runner.before_step = lambda batch: None
        assert text + "".join(chunk.text for chunk in stream) == wanted
        assert idle(llm)


# --- chat -------------------------------------------------------------------------------------


def test_chat() -> None:
    hello = [{"role": "user", "content": "hello"}]
    with make() as llm:
        [out] = llm.chat(hello, GREEDY)
        assert out.prompt == "user: hello\nassistant: "
        [same] = llm.generate("user: hello\nassistant: ", GREEDY)
        assert token_ids(out) == token_ids(same)
        many = llm.chat([hello, [*hello, {"role": "assistant", "content": "hi"}]], GREEDY)
        assert token_ids(many[0]) == token_ids(out) and len(many) == 2
        text = "".join(chunk.text for chunk in llm.stream_chat(hello, GREEDY))
        assert text == out.outputs[0].text
        [bare] = llm.chat(hello, GREEDY, add_generation_prompt=False)
        assert bare.prompt == "user: hello\n"
        said = [*hello, {"role": "assistant", "content": "once upon"}]
        [more] = llm.chat(said, GREEDY, continue_final_message=True)
        assert more.prompt == "user: hello\nassistant: once upon"
        with pytest.raises(ValueError, match="tools is given twice"):
            llm.chat(hello, GREEDY, tools=[], chat_template_kwargs={"tools": []})
        assert llm.chat([], GREEDY) == []
        for wrong in ("hello", 5, {"role": "user"}):
            with pytest.raises(ValueError, match="messages must be a list"):
                llm.chat(wrong, GREEDY)  # type: ignore[arg-type]
    with make(parts={"chat": False}) as llm, pytest.raises(ValueError, match="no chat template"):
        llm.chat(hello, GREEDY)


def test_the_next_turn_reuses_the_last() -> None:
    turn = [{"role": "user", "content": "tell me a very long story about nothing"}]
    with make() as llm:
        [out] = llm.chat(turn, GREEDY)
        [again] = llm.chat([*turn, {"role": "user", "content": "go on"}], GREEDY)
        assert out.cached_tokens == 0 and again.cached_tokens == 32


# --- the end ----------------------------------------------------------------------------------


def test_close_is_idempotent_and_final() -> None:
    llm = make()
    stream, unstarted = llm.stream("hi", GREEDY), llm.stream("hi", GREEDY)
    next(stream)
    llm.close()
    llm.close()
    assert llm.engine.runner.closed and idle(llm)  # type: ignore[attr-defined]
    for call in (
        lambda: next(stream),
        lambda: next(unstarted),
        lambda: llm.generate("hi"),
        lambda: llm.stream("hi"),
        lambda: llm.chat([]),
        lambda: llm.stream_chat([]),
    ):
        with pytest.raises(RuntimeError, match="this LLM is closed"):
            call()


def test_the_runner_is_closed_when_the_engine_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = loaded(FakeRunner(num_blocks=1))
    with pytest.raises(ValueError, match="num_blocks"):
        LLM._from_parts(parts)
    assert parts.runner.closed


def test_progress_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with make() as llm:
        llm.generate(["a", "b"], GREEDY, progress=True)
        shown = capsys.readouterr()
        llm.generate(["a", "b"], GREEDY)
        assert shown.out == "" and capsys.readouterr() == ("", "")
    with make(progress=False) as llm:
        llm.generate(["a", "b"], GREEDY)
        assert capsys.readouterr() == ("", "")


# --- Ctrl-C -----------------------------------------------------------------------------------


def press_at(line: int) -> Callable[..., Any]:
    """A trace function that presses Ctrl-C at the engine's n-th line of Python."""
    lines = count()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        path = Path(frame.f_code.co_filename)
        if path.parent != ENGINE or path.name in ("llm.py", "interrupts.py"):
            return None
        if event == "line" and next(lines) == line:
            signal.raise_signal(signal.SIGINT)
        return trace

    return trace


@pytest.mark.parametrize("streams", [0, 1])
def test_ctrl_c_anywhere_in_a_step_loses_nothing(streams: int) -> None:
    """It comes when the step is done: the books stay true, and another stream goes on."""
    made = prompts(3)
    with make(FakeRunner(num_blocks=31), max_num_seqs=2) as llm:
        wanted = [output.outputs[0].text for output in llm.generate(made, SEEDED)]
        for line in range(0, 3000, 61):
            others = [llm.stream(made[0], SEEDED) for _ in range(streams)]
            begun = [next(other) for other in others]
            sys.settrace(press_at(line))
            try:
                with pytest.raises(KeyboardInterrupt):
                    llm.generate(made, SEEDED)
            finally:
                sys.settrace(None)
            for first, other in zip(begun, others, strict=True):
                assert first.text + "".join(chunk.text for chunk in other) == wanted[0]
            assert idle(llm)
        assert [output.outputs[0].text for output in llm.generate(made, SEEDED)] == wanted


def test_a_chat_template_can_be_replaced() -> None:
    with make() as llm:
        llm.chat_template = None
        with pytest.raises(ValueError, match="no chat template"):
            llm.chat([{"role": "user", "content": "a"}])
