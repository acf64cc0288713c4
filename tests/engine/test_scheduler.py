"""Who is computed when: budgets, fairness, admission, preemption."""

from __future__ import annotations

import pytest

from engine.fake import FakeRunner, drain, engine, expected, outputs, prompts, run, token_ids
from nanocupy.engine.batch import Scheduled
from nanocupy.engine.params import SamplingParams

LONG = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


def test_decode_never_starves_while_prompts_arrive() -> None:
    """A prompt of many chunks arrives every step; the first request gets a token each step."""
    eng = engine(FakeRunner(num_blocks=2000, max_rows=32), max_num_batched_tokens=32)
    first = eng.add([1, 2, 3], LONG)
    for step in range(40):
        eng.add([step % 60] * 100, SHORT)
        mine = [chunk for chunk in eng.step() if chunk.request_id == first]
        assert sum(len(chunk.token_ids) for chunk in mine) == 1
    drain(eng)


def test_decode_comes_before_the_prompts_of_older_requests() -> None:
    """An old prompt that wants logprobs for every row must not take the last one from a decode."""
    eng = engine(FakeRunner(max_samples=4, max_seqs=4, max_rows=32), max_num_batched_tokens=32)
    eng.add([1] * 100, SamplingParams(max_tokens=1, prompt_logprobs=0))
    second = eng.add([2], LONG)
    eng.step()
    for _ in range(10):
        assert [chunk.request_id for chunk in eng.step()] == [second]
    drain(eng)


def test_one_step_mixes_decode_and_prefill_within_its_budget() -> None:
    runner = FakeRunner(max_rows=40)
    eng = engine(runner, max_num_batched_tokens=40)
    eng.add([1], LONG)
    eng.step()
    eng.add(list(range(60)), SHORT)
    seen: list[list[int]] = []

    def note(batch: list[Scheduled]) -> None:
        seen.append([len(item.tokens) for item in batch])

    runner.before_step = note  # type: ignore[assignment]
    eng.step()
    eng.step()
    assert seen == [[1, 39], [1, 21]]


def test_chunk_limits_each_prompt() -> None:
    runner = FakeRunner()
    eng = engine(runner, chunk=7)
    sizes: list[int] = []
    runner.before_step = lambda batch: sizes.extend(len(item.tokens) for item in batch)
    run(eng, prompts(5), SHORT)
    assert max(sizes) == 7


def test_partial_chunks_sample_nothing() -> None:
    runner = FakeRunner()
    eng = engine(runner, chunk=16)
    rows: list[int] = []
    runner.before_step = lambda batch: rows.extend(len(item.sample) for item in batch)
    run(eng, [list(range(40))], SamplingParams(temperature=0, max_tokens=1))
    assert rows == [0, 0, 1]


def test_pool_for_two_and_a_half_sequences_serves_twenty() -> None:
    """Everything finishes with the tokens of an empty engine; recomputing stays bounded."""
    made = [[i % 60, *range(30)] for i in range(20)]
    eng = engine(FakeRunner(num_blocks=1 + 12, block_size=16))  # a sequence needs 5 blocks of 16
    ids = [eng.add(prompt, LONG) for prompt in made]
    outs = list(outputs(drain(eng)).values())
    assert [out.request_id for out in outs] == ids, "the preempted were overtaken"
    assert [token_ids(out) for out in outs] == [expected(prompt, LONG) for prompt in made]
    assert 0 < sum(out.metrics.preemptions for out in outs) <= 3 * 20
    assert eng.pool.num_available == 12 and not any(block.refs for block in eng.pool.blocks)


def test_first_come_first_served_when_tight() -> None:
    eng = engine(FakeRunner(num_blocks=7))
    ids = [eng.add(prompt, LONG) for prompt in prompts(8, low=30, high=50)]
    finished = [chunk.request_id for chunk in drain(eng) if chunk.output]
    assert finished == ids


def test_a_large_waiting_prompt_is_not_overtaken_for_ever() -> None:
    eng = engine(FakeRunner(num_blocks=11))
    small = [eng.add([i], LONG) for i in range(3)]
    large = eng.add(list(range(60)) * 2, SHORT)
    late = [eng.add([i], SHORT) for i in range(10)]
    finished = [chunk.request_id for chunk in drain(eng) if chunk.output]
    assert set(finished) == {*small, large, *late}
    assert finished.index(large) < finished.index(late[0])


def test_running_requests_keep_room_to_grow_when_one_is_admitted() -> None:
    """Two fit at first, but each will need a block: the newcomer waits, nobody is preempted."""
    eng = engine(FakeRunner(num_blocks=1 + 5))
    outs = run(eng, [[1] * 30, [2] * 30, [3] * 30], SamplingParams(temperature=0, max_tokens=10))
    assert sum(out.metrics.preemptions for out in outs) == 0


def test_followers_hit_the_prompt_of_the_first() -> None:
    runner = FakeRunner()
    eng = engine(runner)
    [out] = run(eng, [list(range(60))], SamplingParams(n=16, seed=1, max_tokens=1))
    assert runner.rows == 60 + 15 * 12
    assert len(out.outputs) == 16


def test_followers_run_on_their_own_when_the_first_fails() -> None:
    runner = FakeRunner()
    eng = engine(runner)
    params = SamplingParams(n=3, seed=1, max_tokens=4, ignore_eos=True)
    runner.poison = lambda item, row: item.request.index == 0
    [out] = run(eng, [list(range(40))], params)
    assert [answer.finish_reason for answer in out.outputs] == ["error", "length", "length"]
    assert token_ids(out)[1:] == expected(list(range(40)), params)[1:]


@pytest.mark.parametrize("seqs", [1, 3, 32])
def test_at_most_max_seqs_run_together(seqs: int) -> None:
    runner = FakeRunner()
    run(engine(runner, max_num_seqs=seqs), [[i] for i in range(40)], SHORT)
    assert runner.peak == seqs


def test_the_runners_own_limits_hold() -> None:
    runner = FakeRunner(max_rows=8, max_samples=3, max_seqs=5)
    eng = engine(runner)
    outs = run(eng, prompts(9), SHORT)
    assert [token_ids(out) for out in outs] == [expected(p, SHORT) for p in prompts(9)]
    assert runner.peak <= 3


def test_a_blocked_prompt_is_not_hashed_again_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    eng = engine(FakeRunner(num_blocks=12))
    calls = []
    digest = eng.pool._digest
    monkeypatch.setattr(eng.pool, "_digest", lambda *a: calls.append(a) or digest(*a))
    run(eng, [[1] * 33, list(range(60)) * 2], LONG)
    assert len(calls) <= sum(length // 16 for length in (33 + 40, 120 + 40))


def test_nothing_to_do_is_harmless() -> None:
    eng = engine()
    assert eng.step() == [] and not eng.has_work
    assert outputs(eng.step()) == {}
