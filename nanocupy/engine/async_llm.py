"""AsyncLLM: many callers on event loops, one engine on one thread."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from nanocupy.engine.driver import ClosedDriver, Driver, EngineDeadError, QueueFullError, Ticket
from nanocupy.engine.event_loops import LoopQueue, StartLimiter, deliver_to_loops
from nanocupy.engine.frontend import Frontend, Messages, Prompt, template_options
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, RequestOutput
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.request import PreparedRequest

if TYPE_CHECKING:
    from typing_extensions import Self

    from nanocupy.engine.load import Loaded

__all__ = ["AsyncLLM", "EngineDeadError", "QueueFullError"]
PREPARING = 4  # threads that tokenize prompts: a long one must not block an event loop

Unprepared = SimpleQueue[tuple[Ticket, Callable[[], PreparedRequest]] | None]
"""Tickets, each with the function that tokenizes its prompt; None ends a thread."""


class AsyncLLM(Frontend):
    """A loaded model for asyncio. Use it as an async context manager, or call `close`.

        async with AsyncLLM("smollm2-135m") as llm:
            async for chunk in llm.stream("Hello"):
                print(chunk.text, end="")

    Options, prompts and params are those of LLM. Cancelling the task that waits, or leaving its
    loop, aborts the request before the next step (of thousands at once, some at each step). A
    request where too many wait already (`max_waiting`) is refused: QueueFullError.
    """

    def _start(self, loaded: Loaded, options: EngineOptions) -> None:
        super()._start(loaded, options)
        driver = Driver(self.engine, options.max_waiting, deliver_to_loops, "AsyncLLM")
        self._driver: Driver = driver
        self._unprepared: Unprepared = SimpleQueue()
        self._limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, StartLimiter] = (
            WeakKeyDictionary()
        )
        self._thread = _start_thread("nanocupy-engine", driver.run_forever)
        for _ in range(PREPARING):
            _start_thread("nanocupy-prompts", prepare_all, driver, self._unprepared)
        # The threads do not know this object: when nobody does, they end.
        end = weakref.finalize(self, stop, driver, self._unprepared)
        end.atexit = False
        self._stop: Callable[[], object] = end

    def _start_closed(self, options: EngineOptions) -> None:
        self.options, self._driver = options, ClosedDriver("AsyncLLM")
        self._thread, self._stop = _start_thread("nanocupy-engine", int), int

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the engine's thread and release all memory; callers that wait get an error."""
        self._stop()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """True while requests are served."""
        return self._driver.alive and self._thread.is_alive()

    # --- what callers use ---------------------------------------------------------------------

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the answer piece by piece. A ValueError comes with the first piece."""
        return self._stream(partial(self._prepare, prompt, params), request_id)

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """`stream` for one conversation."""
        template = template_options(
            add_generation_prompt, continue_final_message, tools, chat_template_kwargs
        )
        return self._stream(partial(self._prepare_chat, messages, params, template), request_id)

    async def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> RequestOutput:
        """Return the whole answer to one prompt."""
        return await self._whole(partial(self._prepare, prompt, params), request_id)

    async def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> RequestOutput:
        """Return the whole answer to one conversation."""
        template = template_options(
            add_generation_prompt, continue_final_message, tools, chat_template_kwargs
        )
        return await self._whole(
            partial(self._prepare_chat, messages, params, template), request_id
        )

    async def abort(self, request_id: str) -> None:
        """End a request; its caller gets finish_reason "abort". Unknown ids are ignored."""
        self._driver.abort(request_id)

    # --- how ----------------------------------------------------------------------------------

    async def _stream(
        self, prepare: Callable[[], PreparedRequest], request_id: str | None
    ) -> AsyncGenerator[Chunk, None]:
        ticket = await self._ask(prepare, request_id, whole=False)
        try:
            while True:
                chunk = await ticket.caller.next()
                yield chunk
                if chunk.output is not None:
                    return
        finally:
            self._driver.abandon(ticket)

    async def _whole(
        self, prepare: Callable[[], PreparedRequest], request_id: str | None
    ) -> RequestOutput:
        ticket = await self._ask(prepare, request_id, whole=True)
        try:
            output: RequestOutput = (await ticket.caller.next()).output
            return output
        finally:
            self._driver.abandon(ticket)

    async def _ask(
        self, prepare: Callable[[], PreparedRequest], request_id: str | None, *, whole: bool
    ) -> Ticket:
        """Reserve a place in the queue; a thread tokenizes the prompt and submits it."""
        self._driver.check()
        loop = asyncio.get_running_loop()
        await self._limiters.setdefault(loop, StartLimiter()).acquire()
        [ticket] = self._driver.reserve(LoopQueue(whole), id=request_id)
        self._unprepared.put((ticket, prepare))
        return ticket


def _start_thread(name: str, work: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, name=name, daemon=True)
    thread.start()
    return thread


def prepare_all(driver: Driver, unprepared: Unprepared) -> None:
    """Tokenize prompts and submit them, until None comes."""
    while (item := unprepared.get()) is not None:
        driver.prepare(*item)
        del item  # what it refers to may be what nobody else does


def stop(driver: Driver, unprepared: Unprepared) -> None:
    """End the threads of an AsyncLLM; each finishes what it is doing."""
    driver.stop()
    for _ in range(PREPARING):
        unprepared.put(None)
