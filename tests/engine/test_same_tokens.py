"""E1: same request, same tokens, whatever else runs and however the work is cut up."""

from __future__ import annotations

import itertools
import random

import pytest

from engine.fake import FakeRunner, drain, engine, expected, outputs, prompts, run, token_ids
from nanocupy.engine.params import SamplingParams

PARAMS = {
    "greedy": SamplingParams(temperature=0, max_tokens=24, ignore_eos=True),
    "seeded": SamplingParams(seed=11, max_tokens=24, top_p=0.95, min_p=0.01, n=2),
    "penalties": SamplingParams(
        temperature=0, max_tokens=24, repetition_penalty=1.3, frequency_penalty=0.4, min_tokens=9
    ),
}
PROMPTS = prompts(17, seed=4)
EXPECTED = {
    (name, index): expected(prompt, params)
    for name, params in PARAMS.items()
    for index, prompt in enumerate(PROMPTS)
}


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("batch", [1, 2, 8, 17])
@pytest.mark.parametrize("chunk", [1, 7, 16, None])
@pytest.mark.parametrize("cache", [True, False])
def test_batch_chunk_and_cache(name: str, batch: int, chunk: int | None, cache: bool) -> None:
    eng = engine(chunk=chunk, prefix_cache=cache)
    order = random.Random(batch).sample(range(17), 17)
    for i in range(0, 17, batch):
        part = order[i : i + batch]
        for index, out in zip(
            part, run(eng, [PROMPTS[i] for i in part], PARAMS[name]), strict=True
        ):
            assert token_ids(out) == EXPECTED[name, index]


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("block_size, num_blocks", [(16, 10), (32, 6), (64, 4), (64, 100)])
def test_block_size_and_preemption(name: str, block_size: int, num_blocks: int) -> None:
    eng = engine(FakeRunner(block_size=block_size, num_blocks=num_blocks))
    outs = run(eng, PROMPTS, PARAMS[name])
    assert [token_ids(out) for out in outs] == [EXPECTED[name, i] for i in range(17)]
    assert eng.pool.num_available == num_blocks - 1


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("name", PARAMS)
def test_forced_preemption(name: str, every: int) -> None:
    """Preempt the newest running request every few steps, out of the blue."""
    eng = engine(chunk=16)
    ids = [eng.add(prompt, PARAMS[name]) for prompt in PROMPTS[:8]]
    chunks = []
    for step in itertools.count():
        if not eng.has_work:
            break
        chunks += eng.step()
        running = eng.scheduler.running
        if step % every == 0 and len(running) > 1:
            eng.scheduler._batch = []
            eng.scheduler._preempt(running[-1])
        assert step < 3000
    found = outputs(chunks)
    assert [token_ids(found[id]) for id in ids] == [EXPECTED[name, i] for i in range(8)]


@pytest.mark.parametrize("seed", range(6))
def test_arrivals_at_any_time(seed: int) -> None:
    """Requests of all kinds arrive while others run, with tight limits."""
    rng = random.Random(seed)
    runner = FakeRunner(num_blocks=rng.choice([16, 40]), max_seqs=5)
    eng = engine(runner, max_num_seqs=4, max_num_batched_tokens=rng.choice([4, 24, 512]))
    todo = [(name, i) for name in PARAMS for i in range(17)]
    rng.shuffle(todo)
    wanted, chunks = {}, []
    while todo or eng.has_work:
        for _ in range(rng.randrange(3)):
            if todo:
                name, i = todo.pop()
                wanted[eng.add(PROMPTS[i], PARAMS[name])] = EXPECTED[name, i]
        chunks += eng.step()
    found = outputs(chunks)
    assert {id: token_ids(found[id]) for id in wanted} == wanted
    assert runner.peak <= 4


def test_resumed_from_its_own_output() -> None:
    """Random numbers belong to positions: prompt + half an answer continues as the whole did."""
    params = SamplingParams(seed=2, max_tokens=20, ignore_eos=True)
    [whole] = expected([1, 2, 3], params)
    rest = SamplingParams(seed=2, max_tokens=12, ignore_eos=True)
    assert expected([1, 2, 3, *whole[:8]], rest) == [whole[8:]]


def test_constant_hash_still_gives_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every digest collides, hits are still true: tokens and parents are compared."""
    eng = engine(FakeRunner(num_blocks=60))
    monkeypatch.setattr(eng.pool, "_digest", lambda parent, salt, tokens: b"same")
    for name, params in PARAMS.items():
        for _ in range(2):
            outs = run(eng, PROMPTS, params)
            assert [token_ids(out) for out in outs] == [EXPECTED[name, i] for i in range(17)]
    assert outs[0].cached_tokens == (len(PROMPTS[0]) - 1) // 16 * 16


def test_same_block_after_different_parents_is_not_a_hit() -> None:
    eng, tail = engine(), list(range(16))
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    for head in ([1] * 16, [2] * 16, [1] * 16):
        [out] = run(eng, [head + tail + [5]], params)
        assert token_ids(out) == expected(head + tail + [5], params)
    assert out.cached_tokens == 32


def test_drain_reports_a_hang() -> None:
    eng = engine()
    eng.add([1], SamplingParams(ignore_eos=True))
    with pytest.raises(AssertionError, match="not finished"):
        drain(eng, max_steps=3)
