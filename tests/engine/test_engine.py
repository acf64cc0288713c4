"""The engine's life of a request: finishing, limits, refusals, abort, prompt logprobs."""

from __future__ import annotations

import math

import pytest

from engine.fake import (
    EOS,
    VOCAB,
    FakeRunner,
    drain,
    engine,
    expected,
    outputs,
    prompts,
    run,
    runner_of,
    token_ids,
)
from nanocupy.engine.engine import Engine, PromptTooLongError
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SEEDED = SamplingParams(seed=7, max_tokens=12, ignore_eos=True, top_p=0.9, top_k=40)


def test_greedy_answers_are_reproducible() -> None:
    [one], [two] = run(engine(), [[1, 2, 3]], GREEDY), run(engine(), [[1, 2, 3]], GREEDY)
    assert token_ids(one) == token_ids(two)
    assert len(one.outputs[0].token_ids) == 12
    assert one.outputs[0].finish_reason == "length"
    assert one.prompt_token_ids == [1, 2, 3]
    assert one.error is None


def test_eos_ends_with_stop_unless_ignored() -> None:
    bias = {EOS: 100.0}
    params = SamplingParams(temperature=0, max_tokens=5, logit_bias=bias)
    [out] = run(engine(), [[1]], params)
    assert token_ids(out) == [[EOS]]
    assert (out.outputs[0].finish_reason, out.outputs[0].stop_reason) == ("stop", None)
    ignored = SamplingParams(temperature=0, max_tokens=5, logit_bias=bias, ignore_eos=True)
    [out] = run(engine(), [[1]], ignored)
    assert token_ids(out) == [[EOS] * 5]
    assert out.outputs[0].finish_reason == "length"


def test_stop_token_ids_end_and_are_named() -> None:
    params = SamplingParams(temperature=0, logit_bias={9: 100}, stop_token_ids=[9], max_tokens=5)
    [out] = run(engine(), [[1]], params)
    assert token_ids(out) == [[9]]
    assert (out.outputs[0].finish_reason, out.outputs[0].stop_reason) == ("stop", 9)


def test_an_end_token_asked_for_is_named_though_eos_is_ignored() -> None:
    params = SamplingParams(
        temperature=0, logit_bias={EOS: 100}, stop_token_ids=[EOS], ignore_eos=True
    )
    [out] = run(engine(), [[1]], params)
    assert (out.outputs[0].finish_reason, out.outputs[0].stop_reason) == ("stop", EOS)


def test_an_end_outside_the_vocabulary_is_no_end() -> None:
    """A model folder may name one: it must not reach the device."""
    seen: list[int] = []
    runner = FakeRunner()
    runner.before_step = lambda batch: seen.extend(
        token for item in batch for row in item.sample if row.edits for token in row.edits.ids
    )
    llm = Engine(runner, EngineOptions(), eos_ids=[EOS, VOCAB, 10**10, -1])
    llm.add([1, 2, 3], SamplingParams(temperature=0, min_tokens=2, max_tokens=4))
    drain(llm)
    assert set(seen) == {EOS}


def test_min_tokens_forbids_every_end_before() -> None:
    params = SamplingParams(
        temperature=0, logit_bias={EOS: 100, 9: 90}, stop_token_ids=[9], min_tokens=4, max_tokens=9
    )
    [out] = run(engine(), [[1]], params)
    [ids] = token_ids(out)
    assert len(ids) == 5 and ids[-1] == EOS
    assert not {EOS, 9} & set(ids[:-1])


def test_max_tokens_zero_only_computes_the_prompt() -> None:
    params = SamplingParams(max_tokens=0, prompt_logprobs=2)
    [out] = run(engine(), [[1, 2, 3]], params)
    assert token_ids(out) == [[]]
    assert out.outputs[0].finish_reason == "length"
    assert out.prompt_logprobs is not None and len(out.prompt_logprobs) == 3
    [whole], [cut] = (run(engine(chunk=chunk), [[*range(9)]], params) for chunk in (9, 2))
    assert cut.prompt_logprobs == whole.prompt_logprobs
    [plain] = run(engine(), [[1, 2, 3]], SamplingParams(max_tokens=0))
    assert plain.prompt_logprobs is None and plain.metrics.first_token is None


@pytest.mark.parametrize("length", [31, 32, 33])
def test_generation_ends_where_the_room_ends(length: int) -> None:
    """max_model_len counts prompt and answer; None and 10**9 both mean the room."""
    runner = FakeRunner(max_model_len=33)
    if length == 33:
        with pytest.raises(PromptTooLongError, match="33 tokens, at most 32 fit"):
            engine(runner).add([1] * length, SamplingParams())
        return
    for max_tokens in (None, 10**9):
        params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=max_tokens)
        [out] = run(engine(runner), [[1] * length], params)
        assert len(out.outputs[0].token_ids) == 33 - length
        assert out.outputs[0].finish_reason == "length"


