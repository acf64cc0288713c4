"""The driver under LLM and AsyncLLM: threads, hand-over, bounds, errors of one's own, garbage."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
import traceback
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.fake import FakeRunner, prompts
from engine.fake_text import loaded
from nanocupy.engine.async_llm import AsyncLLM
from nanocupy.engine.driver import MAX_QUEUED, EngineDeadError, QueueFullError
from nanocupy.engine.llm import LLM
from nanocupy.engine.params import SamplingParams

SHORT = SamplingParams(seed=5, max_tokens=8, ignore_eos=True)
LONG = SamplingParams(seed=5, max_tokens=400, ignore_eos=True)
Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("kind", [LLM, AsyncLLM])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def slow(seconds: float = 0.002, **sizes: Any) -> FakeRunner:
    runner = FakeRunner(**sizes)
    runner.before_step = lambda batch: time.sleep(seconds)
    return runner


def text_of(llm: LLM, prompt: Any, params: SamplingParams = SHORT) -> str:
    [output] = llm.generate([prompt], params)
    return output.outputs[0].text


def expected(prompt: Any, params: SamplingParams = SHORT) -> str:
    with LLM._from_parts(loaded()) as llm:
        return text_of(llm, prompt, params)


def idle(llm: Any) -> bool:
    pool = llm.engine.pool
    nothing = not llm.engine.has_work and not llm._driver.tickets
    return nothing and pool.num_available == len(pool.blocks) - 1


def until(happened: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


class Caller(threading.Thread):
    """Runs `work`; keeps what it returned or raised, and the engine's step then."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.work, self.result, self.error = work, None, None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error

    def done(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.result


# --- several threads on LLM -------------------------------------------------------------------


def test_a_second_thread_is_computed_together_with_the_first() -> None:
    runner = slow()
    with LLM._from_parts(loaded(runner)) as llm:
        first = Caller(lambda: text_of(llm, "first", LONG))
        until(lambda: runner.steps > 5)
        begun = runner.steps
        assert text_of(llm, "second") == expected("second")
        assert runner.steps - begun < 40, "the second had to wait for the first"
        assert first.is_alive() and runner.peak == 2
        assert first.done() == expected("first", LONG) and idle(llm)


@pytest.mark.parametrize("seed", range(3))
def test_many_threads_of_every_kind_get_their_own_answers(seed: int) -> None:
    made = prompts(12, seed=seed)
    wanted = [expected(prompt) for prompt in made]
    runner = slow(0.0003, num_blocks=60)
    with LLM._from_parts(loaded(runner), max_num_seqs=5) as llm:

        def whole(rng: random.Random) -> None:
            some = rng.sample(range(12), rng.randint(1, 4))
            outputs = llm.generate([made[i] for i in some], SHORT)
            assert [out.outputs[0].text for out in outputs] == [wanted[i] for i in some]

        def pieces(rng: random.Random) -> None:
            i = rng.randrange(12)
            assert "".join(chunk.text for chunk in llm.stream(made[i], SHORT)) == wanted[i]

        def broken_off(rng: random.Random) -> None:
            for _ in llm.stream(made[rng.randrange(12)], LONG):
                if rng.random() < 0.3:
                    break

        def refused(rng: random.Random) -> None:
            with pytest.raises(ValueError, match="at most 511 fit"):
                llm.generate([1] * 600, SHORT)

        def work(number: int) -> None:
            rng = random.Random(100 * seed + number)
            for _ in range(8):
                rng.choice([whole, pieces, broken_off, refused])(rng)

        callers = [Caller(lambda n=n: work(n)) for n in range(8)]  # type: ignore[misc]
        for caller in callers:
            caller.done()
        assert runner.peak > 1, "they took turns"
        gc.collect()
        assert idle(llm) and not llm._driver._sleepers


def test_who_sleeps_steps_when_the_other_leaves() -> None:
    """A stream that nobody reads on steps for nobody: the others do."""
    with LLM._from_parts(loaded(slow())) as llm:
        stream = llm.stream("first", LONG)
        next(stream)
        second = Caller(lambda: text_of(llm, "second"))
        third = Caller(lambda: text_of(llm, "third", LONG))
        assert second.done() == expected("second") and third.done() == expected("third", LONG)
        rest = "".join(chunk.text for chunk in stream)
        assert expected("first", LONG).endswith(rest) and idle(llm)


def test_ctrl_c_while_another_thread_steps_ends_the_own_requests_only() -> None:
    with LLM._from_parts(loaded(slow())) as llm:
        other = Caller(lambda: text_of(llm, "other", LONG))
        until(lambda: llm.engine.has_work)
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["mine", "mine, too"], LONG)
        until(lambda: len(llm._driver.tickets) <= 1)
        assert other.done() == expected("other", LONG) and idle(llm)


