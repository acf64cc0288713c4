"""LLM: a model for programs that wait for their answers."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nanocupy.engine.frontend import Asked, Frontend, Messages, Prompt
from nanocupy.engine.interrupts import uninterrupted
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, RequestOutput
from nanocupy.engine.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Self

    from nanocupy.engine.load import Loaded

Box = deque[Chunk]  # what has been made for one call and not been taken yet


class LLM(Frontend):
    """A loaded model. Use it as a context manager, or call `close`.

        with LLM("smollm2-135m", max_model_len=4096) as llm:
            [output] = llm.generate("Hello", SamplingParams(temperature=0, max_tokens=32))
            print(output.outputs[0].text)

    A prompt is a string, a list of token ids, `{"prompt": str}` or `{"prompt_token_ids": [...]}`.
    Without `params` the model's own defaults are used (`default_params`). Several threads may call
    it, and several streams may be open: all are computed together.
    """

    def _start(self, loaded: Loaded, options: EngineOptions) -> None:
        super()._start(loaded, options)
        self._lock = threading.RLock()  # whoever holds it is the engine's one thread
        self._boxes: dict[str, Box] = {}
        self._closed = False

    def _start_closed(self, options: EngineOptions) -> None:
        self.options, self._lock, self._closed = options, threading.RLock(), True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Abort what is running and give all memory back. Idempotent."""
        with uninterrupted(), self._lock:
            if not self._closed:
                self._closed = True
                self._boxes.clear()
                self.engine.close()

    # --- what callers use ---------------------------------------------------------------------

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams | None] | None = None,
        *,
        progress: bool | None = None,
    ) -> list[RequestOutput]:
        """Answer one prompt or many; a list of outputs in the order of the prompts, always.

        ValueError where a prompt or its params cannot be served; then none is. What goes wrong
        later ends one answer, with finish_reason "error" and `output.error`.
        """
        self._check_open()
        return self._run(self._prepare_all(prompts, params), progress)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        params: SamplingParams | Sequence[SamplingParams | None] | None = None,
        *,
        progress: bool | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation (a list of `{"role": ..., "content": ...}`) or many."""
        self._check_open()
        template = {"add_generation_prompt": add_generation_prompt, **(chat_template_kwargs or {})}
        return self._run(self._prepare_chats(messages, params, template), progress)

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[Chunk]:
        """The answer piece by piece; the texts join to what `generate` gives.

        The request starts with the first `next`; leaving the loop or closing the iterator aborts
        it. With `n > 1` the answers' chunks are mixed: see `chunk.index`.
        """
        self._check_open()
        return self._stream(self._prepare(prompt, params))

    def stream_chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        add_generation_prompt: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> Iterator[Chunk]:
        """`stream` for one conversation."""
        self._check_open()
        template = {"add_generation_prompt": add_generation_prompt, **(chat_template_kwargs or {})}
        return self._stream(self._prepare_chat(messages, params, template))

    # --- how ----------------------------------------------------------------------------------

    def _run(self, asked: list[Asked], progress: bool | None) -> list[RequestOutput]:
        box: Box = deque()
        found: dict[str, RequestOutput] = {}
        show = self.options.progress if progress is None else progress
        ids: list[str] = []
        try:
            with uninterrupted():
                for one in asked:
                    ids.append(self._add(one, box))
            with progress_bar(len(ids), show) as advance:
                while len(found) < len(ids):
                    chunk = self._next(box)
                    if chunk.output is not None:
                        found[chunk.request_id] = chunk.output
                        advance()
        finally:
            self._drop(ids)
        return [found[id] for id in ids]

    def _stream(self, asked: Asked) -> Iterator[Chunk]:
        box: Box = deque()
        ids: list[str] = []
        try:
            with uninterrupted():
                ids.append(self._add(asked, box))
            while True:
                chunk = self._next(box)
                yield chunk
                if chunk.output is not None:
                    return
        finally:
            self._drop(ids)

    def _add(self, asked: Asked, box: Box) -> str:
        with self._lock:
            self._check_open()
            id = self.engine.add(asked.prompt_ids, asked.params, prompt=asked.prompt)
            self._boxes[id] = box
            return id

    def _next(self, box: Box) -> Chunk:
        """The next chunk for `box`; whoever waits does the work, for all."""
        while not box:
            with self._lock, uninterrupted():
                if box:
                    break
                self._check_open()
                for chunk in self.engine.step():
                    if chunk.request_id in self._boxes:
                        self._boxes[chunk.request_id].append(chunk)
        return box.popleft()

    def _drop(self, ids: Sequence[str]) -> None:
        """Nobody waits for these any more."""
        with uninterrupted(), self._lock:
            for id in ids:
                self._boxes.pop(id, None)
                self.engine.abort(id)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("[LLM] this LLM is closed: make a new one")


@contextmanager
def progress_bar(total: int, show: bool | None) -> Iterator[Callable[[], None]]:
    """A bar on stderr that the yielded function moves by one; `show=None`: on a terminal only."""
    if total < 2 or show is False or (show is None and not sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=total)
        yield lambda: bar.advance(task)
