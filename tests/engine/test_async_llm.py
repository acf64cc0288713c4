"""AsyncLLM: many callers, abort, cancellation, the end of the engine's thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from engine.fake import FakeRunner, prompts
from engine.fake_text import loaded
from nanocupy.engine.async_llm import AsyncLLM, EngineDeadError
from nanocupy.engine.llm import LLM
from nanocupy.engine.params import SamplingParams

PARAMS = SamplingParams(seed=5, max_tokens=20, ignore_eos=True)
LONG = SamplingParams(seed=5, max_tokens=400, ignore_eos=True)


def make(runner: FakeRunner | None = None, **options: Any) -> AsyncLLM:
    return AsyncLLM._from_parts(loaded(runner), **options)


def run(main: Callable[[AsyncLLM], Coroutine[Any, Any, None]], **options: Any) -> AsyncLLM:
    """Run `main` with an AsyncLLM; afterwards its thread has ended and nothing is held."""
    llm = make(**options)

    async def inside() -> None:
        async with llm:
            await asyncio.wait_for(main(llm), 30)

    asyncio.run(inside())
    assert not llm._thread.is_alive() and not llm._driver.tickets and not llm.alive
    assert llm.engine.runner.closed  # type: ignore[attr-defined]
    assert llm.engine.pool.num_available == len(llm.engine.pool.blocks) - 1
    return llm


def slow(runner: FakeRunner, seconds: float = 0.002) -> FakeRunner:
    runner.before_step = lambda batch: time.sleep(seconds)
    return runner


async def idle(llm: AsyncLLM) -> None:
    """Wait until the engine has nothing to do; fails after 5 s."""
    for _ in range(500):
        if not llm.engine.has_work and not llm._driver.tickets:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the engine still has work")


def expected(prompt: Any, params: SamplingParams = PARAMS) -> str:
    with LLM._from_parts(loaded()) as llm:
        return llm.generate([prompt], params)[0].outputs[0].text


def test_many_callers_get_their_own_answers() -> None:
    made = prompts(40)
    wanted = [expected(prompt) for prompt in made]

    async def streamed(llm: AsyncLLM, prompt: list[int]) -> str:
        return "".join([chunk.text async for chunk in llm.stream(prompt, PARAMS)])

    async def generated(llm: AsyncLLM, prompt: list[int]) -> str:
        return (await llm.generate(prompt, PARAMS)).outputs[0].text

    async def main(llm: AsyncLLM) -> None:
        jobs = [(streamed, generated)[i % 2](llm, prompt) for i, prompt in enumerate(made)]
        assert await asyncio.gather(*jobs) == wanted

    run(main, runner=FakeRunner(num_blocks=60))


def test_several_event_loops_share_one_engine() -> None:
    llm, wanted, found = make(), expected("hello"), []

    def work() -> None:
        async def ask() -> None:
            found.append((await llm.generate("hello", PARAMS)).outputs[0].text)

        asyncio.run(ask())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    llm.close()
    assert found == [wanted] * 4


def test_refusals_reach_their_caller_only() -> None:
    async def main(llm: AsyncLLM) -> None:
        good = asyncio.create_task(llm.generate("good", PARAMS))
        with pytest.raises(ValueError, match="at most 511 fit"):
            await llm.generate([1] * 600)
        with pytest.raises(ValueError, match="a prompt must be a string"):
            await llm.generate(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be SamplingParams"):
            await anext(llm.stream("x", 5))  # type: ignore[arg-type]
        assert (await good).outputs[0].text == expected("good")

    run(main)


def test_chat_streams_too() -> None:
    hello = [{"role": "user", "content": "hello"}]

    async def main(llm: AsyncLLM) -> None:
        out = await llm.chat(hello, PARAMS)
        text = "".join([chunk.text async for chunk in llm.stream_chat(hello, PARAMS)])
        assert text == out.outputs[0].text == expected(out.prompt)

    run(main)


def test_abort_ends_a_request_with_its_reason() -> None:
    async def main(llm: AsyncLLM) -> None:
        task = asyncio.create_task(llm.generate("hello", LONG, request_id="mine"))
        other = asyncio.create_task(llm.generate("other", PARAMS))
        while not llm.engine.scheduler.running:
            await asyncio.sleep(0.001)
        await llm.abort("mine")
        await llm.abort("mine")
        await llm.abort("nobody")
        out = await task
        assert out.outputs[0].finish_reason == "abort" and out.request_id == "mine"
        assert len(out.outputs[0].token_ids) < 400
        assert (await other).outputs[0].text == expected("other")

    run(main, runner=slow(FakeRunner()))


def test_abort_while_waiting() -> None:
    async def main(llm: AsyncLLM) -> None:
        first = asyncio.create_task(llm.generate("first", LONG))
        second = asyncio.create_task(llm.generate("second", LONG, request_id="second"))
        while len(llm.engine.groups) < 2:
            await asyncio.sleep(0.001)
        await llm.abort("second")
        assert (await second).outputs[0].token_ids == []
        first.cancel()

    run(main, runner=slow(FakeRunner()), max_num_seqs=1)


@pytest.mark.parametrize("after", [0, 0.005, 0.05])
def test_cancelling_the_task_aborts(after: float) -> None:
    async def main(llm: AsyncLLM) -> None:
        tasks = [asyncio.create_task(llm.generate(prompt, LONG)) for prompt in "abcdef"]
        await asyncio.sleep(after)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await idle(llm)

    run(main, runner=slow(FakeRunner()))


def test_cancellation_takes_effect_within_a_step() -> None:
    runner = FakeRunner()
    seen: list[int] = []
    gate = threading.Semaphore(0)

    def held(batch: Any) -> None:
        seen.append(len(batch))
        gate.acquire()

    runner.before_step = held

    async def main(llm: AsyncLLM) -> None:
        tasks = [asyncio.create_task(llm.generate(prompt, LONG)) for prompt in ("a", "b")]
        while len(llm._driver.tickets) < 2:
            await asyncio.sleep(0.001)
        for _ in range(3):
            gate.release()
        while len(seen) < 4:
            await asyncio.sleep(0.001)
        assert seen[-1] == 2
        tasks[0].cancel()
        await asyncio.sleep(0.02)
        gate.release()
        while len(seen) < 5:
            await asyncio.sleep(0.001)
        assert seen[-1] == 1, "the step after the cancellation still had the request"
        tasks[1].cancel()
        gate.release(1000)

    run(main, runner=runner)


def test_leaving_the_loop_aborts() -> None:
    async def main(llm: AsyncLLM) -> None:
        stream = llm.stream("hello", LONG)
        async for chunk in stream:
            assert chunk.token_ids
            break
        await stream.aclose()
        await idle(llm)

    run(main, runner=slow(FakeRunner()))


def test_random_aborts_leave_nothing_behind() -> None:
    async def main(llm: AsyncLLM) -> None:
        async def some(i: int) -> None:
            count = 0
            stream = llm.stream([i % 60] * (i + 1), LONG, request_id=f"r{i}")
            async for chunk in stream:
                count += len(chunk.token_ids)
                if count > i % 7:
                    if i % 3 == 0:
                        await llm.abort(f"r{i}")
                    elif i % 3 == 1:
                        await stream.aclose()
                        return
                    else:
                        raise asyncio.CancelledError
            assert i % 3 == 0

        await asyncio.gather(*(some(i) for i in range(32)), return_exceptions=True)
        await idle(llm)
        assert (await llm.generate("hello", PARAMS)).outputs[0].text == expected("hello")

    run(main, runner=slow(FakeRunner(num_blocks=40), 0.0005))


def test_ids_are_unique_while_they_run() -> None:
    async def main(llm: AsyncLLM) -> None:
        task = asyncio.create_task(llm.generate("a", LONG, request_id="same"))
        while not llm._driver.tickets:
            await asyncio.sleep(0.001)
        with pytest.raises(ValueError, match="'same' is already running"):
            await llm.generate("b", PARAMS, request_id="same")
        task.cancel()
        await idle(llm)
        await llm.generate("b", PARAMS, request_id="same")

    run(main, runner=slow(FakeRunner()))


def test_an_id_may_be_used_again_right_after_cancelling() -> None:
    """What a step still brings of the first is not for the second."""

    async def main(llm: AsyncLLM) -> None:
        for i in range(20):
            task = asyncio.create_task(llm.generate("a", LONG, request_id="same"))
            while "same" not in llm.engine.groups:
                await asyncio.sleep(0)
            await asyncio.sleep(0.001 * (i % 3))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            out = await llm.generate("b", PARAMS, request_id="same")
            assert out.outputs[0].text == wanted and out.prompt == "b"

    wanted = expected("b")
    run(main, runner=slow(FakeRunner(), 0.001))


@pytest.mark.parametrize("fatal", [SystemError("gone"), KeyboardInterrupt()])
def test_death_of_the_engine_fails_everyone_at_once(fatal: BaseException) -> None:
    llm = make(slow(FakeRunner()))

    async def main() -> None:
        tasks = [asyncio.create_task(llm.generate(prompt, LONG)) for prompt in "abc"]
        stream = llm.stream("d", LONG)
        await anext(stream)

        def die() -> None:
            raise fatal

        llm.engine.step = die  # type: ignore[method-assign]
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all(isinstance(result, EngineDeadError) for result in results)
        assert f"the engine died: {type(fatal).__name__}" in str(results[0])
        with pytest.raises(EngineDeadError):
            async for _ in stream:
                pass
        with pytest.raises(EngineDeadError, match="the engine died"):
            await llm.generate("e", PARAMS)
        with pytest.raises(EngineDeadError):
            await llm.abort("x")

    asyncio.run(main())
    assert not llm.alive and not llm._driver.tickets
    llm.close()
    llm.close()


def test_a_failing_step_is_not_a_dead_engine() -> None:
    runner = FakeRunner()

    def fail(batch: Any) -> None:
        raise OSError("step")

    async def main(llm: AsyncLLM) -> None:
        runner.before_step = fail
        out = await llm.generate("a", PARAMS)
        assert out.outputs[0].finish_reason == "error" and out.error == "OSError: step"
        runner.before_step = lambda batch: None
        assert llm.alive
        assert (await llm.generate("a", PARAMS)).outputs[0].text == expected("a")

    run(main, runner=runner)


def test_close_fails_who_waits_and_is_idempotent() -> None:
    llm = make(slow(FakeRunner()))

    async def main() -> None:
        task = asyncio.create_task(llm.generate("a", LONG))
        while not llm.engine.has_work:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(llm.close)
        with pytest.raises(EngineDeadError, match="closed"):
            await task
        with pytest.raises(EngineDeadError, match="closed: make a new one"):
            await llm.generate("a", PARAMS)

    asyncio.run(main())
    llm.close()


def test_a_closed_event_loop_gives_its_blocks_back() -> None:
    """A caller whose loop ended without cancelling cannot hold the engine."""
    llm = make(slow(FakeRunner()))
    loop = asyncio.new_event_loop()
    stream = llm.stream("a", LONG)
    loop.run_until_complete(anext(stream))
    loop.close()
    for _ in range(500):
        if not llm.engine.has_work:
            break
        time.sleep(0.01)
    assert not llm.engine.has_work and not llm._driver.tickets
    llm.close()


def test_an_idle_engine_sleeps() -> None:
    async def main(llm: AsyncLLM) -> None:
        await llm.generate("a", PARAMS)
        start = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - start < 0.1

    run(main)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_is_told_that_it_has_no_engine_thread() -> None:
    llm = make()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(asyncio.wait_for(llm.generate([1, 2, 3], PARAMS), 10))
        except EngineDeadError as error:
            os._exit(0 if "fork" in str(error) and not llm.alive else 1)
        except BaseException:
            os._exit(2)
        os._exit(3)
    assert os.waitpid(child, 0)[1] == 0
    assert llm.alive
    llm.close()