def test_an_exception_in_a_step_is_the_stepping_callers() -> None:
    """Here a KeyboardInterrupt from inside: the other one steps on."""
    runner = slow()
    with LLM._from_parts(loaded(runner)) as llm:
        ready = threading.Event()

        def interrupt_once(batch: Any) -> None:
            if len(batch) == 2 and llm._driver._sleepers:
                runner.before_step = lambda batch: time.sleep(0.001)
                ready.set()
                raise KeyboardInterrupt
            time.sleep(0.002)

        runner.before_step = interrupt_once
        callers = {name: Caller(lambda n=name: text_of(llm, n, LONG)) for name in ("one", "two")}
        for caller in callers.values():
            caller.join(30)
        assert ready.is_set()
        failed = [name for name, caller in callers.items() if caller.error is not None]
        assert len(failed) == 1 and isinstance(callers[failed[0]].error, KeyboardInterrupt)
        [other] = callers.keys() - set(failed)
        assert callers[other].result == expected(other, LONG) and idle(llm)


def test_close_while_threads_wait() -> None:
    llm = LLM._from_parts(loaded(slow()))
    callers = [Caller(lambda n=n: text_of(llm, n, LONG)) for n in "abcdef"]  # type: ignore[misc]
    until(lambda: len(llm.engine.scheduler.running) == 6)
    llm.close()
    assert llm.engine.runner.closed  # type: ignore[attr-defined]
    for caller in callers:
        with pytest.raises(EngineDeadError, match="this LLM is closed"):
            caller.done()
    assert len({id(caller.error) for caller in callers}) == 6


def test_close_by_a_signal_inside_a_step_waits_for_its_end() -> None:
    runner = FakeRunner()
    llm = LLM._from_parts(loaded(runner))

    def close(batch: Any) -> None:
        llm.close()
        assert not runner.closed, "it is in use"

    runner.before_step = close
    with pytest.raises(EngineDeadError, match="closed"):
        llm.generate("a", LONG)
    assert runner.closed


# --- bounds -----------------------------------------------------------------------------------


@contextmanager
def counted(llm: AsyncLLM) -> Iterator[list[int]]:
    """How many requests the engine is given and told to abort, between two steps each."""
    counts, now = [0], [0]
    engine = llm.engine
    add, abort, step = engine.add, engine.abort, engine.step

    def count(call: Any) -> Any:
        def counting(*args: Any, **options: Any) -> Any:
            now[0] += 1
            return call(*args, **options)

        return counting

    def new_step() -> Any:
        counts.append(now[0])
        now[0] = 0
        return step()

    engine.add, engine.abort, engine.step = count(add), count(abort), new_step  # type: ignore
    yield counts


