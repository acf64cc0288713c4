"""A loaded model behind a command, and the defaults of sampling flags."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from nanocupy.cli.flags import SAMPLING, engine_options, given
from nanocupy.cli.output import note

if TYPE_CHECKING:
    from nanocupy import LLM, SamplingParams
    from nanocupy.engine.outputs import Chunk, RequestOutput

Messages = list[dict[str, str]]


class Session(NamedTuple):
    """A loaded model, and how long loading took."""

    llm: LLM
    load_s: float

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self.llm.chat_template is not None


@contextmanager
def load(args: argparse.Namespace, **options: Any) -> Iterator[Session]:
    """Load the model of --model with the engine's flags; `options` are defaults for them."""
    options |= engine_options(args)
    start = time.perf_counter()
    with _no_garbage_collection():
        from nanocupy import LLM

        llm = LLM(args.model, **options)
    with llm:
        yield Session(llm, time.perf_counter() - start)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Without garbage collection: nearly everything made while loading stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def check_sampling(args: argparse.Namespace) -> None:
    """Refuse wrong sampling flags before a model is loaded."""
    from nanocupy import SamplingParams

    SamplingParams(**SAMPLING | given(args, SamplingParams))


def sampling(args: argparse.Namespace, session: Session) -> SamplingParams:
    """The flags, else the model's generation_config.json, else SAMPLING; printed as a note."""
    from nanocupy import SamplingParams
    from nanocupy.engine.generation import own_params

    own = own_params(session.llm.generation_config)
    ours = {name: value for name, value in SAMPLING.items() if name not in own}
    params = session.llm.default_params(**ours | given(args, SamplingParams))
    note(_announcement(params, session.llm.end_tokens, own, given(args, SamplingParams)))
    return params


def _announcement(
    params: SamplingParams, ends: list[str], own: dict[str, Any], flags: dict[str, Any]
) -> str:
    """The sampling parameters, which of them are the model's, and the tokens that end an answer."""
    from nanocupy.engine.generation import OURS

    told = []
    for name in (*OURS.values(), "logit_bias"):
        value = getattr(params, name)
        default = type(params).__dataclass_fields__[name].default
        if value in (default, {}) and name not in flags:
            continue  # off
        whose = " (the model's)" if name in own and name not in flags else ""
        told.append(f"{name} {value}{whose}")
    return f"[{', '.join(told)}; ends with {' or '.join(ends) or 'nothing'}]"


def stream(session: Session, prompt: str | Messages, params: SamplingParams) -> Iterator[Chunk]:
    """The chunks of the answer to a text, or to messages by the model's chat template."""
    if isinstance(prompt, str):
        return session.llm.stream(prompt, params)
    return session.llm.stream_chat(prompt, params)


def timings(load_s: float, output: RequestOutput | None) -> dict[str, float | None]:
    """Seconds, and tokens per second, of one finished request (its first answer)."""
    times: dict[str, float | None] = {"load_s": round(load_s, 4)}
    if output is None:
        return times
    metrics = output.metrics
    computed = len(output.prompt_token_ids) - output.cached_tokens
    return times | {
        "ttft_s": None if metrics.ttft is None else round(metrics.ttft, 4),
        "prefill_tokens_per_s": _rate(computed, metrics.scheduled, metrics.first_token),
        "decode_tokens_per_s": _rate(
            len(output.outputs[0].token_ids) - 1, metrics.first_token, metrics.finished
        ),
    }


def _rate(tokens: int, start: float | None, end: float | None) -> float | None:
    if start is None or end is None or end <= start or tokens < 1:
        return None
    return round(tokens / (end - start), 2)
