"""Speculation: drafts come from the text, pay or stop, and change no token."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fake import (
    EOS,
    FakeRunner,
    drain,
    engine,
    outputs,
    prompts,
    run,
    runner_of,
    token_ids,
)
from nanocupy.engine.batch import SampleRow, Scheduled
from nanocupy.engine.drafting import SIZES, Drafter, repeat_from
from nanocupy.engine.engine import Engine
from nanocupy.engine.options import MAX_DRAFTED, EngineOptions
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.speculation import FRESH, GUESS, PAUSE, StepTimes, Trust

LONG = SamplingParams(temperature=0, max_tokens=120, ignore_eos=True)
PARAMS = {
    "greedy": SamplingParams(temperature=0, max_tokens=40),
    "seeded": SamplingParams(seed=11, max_tokens=40, top_p=0.95, min_p=0.01, n=2, logprobs=2),
    "penalties": SamplingParams(
        temperature=0, max_tokens=40, repetition_penalty=1.1, frequency_penalty=0.2, min_tokens=19
    ),
    "biased": SamplingParams(
        temperature=0.5, seed=3, max_tokens=40, logit_bias={EOS: 6.5, 3: -50}, min_tokens=9
    ),
    "ends": SamplingParams(temperature=0, max_tokens=40, stop_token_ids=[5, 17, 21], n=2),
    "told": SamplingParams(seed=2, max_tokens=30, ignore_eos=True, prompt_logprobs=1, logprobs=0),
    "short": SamplingParams(temperature=0, max_tokens=2),
    "none": SamplingParams(max_tokens=0),
}


def eager(runner: FakeRunner | None = None, **options: Any) -> Engine:
    """An engine for which a step costs nothing, so that it drafts whenever it can."""
    made = engine(runner or FakeRunner(echo=6), **options)
    if made.speculator is not None:
        made.speculator.clock = lambda: 0.0
    return made


def told(output: Any) -> Any:
    """All that a caller is told, but times and how it was made."""
    plain = dataclasses.asdict(output)
    for name in ("request_id", "metrics", "cached_tokens", "drafted", "accepted"):
        plain.pop(name)
    return plain


# --- drafts -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 7))
def test_the_last_place_of_the_longest_suffix_is_found(tokens: list[int], stride: int) -> None:
    drafter = Drafter()
    for end in range(0, len(tokens) + 1, stride):
        text = tokens[:end]
        assert drafter.find(text) == slowly(text)


def slowly(text: Sequence[int]) -> tuple[int, int] | None:
    for size in SIZES:
        for stop in range(len(text) - 1, size - 1, -1):
            if text[stop - size : stop] == text[len(text) - size :]:
                return size, stop
    return None


def test_a_draft_is_what_followed_and_goes_round_at_the_end() -> None:
    assert repeat_from([1, 2, 3, 4, 1, 2], 2, 3) == [3, 4, 1]
    assert repeat_from([7, 8, 7, 8], 2, 5) == [7, 8, 7, 8, 7]
    assert repeat_from([1], 0, 0) == []


# --- how many -----------------------------------------------------------------------------------


def test_drafts_grow_while_they_are_right_and_end_where_they_are_not() -> None:
    trust, lengths = Trust(0.4), []
    for right in [True] * 8 + [False] * 5:
        lengths.append(trust.length(0.2))
        trust.update(lengths[-1], lengths[-1] if right else 0)
    grown, shrunk = lengths[:9], lengths[8:]
    assert grown == sorted(grown) and grown[0] == 1 and grown[-1] > MAX_DRAFTED
    assert shrunk == sorted(shrunk, reverse=True) and shrunk[-1] == 0


def test_what_loses_is_tried_again_at_growing_intervals() -> None:
    trust, tries = Trust(0.1), []
    for match in range(200):
        if length := trust.length(0.3):
            assert length == 1
            tries.append(match)
            trust.update(1, 0)
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps == [PAUSE * 2**i + 1 for i in range(len(gaps))] and len(gaps) == 5
    trust.update(1, 1)
    assert trust.length(0.3) == 1 and trust.pause == trust.next_pause == PAUSE


@given(st.floats(-1, 5), st.lists(st.integers(0, 3), max_size=30))
def test_trust_holds_for_any_price(price: float, rights: list[int]) -> None:
    trust = Trust(0.6)
    for right in rights:
        if length := trust.length(price):
            trust.update(length, min(length, right))
        assert 0 < trust.chance < 1


def test_the_price_is_what_was_measured() -> None:
    times = StepTimes()
    assert times.price(4) is None
    times.add(4, 6, 9.0)  # says nothing: there is nothing to compare it with
    assert times.price(4) is None
    for seconds in (2.0, 2.0, 50.0):
        times.add(4, 0, seconds)
    assert times.price(4) == GUESS and times.price(3) is None
    times.add(4, 2, 3.0)  # half as long again, in which two tokens are made
    assert times.price(4) == pytest.approx((8 * GUESS + 2) / (8 + 2))
    times.add(4, 1, 500.0)  # not its own fault
    assert times.price(4) == pytest.approx((8 * GUESS + 2 + 2) / (8 + 3))
    for _ in range(FRESH):
        times.add(4, 40, 12.0)
    assert times.price(4) is None  # how long does a step take without?
    times.add(4, 0, 2.0)
    assert times.price(4) == pytest.approx(0.5, abs=0.01)


def test_the_option() -> None:
    asked = {most: EngineOptions(speculate=most).drafted for most in (None, 0, 3)}
    assert asked[None](True) == MAX_DRAFTED and asked[None](False) == 0
    assert asked[3](True) == 3 and asked[0](False) == 0
    runner = FakeRunner()
    runner.row_invariant = False
    with pytest.raises(ValueError, match="speculate=3 needs a device on which a token"):
        engine(runner, speculate=3)
    assert engine(runner).speculator is None
    with pytest.raises(ValueError, match=r"speculate must be in \[0, 64\], got 65"):
        engine(speculate=65)


# --- in the engine ------------------------------------------------------------------------------


def test_text_that_repeats_itself_takes_fewer_steps() -> None:
    made = [eager(FakeRunner(echo=9), speculate=most) for most in (0, 16)]
    plain, quick = (run(eng, [[1, 2, 3]], LONG)[0] for eng in made)
    assert told(plain) == told(quick)
    assert plain.drafted == 0 and plain.acceptance_rate is None
    assert quick.acceptance_rate is not None and 0.8 < quick.acceptance_rate <= 1
    assert runner_of(made[0]).steps == 120
    assert runner_of(made[1]).steps == 120 - quick.accepted < 60


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("echo", [4, 6, 9])
@pytest.mark.parametrize("options", [{}, {"chunk": 7, "prefix_cache": False}], ids=str)
def test_nothing_changes(name: str, echo: float, options: Any) -> None:
    asked = prompts(9, seed=4)
    plain = run(eager(FakeRunner(echo=echo), speculate=0), asked, PARAMS[name])
    for most in (1, 4, 16):
        eng = eager(FakeRunner(echo=echo), speculate=most, **options)
        quick = run(eng, asked, PARAMS[name])
        assert [told(output) for output in quick] == [told(output) for output in plain]
        assert eng.pool.num_available == 100
        drafted = sum(output.drafted for output in quick)
        assert sum(output.accepted for output in quick) <= drafted
        assert drafted or name in ("short", "none") or echo < 9


@pytest.mark.parametrize("rows, samples, blocks", [(4, 4, 101), (20, 6, 12), (512, 9, 10)])
def test_a_draft_takes_only_what_is_left(rows: int, samples: int, blocks: int) -> None:
    asked = prompts(6, seed=2, high=40)
    found = []
    for most in (0, 16):
        runner = FakeRunner(num_blocks=blocks, max_rows=rows, max_samples=samples, echo=9)
        eng = eager(runner, speculate=most, max_num_seqs=4, max_num_batched_tokens=rows)
        found.append([told(output) for output in run(eng, asked, LONG)])
        assert eng.pool.num_available == blocks - 1
    assert found[0] == found[1]


def test_nobody_gives_up_a_block_for_a_guess() -> None:
    """The last tokens that fit are generated without drafts that would need one block more."""
    eng = eager(FakeRunner(num_blocks=5, block_size=16, max_samples=64, echo=9))
    asked = [[1, 2, 3], [4, 5, 6]]
    params = SamplingParams(temperature=0, max_tokens=29, ignore_eos=True)  # two blocks each
    quick = run(eng, asked, params)
    assert all(output.accepted and not output.metrics.preemptions for output in quick)


def test_blocks_of_rejected_guesses_go_back_and_are_never_found() -> None:
    """Only what was accepted is in the prefix cache: who asks for a wrong guess computes it."""
    eng = eager(FakeRunner(echo=5, block_size=16))
    id = eng.add([1, 2, 3] * 20, LONG)
    while eng.has_work:
        eng.step()
        for request in eng.groups[id].requests if id in eng.groups else ():
            assert len(request.block_table) == eng.pool.blocks_for(request.num_computed)
    plain = eager(FakeRunner(echo=5), speculate=0)
    [output] = run(plain, [[1, 2, 3] * 20], LONG)
    whole = [1, 2, 3] * 20 + token_ids(output)[0]
    keys = [block.prefix.key.tokens for block in eng.pool.blocks if block.prefix is not None]
    assert sorted(keys) == sorted(
        eng.pool.make_key(None, "", whole[i : i + 16]).tokens for i in range(0, len(whole) - 16, 16)
    )


def test_a_row_after_a_wrong_guess_may_not_be_finite() -> None:
    """Nobody asked for it. A row that was asked for ends the request after the tokens before it."""
    wrong = []

    def after_a_wrong_guess(item: Scheduled, row: SampleRow) -> bool:
        known = len(item.tokens) - len(item.draft)
        supposed = item.tokens[known : row.row + 1]
        bad = supposed != whole[item.start + known : item.start + row.row + 1]
        wrong.append(bad)
        return bad

    plain = eager(FakeRunner(echo=5), speculate=0)
    [output] = run(plain, [[1, 2, 3]], LONG)
    whole = [1, 2, 3, *token_ids(output)[0]]
    eng = eager(FakeRunner(echo=5))
    runner_of(eng).poison = after_a_wrong_guess
    [quick] = run(eng, [[1, 2, 3]], LONG)
    assert told(quick) == told(output) and any(wrong)
    found = []
    for most in (0, 16):
        eng = eager(FakeRunner(echo=9), speculate=most)
        runner_of(eng).poison = lambda item, row: item.start + row.row == 100
        found.append(told(run(eng, [[1, 2, 3]], LONG)[0]))
    assert found[0] == found[1] and found[0]["error"]


@pytest.mark.parametrize("every", [2, 3, 5])
def test_preemption_out_of_the_blue(every: int) -> None:
    wanted = run(eager(speculate=0), prompts(6, seed=4), PARAMS["seeded"])
    eng = eager(chunk=16)
    ids = [eng.add(prompt, PARAMS["seeded"]) for prompt in prompts(6, seed=4)]
    chunks = []
    for step in itertools.count():
        if not eng.has_work:
            break
        if step % every == 0 and len(eng.scheduler.running) > 1:
            eng.scheduler._batch = []
            eng.scheduler._preempt(eng.scheduler.running[-1])
        chunks += eng.step()
    found = outputs(chunks)
    assert [told(found[id]) for id in ids] == [told(output) for output in wanted]


def test_a_step_that_fails_is_repeated_with_its_drafts() -> None:
    wanted = run(eager(speculate=0), prompts(4, seed=1), LONG)
    eng = eager()
    random_failures = random.Random(0)

    def fail(batch: Sequence[Scheduled]) -> None:
        if len(batch) > 1 and random_failures.random() < 0.3:
            raise OSError("now and then")

    runner_of(eng).before_step = fail
    assert [told(o) for o in run(eng, prompts(4, seed=1), LONG)] == [told(o) for o in wanted]


def test_chunks_are_of_a_token_each() -> None:
    eng = eager(FakeRunner(echo=9))
    eng.add([1, 2, 3], LONG)
    chunks = drain(eng)
    assert [len(chunk.token_ids) for chunk in chunks] == [1] * 120
    assert chunks[-1].output is not None and chunks[-1].output.accepted > 60


@pytest.mark.parametrize("echo", [0, 5, 9])
@pytest.mark.parametrize("price", [0.3, 1, 3])
def test_what_guesses_lose_is_bounded(echo: float, price: float) -> None:
    """By a clock on which a step takes 4, each token of it 1, and a drafted one `price`."""
    spent = [0.0]

    def take_time(batch: Sequence[Scheduled]) -> None:
        spent[0] += 4 + len(batch) + price * sum(len(item.draft) for item in batch)

    steps = []
    for most in (0, 16):
        eng = engine(FakeRunner(echo=echo), max_num_seqs=8, speculate=most)
        runner_of(eng).before_step, spent[0] = take_time, 0
        if eng.speculator is not None:
            eng.speculator.clock = lambda: spent[0]
        run(eng, prompts(24, seed=5, high=20), LONG)
        steps.append(spent[0])
    plain, quick = steps
    assert quick < 1.05 * plain  # also by answers that no longer end together
    if echo == 9 and price < 0.5:
        assert quick < 0.6 * plain
