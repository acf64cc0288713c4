"""What was served is forgotten: a server answers for months."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.fake_text import loaded
from nanocupy.engine.async_llm import AsyncLLM
from nanocupy.engine.llm import LLM
from nanocupy.engine.params import SamplingParams

SHORT = SamplingParams(seed=5, max_tokens=4, ignore_eos=True)


def held(llm: Any) -> int:
    """How many requests anything still knows of."""
    driver, engine = llm._driver, llm.engine
    waiting = len(engine.scheduler.waiting) + len(engine.scheduler.running)
    known = len(driver.tickets) + len(driver._in_engine) + len(driver._waiting)
    return known + waiting + len(engine.groups) + len(driver._cancelled)


def test_of_callers_who_wait() -> None:
    with LLM._from_parts(loaded()) as llm:
        for _ in range(20):
            llm.generate(["a", "b"], SHORT)
        assert [*llm.stream("c", SHORT)] and held(llm) == 0


def test_of_tasks_that_end_as_they_like() -> None:
    async def main() -> None:
        async with AsyncLLM._from_parts(loaded()) as llm:
            tasks = [asyncio.create_task(llm.generate("a", SHORT)) for _ in range(30)]
            await tasks[0]
            for task in tasks[1::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async for _ in llm.stream("c", SHORT):
                break
            for _ in range(500):
                if held(llm) == 0:
                    break
                await asyncio.sleep(0.01)
            assert held(llm) == 0

    asyncio.run(main())