def test_prompt_of_the_full_length_is_served_when_nothing_is_generated() -> None:
    [out] = run(engine(FakeRunner(max_model_len=33)), [[1] * 33], SamplingParams(max_tokens=0))
    assert out.outputs[0].finish_reason == "length"


def test_kv_pool_limits_the_length_with_numbers() -> None:
    eng = engine(FakeRunner(num_blocks=4, block_size=16))  # three usable blocks: 48 tokens
    with pytest.raises(PromptTooLongError, match=r"48 tokens, at most 47 .* 3 KV blocks hold 48"):
        eng.add([1] * 48, SamplingParams())
    assert not eng.has_work
    [out] = run(eng, [[1] * 47], SamplingParams(temperature=0, ignore_eos=True))
    assert len(out.outputs[0].token_ids) == 1
    [out] = run(eng, [[1] * 3], SamplingParams(temperature=0, ignore_eos=True))
    assert len(out.outputs[0].token_ids) == 45


@pytest.mark.parametrize(
    "prompt, params, message",
    [
        ([], SamplingParams(), "no tokens"),
        ([VOCAB], SamplingParams(), f"token {VOCAB} is not in"),
        ([-1], SamplingParams(), "token -1 is not in"),
        ([2**63], SamplingParams(), "is not in"),
        ([1], SamplingParams(logit_bias={VOCAB: 1}), "is not in"),
        ([1], SamplingParams(stop_token_ids=[2**31 - 1]), "is not in"),
    ],
)
def test_refused_at_the_door_changes_nothing(
    prompt: list[int], params: SamplingParams, message: str
) -> None:
    eng = engine()
    with pytest.raises(ValueError, match=message):
        eng.add(prompt, params)
    assert not eng.has_work and not eng.scheduler.waiting


def test_request_ids_are_unique_while_they_run() -> None:
    eng = engine()
    eng.add([1], GREEDY, request_id="a")
    with pytest.raises(ValueError, match="'a' is already running"):
        eng.add([2], GREEDY, request_id="a")
    drain(eng)
    eng.add([2], GREEDY, request_id="a")
    drain(eng)


@pytest.mark.parametrize("size", [15, 16, 17, 32, 33])
def test_same_prompt_twice_hits_whole_blocks_but_computes_a_token(size: int) -> None:
    eng, prompt = engine(), list(range(size))
    first, second = (run(eng, [prompt], GREEDY)[0] for _ in range(2))
    assert token_ids(first) == token_ids(second) == expected(prompt, GREEDY)
    assert first.cached_tokens == 0
    assert second.cached_tokens == (size - 1) // 16 * 16


