"""A command line over a model that is not there: what the commands do, without what models do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import nanocupy
from nanocupy.cli import main
from nanocupy.engine.options import EngineOptions
from nanocupy.engine.outputs import Chunk, CompletionOutput, Metrics, RequestOutput
from nanocupy.engine.params import SamplingParams

PROMPT = [5, 6, 7]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class FakeLLM:
    """Answers every prompt with its own words, one token per word; remembers what it was given."""

    seen: list[tuple[Any, SamplingParams]]
    template: object | None = object()
    generation_config: dict[str, Any]
    stop_after: int | None = None  # Ctrl-C arrives after so many tokens
    error: str | None = None
    guesses: tuple[int, int] = (0, 0)
    end_tokens = ("<|im_end|>", "</s>")

    def __init__(self, model: str, **options: Any) -> None:
        EngineOptions(**options)
        self.model, self.options = model, options

    def __enter__(self) -> FakeLLM:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def chat_template(self) -> object | None:
        return self.template

    def default_params(self, **given: Any) -> SamplingParams:
        return SamplingParams(**self.generation_config | given)

    def stream_chat(self, messages: Any, params: SamplingParams) -> Iterator[Chunk]:
        assert self.template is not None
        return self.stream(messages[-1]["content"], params, asked=messages)

    def stream(self, text: str, params: SamplingParams, asked: Any = None) -> Iterator[Chunk]:
        type(self).seen.append((asked or text, params))
        words = [f"{word} " for word in text.split()][: params.max_tokens]
        start = time.monotonic()
        outputs = [
            CompletionOutput(i, "".join(words), list(range(len(words))), None, "stop", None)
            for i in range(params.n)
        ]
        metrics = Metrics(start, start, start + 0.1, start + 0.2, 0)
        done = RequestOutput(
            "req-0", None, PROMPT, outputs, None, 0, metrics, self.error, *self.guesses
        )
        for index in range(params.n):
            for at, word in enumerate(words):
                if at == self.stop_after:
                    raise KeyboardInterrupt
                last = at == len(words) - 1
                output = done if last and index == params.n - 1 else None
                yield Chunk(
                    "req-0", index, word, [at], None, "stop" if last else None, None, output
                )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    """nanocupy.LLM is a FakeLLM for this test."""
    kind = type("Fake", (FakeLLM,), {"seen": [], "generation_config": {}})
    monkeypatch.setattr(nanocupy, "LLM", kind, raising=False)
    return kind


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process."""

    def run(*argv: str) -> Ran:
        try:
            code = main(argv)
        except SystemExit as leave:  # argparse
            code = int(leave.code or 0)
        return Ran(code, *capfd.readouterr())

    return run