def test_a_flood_and_its_end_keep_no_stream_waiting() -> None:
    """Between two steps little is done, however much has come; all that came is served."""
    llm = AsyncLLM._from_parts(loaded(slow(0.001)), max_num_seqs=4)
    gaps: list[float] = []

    async def read() -> None:
        while True:
            last = time.monotonic()
            async for _ in llm.stream("other", LONG):
                gaps.append(time.monotonic() - last)
                last = time.monotonic()

    async def main() -> None:
        reader = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        with counted(llm) as counts:
            tasks = [asyncio.create_task(llm.generate("hello", SHORT)) for _ in range(4000)]
            await asyncio.wait_for(tasks[50], 20)
            while len(llm._driver.tickets) < 2000:
                await asyncio.sleep(0.01)
            assert len(llm.engine.scheduler.waiting) <= MAX_QUEUED
            random.Random(0).shuffle(tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            while len(llm.engine.groups) > 1 or len(llm._driver.tickets) > 1:
                await asyncio.sleep(0.01)
        reader.cancel()
        assert max(counts) <= 2 * MAX_QUEUED, max(counts)
        assert max(gaps) < 2, max(gaps)

    asyncio.run(asyncio.wait_for(main(), 60))
    llm.close()
    assert not llm._driver._waiting and not llm._driver._cancelled


def test_requests_leave_the_queue_in_constant_time() -> None:
    """20,000 in any order: by a search through the queue it would take minutes."""
    with LLM._from_parts(loaded()) as llm:
        engine = llm.engine
        ids = [engine.add([1], SHORT) for _ in range(20_000)]
        random.Random(0).shuffle(ids)
        begun = time.process_time()
        for id in ids:
            engine.abort(id)
        assert time.process_time() - begun < 5
        assert not engine.has_work and not engine.scheduler.waiting


def test_no_more_than_max_waiting_may_wait() -> None:
    async def main() -> None:
        async with AsyncLLM._from_parts(loaded(slow()), max_num_seqs=2, max_waiting=3) as llm:
            tasks = [asyncio.create_task(llm.generate("a", LONG)) for _ in range(5)]
            while len(llm._driver.tickets) < 5:
                await asyncio.sleep(0.001)
            with pytest.raises(QueueFullError, match=r"5 requests .* 2 are .* 3 may wait") as full:
                await llm.generate("b", SHORT)
            assert (full.value.waiting, full.value.limit) == (5, 5)
            with pytest.raises(QueueFullError):
                await anext(llm.stream("b", SHORT))
            tasks[0].cancel()
            await asyncio.gather(tasks[0], return_exceptions=True)
            again = asyncio.create_task(llm.generate("c", SHORT))
            while len(llm._driver.tickets) < 5:
                await asyncio.sleep(0.001)
            for task in tasks:
                task.cancel()
            assert (await again).outputs[0].text == expected("c")
            while not idle(llm):
                await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_list_that_finds_room_enters_whole_and_the_next_call_is_refused() -> None:
    with LLM._from_parts(loaded(slow()), max_num_seqs=2, max_waiting=3) as llm:
        many = Caller(lambda: llm.generate(["a"] * 40, SHORT))
        until(lambda: len(llm._driver.tickets) > 5)
        with pytest.raises(QueueFullError, match="ask again later"):
            llm.generate("b", SHORT)
        with pytest.raises(QueueFullError):
            next(llm.stream("b", SHORT))
        assert {output.outputs[0].text for output in many.done()} == {expected("a")}
        assert text_of(llm, "b") == expected("b") and idle(llm)


def test_waiting_in_line_counts_as_waiting() -> None:
    """The time to the first token begins when the request came, not when the engine took it."""
    with LLM._from_parts(loaded(slow()), max_num_seqs=1) as llm:
        begun = time.monotonic()
        outputs = llm.generate(["a"] * (2 * MAX_QUEUED), SamplingParams(max_tokens=1))
        arrivals = [output.metrics.arrival - begun for output in outputs]
        assert max(arrivals) < outputs[0].metrics.latency + 0.1  # type: ignore[operator]


@pytest.mark.parametrize("when", ["in line", "before it"])
def test_abort_of_what_the_engine_has_not_heard_of(when: str) -> None:
    async def main() -> None:
        async with AsyncLLM._from_parts(loaded(slow()), max_num_seqs=1) as llm:
            first = asyncio.create_task(llm.generate("first", LONG))
            many = [asyncio.create_task(llm.generate("x", LONG)) for _ in range(2 * MAX_QUEUED)]
            mine = asyncio.create_task(llm.generate("mine", LONG, request_id="mine"))
            while "mine" not in llm._driver.tickets:
                await asyncio.sleep(0)
            if when == "in line":
                while llm._driver.tickets["mine"].prepared is None:
                    await asyncio.sleep(0)
                assert "mine" not in llm.engine.groups
            await llm.abort("mine")
            await llm.abort("mine")
            output = await asyncio.wait_for(mine, 5)
            assert output.outputs[0].finish_reason == "abort" and output.prompt == "mine"
            assert output.outputs[0].token_ids == []
            for task in (first, *many):
                task.cancel()

    asyncio.run(main())


def test_a_callers_id_is_not_in_the_way_of_those_without() -> None:
    async def main() -> None:
        async with AsyncLLM._from_parts(loaded(slow())) as llm:
            named = [
                asyncio.create_task(llm.generate("a", LONG, request_id=f"req-{i}"))
                for i in range(3)
            ]
            while len(llm._driver.tickets) < 3:
                await asyncio.sleep(0)
            outputs = await asyncio.gather(*(llm.generate("b", SHORT) for _ in range(4)))
            assert {output.outputs[0].text for output in outputs} == {expected("b")}
            for task in named:
                task.cancel()

    asyncio.run(main())


def test_an_id_may_be_used_again_while_a_hundred_are_being_ended() -> None:
    async def main() -> None:
        async with AsyncLLM._from_parts(loaded(slow(0.005, max_seqs=120)), max_num_seqs=120) as llm:
            for _ in range(3):
                old = [
                    asyncio.create_task(llm.generate("old", LONG, request_id=f"id {i}"))
                    for i in range(120)
                ]
                while len(llm.engine.groups) < 120:
                    await asyncio.sleep(0.001)
                for task in old:
                    task.cancel()
                await asyncio.gather(*old, return_exceptions=True)
                new = [llm.generate("new", SHORT, request_id=f"id {i}") for i in range(119, -1, -1)]
                outputs = await asyncio.gather(*new)
                assert {output.prompt for output in outputs} == {"new"}
                assert {output.outputs[0].text for output in outputs} == {expected("new")}

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_refusal_that_comes_late_is_not_the_next_ones() -> None:
    """The first with this id is cancelled while its prompt is prepared, which fails then."""
    fail = threading.Event()

    async def main() -> None:
        async with AsyncLLM._from_parts(loaded(slow())) as llm:
            prepare = llm._prepare

            def slowly(prompt: Any, params: Any) -> Any:
                if prompt == "first":
                    fail.wait(10)
                    raise ValueError("refused late")
                return prepare(prompt, params)

            llm._prepare = slowly  # type: ignore[method-assign]
            first = asyncio.create_task(llm.generate("first", LONG, request_id="same"))
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            second = asyncio.create_task(llm.generate("second", SHORT, request_id="same"))
            while "same" not in llm.engine.groups:
                await asyncio.sleep(0)
            fail.set()
            assert (await asyncio.wait_for(second, 10)).outputs[0].text == expected("second")

    asyncio.run(main())


# --- errors that many share -------------------------------------------------------------------


def test_each_of_many_callers_gets_an_error_of_its_own_at_close() -> None:
    llm = AsyncLLM._from_parts(loaded(slow()))

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(llm.generate("a", LONG)) for _ in range(1000)]
        while len(llm._driver.tickets) < 1000:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(llm.close)
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(main())
    assert all(type(error) is EngineDeadError for error in errors)
    assert len({id(error) for error in errors}) == 1000
    assert sum(len("".join(traceback.format_exception(error))) for error in errors) < 3_000_000


