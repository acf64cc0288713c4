"""What fails ends the request concerned and nobody else; nothing leaks; the engine goes on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from engine.fake import (
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
from nanocupy.distributed import RankError
from nanocupy.engine.batch import Scheduled
from nanocupy.engine.engine import Engine
from nanocupy.engine.params import SamplingParams

PARAMS = SamplingParams(seed=3, max_tokens=10, ignore_eos=True)
PROMPTS = prompts(6, low=10, high=50, seed=9)
EXPECTED = [expected(prompt, PARAMS) for prompt in PROMPTS]


class Boom(Exception):
    pass


class Fuse:
    """Blows at the k-th call, once."""

    def __init__(self, k: int, error: Exception | None = None) -> None:
        self.k, self.error, self.calls = k, error, 0

    def __call__(self) -> bool:
        self.calls += 1
        if self.calls == self.k and self.error is not None:
            raise self.error
        return self.calls == self.k

    @property
    def blown(self) -> bool:
        return self.calls >= self.k


def check_survivors(eng: Engine, fuse: Fuse, max_errors: int) -> bool:
    """Run all prompts; survivors have their tokens, errors are few, and all is well again after."""
    ids = [eng.add(prompt, PARAMS) for prompt in PROMPTS]
    found = outputs(drain(eng))
    reasons = [found[id].outputs[0].finish_reason for id in ids]
    for id, reason, wanted in zip(ids, reasons, EXPECTED, strict=True):
        assert reason in ("length", "error")
        assert (found[id].error is not None) == (reason == "error")
        if reason == "length":
            assert token_ids(found[id]) == wanted
    assert reasons.count("error") <= max_errors
    assert eng.pool.num_available == len(eng.pool.blocks) - 1
    blown, fuse.k = fuse.blown, 0
    assert [token_ids(out) for out in run(eng, PROMPTS, PARAMS)] == EXPECTED
    expected_error = f"{type(fuse.error).__name__}: {fuse.error}"
    assert all(found[id].error in (None, expected_error) for id in ids)
    return blown


@pytest.mark.parametrize("num_blocks", [12, 101])
def test_fail_the_kth_step(num_blocks: int) -> None:
    """A step that works when it is repeated ends nobody; one with a single request ends that."""
    for k in itertools.count(1):
        eng, fuse = engine(FakeRunner(num_blocks=num_blocks), chunk=16), Fuse(k, Boom("step"))
        runner_of(eng).before_step = lambda batch, fuse=fuse: fuse() and None
        if not check_survivors(eng, fuse, max_errors=1):
            break
    assert k > 10


@pytest.mark.parametrize("num_blocks", [12, 101])
@pytest.mark.parametrize("error", [None, MemoryError("blocks")])
def test_fail_the_kth_allocation(num_blocks: int, error: Exception | None) -> None:
    """An allocation that says no means wait or preempt; one that raises ends its request."""
    for k in itertools.count(1):
        eng, fuse = engine(FakeRunner(num_blocks=num_blocks), chunk=16), Fuse(k, error)
        allocate = eng.pool.allocate

        def failing(*args: Any, fuse: Fuse = fuse, allocate: Any = allocate, **kw: Any) -> Any:
            return None if fuse() else allocate(*args, **kw)

        eng.pool.allocate = failing  # type: ignore[method-assign]
        if not check_survivors(eng, fuse, max_errors=0 if error is None else 1):
            break
    assert k > 10


@pytest.mark.parametrize("name", ["lookup", "register", "make_key", "rows"])
def test_fail_the_kth_call_of_a_part(name: str) -> None:
    """No exception from anywhere in the bookkeeping reaches the caller of step."""
    for k in itertools.count(1):
        eng, fuse = engine(FakeRunner(num_blocks=20), chunk=16), Fuse(k, Boom(name))
        part = eng.sampler if name == "rows" else eng.pool
        original = getattr(part, name)

        def failing(*args: Any, fuse: Fuse = fuse, original: Any = original) -> Any:
            fuse()
            return original(*args)

        setattr(part, name, failing)
        if not check_survivors(eng, fuse, max_errors=1):
            break
    assert k > 5


def test_the_guilty_request_is_found_and_only_it_ends() -> None:
    eng = engine()
    ids = [eng.add(prompt, PARAMS) for prompt in PROMPTS]
    guilty = eng.groups[ids[2]].requests[0]

    def fail(batch: Sequence[Scheduled]) -> None:
        if any(item.request is guilty and item.start > 10 for item in batch):
            raise Boom("guilty")

    runner_of(eng).before_step = fail
    found = outputs(drain(eng))
    for i, id in enumerate(ids):
        if i == 2:
            assert found[id].outputs[0].finish_reason == "error"
            assert found[id].error == "Boom: guilty"
        else:
            assert token_ids(found[id]) == EXPECTED[i]


def test_a_dead_runner_ends_every_request_but_not_the_engine() -> None:
    eng = engine()

    def fail(batch: Sequence[Scheduled]) -> None:
        raise Boom("dead")

    runner_of(eng).before_step = fail
    outs = run(eng, PROMPTS, PARAMS)
    assert {out.error for out in outs} == {"Boom: dead"}
    runner_of(eng).before_step = lambda batch: None
    assert [token_ids(out) for out in run(eng, PROMPTS, PARAMS)] == EXPECTED


def test_wrong_number_of_rows_is_an_error_not_a_mix_up() -> None:
    eng = engine()
    step = runner_of(eng).step
    runner_of(eng).step = lambda batch: step(batch)[:-1]  # type: ignore[method-assign]
    [out] = run(eng, [[1, 2]], PARAMS)
    assert out.error == "RuntimeError: the runner returned 0 rows, expected 1"


@pytest.mark.parametrize("position", [0, 3])
def test_a_row_that_is_not_finite_ends_its_request_and_unkeys_its_blocks(position: int) -> None:
    eng = engine()
    made = [[i, *range(40)] for i in range(4)]
    wanted = [expected(prompt, PARAMS) for prompt in made]
    ids = [eng.add(prompt, PARAMS) for prompt in made]
    bad = eng.groups[ids[1]].requests[0]
    runner_of(eng).poison = lambda item, row: (
        item.request is bad and item.request.num_generated == position
    )
    found = outputs(drain(eng))
    for i, id in enumerate(ids):
        if i == 1:
            assert found[id].outputs[0].finish_reason == "error"
            assert "not finite" in (found[id].error or "")
            assert found[id].outputs[0].token_ids == wanted[i][0][:position]
        else:
            assert token_ids(found[id]) == wanted[i]
    [again] = run(eng, [made[1]], PARAMS)
    assert again.cached_tokens == 0 and token_ids(again) == wanted[1]
    [other] = run(eng, [made[0]], PARAMS)
    assert other.cached_tokens == 32, "the blocks of the others are still good"


def test_a_prompt_row_that_is_not_finite_is_an_error_too() -> None:
    eng = engine()
    runner_of(eng).poison = lambda item, row: row.target == 7
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    good, bad = run(eng, [[1, 2, 3], [1, 7, 3]], params)
    assert good.error is None and "not finite" in (bad.error or "")


def test_interrupt_in_a_step_leaves_books_that_add_up() -> None:
    """KeyboardInterrupt passes through; aborting afterwards frees everything."""
    eng = engine(chunk=16)
    ids = [eng.add(prompt, PARAMS) for prompt in PROMPTS]
    for k in range(5):

        def interrupt(batch: Sequence[Scheduled]) -> None:
            raise KeyboardInterrupt

        runner_of(eng).before_step = interrupt
        with pytest.raises(KeyboardInterrupt):
            eng.step()
        runner_of(eng).before_step = lambda batch: None
        if k % 2:
            eng.step()
    found = outputs(drain(eng))
    assert [token_ids(found[id]) for id in ids] == EXPECTED
    again = [eng.add(prompt, PARAMS) for prompt in PROMPTS]
    runner_of(eng).before_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        eng.step()
    for id in again:
        eng.abort(id)
    assert eng.pool.num_available == 100 and not eng.has_work


def test_what_cannot_be_scheduled_ends_instead_of_hanging() -> None:
    eng = engine()
    eng.pool.allocate = lambda *args, **kw: None  # type: ignore[method-assign]
    eng.add([1], PARAMS)
    [out] = outputs(drain(eng, max_steps=9)).values()
    assert out.error == "RuntimeError: it cannot be scheduled"


def test_nothing_is_committed_where_the_runner_has_ended() -> None:
    """A rank is lost while requests are run one by one: no caller is left to wait for a result."""
    eng = engine()
    ids = [eng.add([n, n + 1], SamplingParams(max_tokens=1, ignore_eos=True)) for n in (1, 2)]
    before = [list(eng.groups[id].requests[0].tokens) for id in ids]

    def fail(batch: Sequence[Scheduled]) -> None:
        if len(batch) == 2:
            raise Boom("together")
        if batch[0].request.group.id == ids[1]:
            raise RankError("rank 1 is gone")

    runner_of(eng).before_step = fail
    with pytest.raises(RankError):
        eng.step()
    assert [eng.groups[id].requests[0].tokens for id in ids] == before
    assert not eng._chunks