def test_generated_tokens_are_found_as_a_prefix_too() -> None:
    """The next turn of a conversation starts with the answer to the last."""
    eng = engine()
    [out] = run(eng, [[1, 2, 3]], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    [again] = run(eng, [[1, 2, 3, *out.outputs[0].token_ids, 5]], GREEDY)
    assert again.cached_tokens == 32


def test_salts_do_not_share_prefixes() -> None:
    eng, prompt = engine(), list(range(40))
    hits = []
    for salt in ("a", "b", None, "a", "b", None):
        params = SamplingParams(temperature=0, max_tokens=1, cache_salt=salt)
        hits.append(run(eng, [prompt], params)[0].cached_tokens)
    assert hits == [0, 0, 0, 32, 32, 32]


def test_n_answers_share_the_prompt_and_differ() -> None:
    eng, prompt = engine(), list(range(40))
    params = SamplingParams(seed=3, n=4, max_tokens=8, ignore_eos=True)
    [out] = run(eng, [prompt], params)
    answers = token_ids(out)
    assert len({tuple(a) for a in answers}) == 4
    assert [a.index for a in out.outputs] == [0, 1, 2, 3]
    assert answers == expected(prompt, params)
    single = SamplingParams(seed=3, n=1, max_tokens=8, ignore_eos=True)
    assert expected(prompt, single) == answers[:1]
    assert runner_of(eng).rows == 40 + 3 * 8 + 4 * 7, "the prompt was computed more than once"


def test_requests_without_seed_differ_and_the_engine_seed_repeats_them() -> None:
    params = SamplingParams(max_tokens=12, ignore_eos=True)
    one = [token_ids(out) for out in run(engine(), [[1]] * 4, params)]
    two = [token_ids(out) for out in run(engine(), [[1]] * 4, params)]
    other = [token_ids(out) for out in run(engine(seed=None), [[1]] * 4, params)]
    assert one == two != other
    assert len({str(tokens) for tokens in one}) == 4


def test_abort_in_every_state_frees_everything() -> None:
    for steps in range(6):
        eng = engine(FakeRunner(max_seqs=2), chunk=16)
        ids = [eng.add(prompt, GREEDY) for prompt in prompts(6, low=20)]
        ids.append(eng.add(list(range(50)), SamplingParams(n=3, max_tokens=5)))
        for _ in range(steps):
            eng.step()
        for id in ids:
            chunks = eng.abort(id)
            assert {chunk.finish_reason for chunk in chunks} == {"abort"}
            assert chunks[-1].output is not None and chunks[-1].output.request_id == id
            assert eng.abort(id) == []
        assert not eng.has_work and not eng.scheduler.waiting and not eng.scheduler.running
        assert eng.pool.num_available == 100
    assert eng.abort("never seen") == []


def test_abort_of_a_neighbour_changes_nothing() -> None:
    eng = engine()
    keep, gone = eng.add([1, 2, 3], SEEDED), eng.add([1, 2, 3], SEEDED)
    for _ in range(4):
        eng.step()
    eng.abort(gone)
    assert token_ids(outputs(drain(eng))[keep]) == expected([1, 2, 3], SEEDED)


def test_chunks_join_to_the_output() -> None:
    eng = engine()
    params = SamplingParams(seed=1, n=3, max_tokens=9, logprobs=2)
    id = eng.add(list(range(30)), params)
    chunks = drain(eng)
    [out] = outputs(chunks).values()
    for answer in out.outputs:
        mine = [chunk for chunk in chunks if chunk.index == answer.index]
        assert [t for chunk in mine for t in chunk.token_ids] == answer.token_ids
        assert [p for chunk in mine for p in chunk.logprobs or []] == answer.logprobs
        assert [c.finish_reason for c in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1].finish_reason == answer.finish_reason
    assert all(chunk.request_id == id for chunk in chunks)


def test_logprobs_hold_the_token_first_and_then_the_best() -> None:
    params = SamplingParams(seed=5, max_tokens=6, logprobs=3, ignore_eos=True)
    [out] = run(engine(), [[1, 2]], params)
    answer = out.outputs[0]
    assert answer.logprobs is not None and len(answer.logprobs) == 6
    for token, entry in zip(answer.token_ids, answer.logprobs, strict=True):
        assert next(iter(entry)) == token and 3 <= len(entry) <= 4
        assert all(-9999 <= p.logprob <= 0 for p in entry.values())
    none = run(engine(), [[1, 2]], SamplingParams(seed=5, max_tokens=6, ignore_eos=True))[0]
    assert none.outputs[0].logprobs is None
    assert token_ids(none) == token_ids(out)
    zero = run(engine(), [[1, 2]], SamplingParams(seed=5, max_tokens=6, logprobs=0))[0]
    assert all(len(entry) == 1 for entry in zero.outputs[0].logprobs or [])


@pytest.mark.parametrize("max_samples", [32, 512])
@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize("num_blocks", [9, 101])
def test_prompt_logprobs(max_samples: int, chunk: int | None, num_blocks: int) -> None:
    """One entry per prompt token whatever is cached, how it is chunked, preempted or not."""
    params = SamplingParams(
        temperature=0, max_tokens=30, prompt_logprobs=2, n=2, ignore_eos=True, seed=1
    )
    wanted = run(engine(), [list(range(40))], params)[0]
    assert wanted.prompt_logprobs is not None and wanted.prompt_logprobs[0] is None
    eng = engine(FakeRunner(max_samples=max_samples, num_blocks=num_blocks), chunk=chunk)
    run(eng, [list(range(40))], GREEDY)
    ids = [eng.add(list(range(40)), params) for _ in range(3)]
    found = outputs(drain(eng))
    for id in ids:
        assert found[id].prompt_logprobs == wanted.prompt_logprobs
        assert found[id].cached_tokens == 0, "prompt_logprobs skips the cache"
        assert token_ids(found[id]) == token_ids(wanted)
    for token, entry in zip(range(1, 40), wanted.prompt_logprobs[1:], strict=True):
        assert entry is not None and next(iter(entry)) == token and 2 <= len(entry) <= 3


def test_penalties_and_biases_reach_the_runner() -> None:
    """A strong bias repeats a token; each penalty makes it give way."""
    bias = {5: 8.0}
    base = (
        run(engine(), [[5]], SamplingParams(temperature=0, max_tokens=8, logit_bias=bias))[0]
        .outputs[0]
        .token_ids
    )
    assert base == [5] * 8
    for extra in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}):
        params = SamplingParams(temperature=0, max_tokens=8, logit_bias={5: 2.0}, **extra)
        assert run(engine(), [[5]], params)[0].outputs[0].token_ids != base
    params = SamplingParams(temperature=0, max_tokens=60, repetition_penalty=100.0)
    ids = run(engine(), [[5]], params)[0].outputs[0].token_ids
    assert len(set(ids)) == len(ids) and 5 not in ids


def test_metrics_are_ordered() -> None:
    metrics = run(engine(), [[1, 2, 3]], GREEDY)[0].metrics
    assert metrics.scheduled and metrics.first_token and metrics.finished
    assert metrics.arrival <= metrics.scheduled <= metrics.first_token <= metrics.finished
    assert metrics.ttft is not None and metrics.latency is not None
    assert 0 <= metrics.ttft <= metrics.latency and math.isfinite(metrics.latency)


def test_close_ends_everything() -> None:
    eng = engine()
    eng.add([1], GREEDY)
    eng.close()
    assert runner_of(eng).closed and not eng.has_work