def dead(kind: Make) -> Any:
    llm = kind._from_parts(loaded())
    llm.close()
    return llm


def killed(kind: Make) -> Any:
    llm = kind._from_parts(loaded())

    def die() -> None:
        raise SystemError("gone")

    llm.engine.step = die
    with pytest.raises(EngineDeadError, match="SystemError: gone"):
        asyncio.run(llm.generate("a", SHORT))
    return llm


@pytest.mark.parametrize("end, kind", [(dead, LLM), (dead, AsyncLLM), (killed, AsyncLLM)])
def test_calls_to_a_dead_engine_leave_nothing_behind(end: Make, kind: Make) -> None:
    llm = end(kind)

    async def ask(times: int) -> int:
        sizes = []
        for _ in range(times):
            try:
                given = llm.generate("a", SHORT)
                await given
            except EngineDeadError as error:
                sizes.append(len(traceback.extract_tb(error.__traceback__)))
        assert len(sizes) == times
        return max(sizes)

    asyncio.run(ask(100))
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        depth = asyncio.run(ask(3000))
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert depth < 20 and grown < 500_000, (depth, grown)


# --- garbage ----------------------------------------------------------------------------------


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("nanocupy-")]


@BOTH
@pytest.mark.parametrize("used", ["fresh", "used", "in use"])
def test_what_nobody_refers_to_is_collected(kind: Make, used: str) -> None:
    before = len(threads())
    llm = kind._from_parts(loaded(FakeRunner()))
    if used != "fresh":
        answer = llm.generate("hello", SHORT)
        if kind is AsyncLLM:
            asyncio.run(answer)
    if used == "in use":  # a stream is left in the middle
        stream = llm.stream("hello", LONG)
        asyncio.run(anext(stream)) if kind is AsyncLLM else next(stream)
        del stream
    gone = [weakref.ref(llm), weakref.ref(llm.engine), weakref.ref(llm.engine.runner)]
    runner_closed = llm.engine.runner if kind is AsyncLLM else None
    del llm
    if runner_closed is not None:
        gc.collect()
        until(lambda: runner_closed.closed)
        del runner_closed
    answer = None
    until(lambda: gc.collect() is not None and not any(ref() for ref in gone))
    until(lambda: len(threads()) <= before)  # or less: others before may be on their way


