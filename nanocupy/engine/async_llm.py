"""AsyncLLM: many callers on event loops, one engine on one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from nanocupy.engine.frontend import Asked, Frontend, Messages, Prompt
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, RequestOutput
from nanocupy.engine.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Self

    from nanocupy.engine.load import Loaded


CLOSED = "[AsyncLLM] this AsyncLLM is closed: make a new one"


class EngineDeadError(RuntimeError):
    """The engine's thread has ended; nothing is served any more."""


class Caller:
    """One request's way back: a queue on the event loop that asked."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Chunk | Exception] = asyncio.Queue()

    async def next(self) -> Chunk:
        found = await self.queue.get()
        if isinstance(found, Exception):
            raise found
        return found


class AsyncLLM(Frontend):
    """A loaded model for asyncio. Use it as an async context manager, or call `close`.

        async with AsyncLLM("smollm2-135m") as llm:
            async for chunk in llm.stream("Hello"):
                print(chunk.text, end="")

    Options, prompts and params are those of LLM. Cancelling the task that waits, or leaving its
    loop, aborts the request before the next step.
    """

    def _start(self, loaded: Loaded, options: EngineOptions) -> None:
        super()._start(loaded, options)
        self._lock = threading.Lock()  # guards the next three
        self._callers: dict[str, Caller] = {}  # everyone who waits
        self._error: Exception | None = None  # why nothing is served any more
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: the end
        self._serving: dict[str, Caller] = {}  # those the engine knows; its thread's alone
        self._ids = count()
        self._thread = threading.Thread(target=self._serve, name="nanocupy-engine", daemon=True)
        self._thread.start()

    def _start_closed(self, options: EngineOptions) -> None:
        self.options, self._lock, self._inbox = options, threading.Lock(), SimpleQueue()
        self._error = EngineDeadError(CLOSED)
        self._thread = threading.Thread(target=int)
        self._thread.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the engine's thread and give all memory back; who waits gets an error. Idempotent."""
        self._inbox.put(None)
        self._thread.join()

    @property
    def alive(self) -> bool:
        """True while requests are served."""
        return self._error is None and self._thread.is_alive()

    # --- what callers use ---------------------------------------------------------------------

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """The answer piece by piece. Refusals (ValueError) come with the first piece."""
        return self._stream(partial(self._prepare, prompt, params), request_id)

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        """`stream` for one conversation."""
        template = {"add_generation_prompt": add_generation_prompt, **(chat_template_kwargs or {})}
        return self._stream(partial(self._prepare_chat, messages, params, template), request_id)

    async def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, *, request_id: str | None = None
    ) -> RequestOutput:
        """The whole answer to one prompt."""
        return await _last(self.stream(prompt, params, request_id=request_id))

    async def chat(
        self, messages: Messages, params: SamplingParams | None = None, **options: Any
    ) -> RequestOutput:
        """The whole answer to one conversation; options as in `stream_chat`."""
        return await _last(self.stream_chat(messages, params, **options))

    async def abort(self, request_id: str) -> None:
        """End a request; its caller gets finish_reason "abort". Unknown ids are ignored."""
        self._post(partial(self._abort, request_id))

    # --- on the callers' event loops ----------------------------------------------------------

    async def _stream(
        self, prepare: Callable[[], Asked], request_id: str | None
    ) -> AsyncGenerator[Chunk, None]:
        self._check_alive()
        asked = await asyncio.to_thread(prepare)  # long prompts must not block the loop
        caller = self._join(asked, request_id)
        try:
            while True:
                chunk = await caller.next()
                yield chunk
                if chunk.output is not None:
                    return
        finally:
            self._leave(caller)

    def _join(self, asked: Asked, request_id: str | None) -> Caller:
        with self._lock:
            self._check_alive()
            caller = Caller(f"req-{next(self._ids)}" if request_id is None else request_id)
            if caller.id in self._callers:
                raise ValueError(f"[AsyncLLM] a request with id {caller.id!r} is already running")
            self._callers[caller.id] = caller
            self._inbox.put(partial(self._add, caller, asked))
        return caller

    def _leave(self, caller: Caller) -> None:
        with self._lock:
            if self._callers.get(caller.id) is caller:
                del self._callers[caller.id]
                self._inbox.put(partial(self._abort, caller.id))

    def _post(self, message: Callable[[], None]) -> None:
        with self._lock:
            self._check_alive()
            self._inbox.put(message)

    def _check_alive(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._thread.is_alive():
            raise EngineDeadError(
                "[AsyncLLM] a fork has no engine thread: make an AsyncLLM in each process"
            )

    # --- on the engine's thread ---------------------------------------------------------------

    def _serve(self) -> None:
        """Take messages and step until the end, or until something is wrong with the engine."""
        error: Exception = EngineDeadError(CLOSED)
        try:
            while self._take_messages():
                if self.engine.has_work:
                    self._deliver(self.engine.step())
        except BaseException as cause:
            error = EngineDeadError(f"[AsyncLLM] the engine died: {type(cause).__name__}: {cause}")
            error.__cause__ = cause
        finally:
            self._end(error)

    def _take_messages(self) -> bool:
        """Do what callers ask, waiting for that only where there is nothing else to do."""
        try:
            while True:
                message = self._inbox.get(block=not self.engine.has_work)
                if message is None:
                    return False
                message()
        except Empty:
            return True

    def _add(self, caller: Caller, asked: Asked) -> None:
        """From here on, and not before, news about this id are for this caller."""
        self._serving[caller.id] = caller
        try:
            self.engine.add(
                asked.prompt_ids, asked.params, request_id=caller.id, prompt=asked.prompt
            )
        except Exception as error:
            self._send({caller.id: [error]})

    def _abort(self, id: str) -> None:
        self._deliver(self.engine.abort(id))
        self._serving.pop(id, None)

    def _deliver(self, chunks: list[Chunk]) -> None:
        found: dict[str, list[Chunk | Exception]] = {}
        for chunk in chunks:
            found.setdefault(chunk.request_id, []).append(chunk)
        self._send(found)

    def _send(self, found: Mapping[str, list[Chunk | Exception]]) -> None:
        """Put each caller's news on its queue; one wake-up per event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Caller, list[Chunk | Exception]]]] = {}
        for id, news in found.items():
            if caller := self._serving.get(id):
                loops.setdefault(caller.loop, []).append((caller, news))
        for loop, items in loops.items():
            try:
                loop.call_soon_threadsafe(_put, items)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                for caller, _ in items:
                    self._leave(caller)

    def _end(self, error: Exception) -> None:
        """Nothing is served any more: tell everyone who waits, at once."""
        with self._lock:
            self._error = error
            self._serving, self._callers = self._callers, {}
        self._send({id: [error] for id in self._serving})
        self.engine.close()


def _put(items: list[tuple[Caller, list[Chunk | Exception]]]) -> None:
    for caller, news in items:
        for piece in news:
            caller.queue.put_nowait(piece)


async def _last(stream: AsyncGenerator[Chunk, None]) -> RequestOutput:
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            if chunk.output is not None:
                return chunk.output
    raise AssertionError("a stream ends with an output")
