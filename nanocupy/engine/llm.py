"""LLM: a model for programs that wait for their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nanocupy.engine.driver import ClosedDriver, Driver, ResultQueue, Ticket, deliver_to_queues
from nanocupy.engine.frontend import Frontend, Messages, Prompt, template_options
from nanocupy.engine.interrupts import uninterrupted
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, RequestOutput
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.request import PreparedRequest
from nanocupy.progress import bar

if TYPE_CHECKING:
    from typing_extensions import Self

    from nanocupy.engine.load import Loaded


class LLM(Frontend):
    """A loaded model. Use it as a context manager, or call `close`.

        with LLM("smollm2-135m", max_model_len=4096) as llm:
            [output] = llm.generate("Hello", SamplingParams(temperature=0, max_tokens=32))
            print(output.outputs[0].text)

    A prompt is a string, a list of token ids, `{"prompt": str}` or `{"prompt_token_ids": [...]}`.
    Without `params` the model's own defaults are used (`default_params`). Several threads may call
    it, and several streams may be open: all are computed together. QueueFullError where too many
    wait already (`max_waiting`); EngineDeadError once it is closed, and in a fork of this process.
    """

    def _start(self, loaded: Loaded, options: EngineOptions) -> None:
        super()._start(loaded, options)
        self._driver: Driver = Driver(self.engine, options.max_waiting, deliver_to_queues, "LLM")

    def _start_closed(self, options: EngineOptions) -> None:
        self.options, self._driver = options, ClosedDriver("LLM")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Abort what is running and release all memory. May be called again; in a fork, nothing."""
        self._driver.close()

    # --- what callers use ---------------------------------------------------------------------

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams | None] | None = None,
        *,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """Answer one prompt or many; return a list of outputs in the order of the prompts.

        ValueError where a prompt or its params cannot be served; then none is. What goes wrong
        later ends one answer, with finish_reason "error" and `output.error`. However long a list,
        it waits as one: QueueFullError is for calls that come when `max_waiting` wait already.
        """
        self._driver.check()
        return self._run(self._prepare_all(prompts, params), progress)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams | None] | None = None,
        *,
        progress: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of `{"role": ..., "content": ...}`) or many.

        Args:
            tools: function schemas as OpenAI's API has them, for the chat template.
            add_generation_prompt: begin an answer; the default, unless a message is continued.
            continue_final_message: leave the last message open and continue it.
            chat_template_kwargs: the template's own variables, such as `enable_thinking`;
                `chat_template` is the name of one of a model's several templates.
        """
        self._driver.check()
        template = template_options(
            add_generation_prompt, continue_final_message, tools, chat_template_kwargs
        )
        return self._run(self._prepare_chats(messages, params, template), progress)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """Stream the answer piece by piece; the texts join to what `generate` returns.

        The request starts with the first `next`; leaving the loop or closing the iterator aborts
        it. With `n > 1` the answers' chunks are mixed: see `chunk.index`.
        """
        self._driver.check()
        return self._stream(self._prepare(prompt, params))

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Iterator[Chunk]:
        """`stream` for one conversation."""
        self._driver.check()
        template = template_options(
            add_generation_prompt, continue_final_message, tools, chat_template_kwargs
        )
        return self._stream(self._prepare_chat(messages, params, template))

    # --- how ----------------------------------------------------------------------------------

    def _run(self, requests: list[PreparedRequest], progress: bool | None) -> list[RequestOutput]:
        queue, tickets = ResultQueue(whole=True), list[Ticket]()
        found: dict[str, RequestOutput] = {}
        show = self.options.progress if progress is None else progress
        try:
            self._submit(requests, queue, tickets)
            show = False if len(requests) < 2 else show
            with bar("requests", len(requests), show, in_bytes=False) as advance:
                while len(found) < len(requests):
                    output = self._driver.wait(queue).output
                    assert output is not None, "the queue is for whole answers"
                    found[output.request_id] = output
                    advance(1)
        finally:
            self._abandon(tickets)
        return [found[ticket.id] for ticket in tickets]

    def _stream(self, request: PreparedRequest) -> Iterator[Chunk]:
        queue, tickets = ResultQueue(whole=False), list[Ticket]()
        try:
            self._submit([request], queue, tickets)
            while True:
                chunk = self._driver.wait(queue)
                yield chunk
                if chunk.output is not None:
                    return
        finally:
            self._abandon(tickets)

    def _submit(
        self, requests: Sequence[PreparedRequest], queue: ResultQueue, tickets: list[Ticket]
    ) -> None:
        """Put requests into the queue; `tickets` has their places from then on."""
        with uninterrupted():
            tickets += self._driver.reserve(queue, len(requests))
            for ticket, request in zip(tickets, requests, strict=True):
                self._driver.submit(ticket, request)

    def _abandon(self, tickets: Sequence[Ticket]) -> None:
        """Cancel what has not ended: nobody waits for it any more."""
        with uninterrupted():
            for ticket in tickets:
                self._driver.abandon(ticket)
            self._driver.settle()