# --- forks ------------------------------------------------------------------------------------


def in_a_fork(work: Callable[[], None]) -> str:
    """What the work says in a child process, within 10 s: "well", or what went wrong."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)  # a lock that is held in the parent would never be free here
        try:
            work()
            said = "well"
        except BaseException:
            said = traceback.format_exc()
        os.write(write, said[-4000:].encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read() or f"ended by {status}: it hangs"


@needs_fork
@pytest.mark.parametrize("busy", [False, True])
def test_llm_is_refused_in_a_fork(busy: bool) -> None:
    llm = LLM._from_parts(loaded(slow(0.003)))
    stream = llm.stream("stream", LONG)
    next(stream)
    other = Caller(lambda: text_of(llm, "other", LONG if busy else SHORT))
    if busy:
        until(llm._driver._stepping.locked)
    else:
        other.done()

    def child() -> None:
        fork = r"\[LLM\] this process is a fork .* make an LLM in each process"
        for call in (
            lambda: llm.generate("a", SHORT),
            lambda: llm.chat([{"role": "user", "content": "a"}], SHORT),
            lambda: llm.stream("a", SHORT),
            lambda: next(stream),
        ):
            with pytest.raises(EngineDeadError, match=fork):
                call()
        stream.close()  # type: ignore[attr-defined]
        llm.close()
        llm.close()

    for _ in range(5):
        assert in_a_fork(child) == "well"
    assert other.done() == expected("other", LONG if busy else SHORT)
    assert text_of(llm, "after") == expected("after")
    llm.close()


@needs_fork
@pytest.mark.parametrize("busy", [False, True])
def test_async_llm_is_refused_in_a_fork(busy: bool) -> None:
    llm = AsyncLLM._from_parts(loaded(slow(0.003)))
    others = [Caller(lambda: asyncio.run(llm.generate("a", LONG))) for _ in range(3 * busy)]
    if busy:
        until(llm._driver._stepping.locked)

    def child() -> None:
        fork = r"\[AsyncLLM\] this process is a fork .* make an AsyncLLM in each process"

        async def ask(call: Callable[[], Any]) -> None:
            with pytest.raises(EngineDeadError, match=fork):
                await call()

        for call in (
            lambda: llm.generate("a", SHORT),
            lambda: anext(llm.stream("a", SHORT)),
            lambda: llm.abort("a"),
        ):
            asyncio.run(asyncio.wait_for(ask(call), 5))
        assert not llm.alive
        llm.close()

    for _ in range(5):
        assert in_a_fork(child) == "well"
    for other in others:
        assert other.done().outputs[0].text == expected("a", LONG)
    assert llm.alive
    llm.close()
