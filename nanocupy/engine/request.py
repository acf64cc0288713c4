"""Request: one sequence of tokens on its way through the engine, and Group: one caller's request.

A Group with `n` answers has `n` Requests with the same prompt. The words of a request's life:
`tokens` holds prompt and answer; `num_computed` of them have K/V in `block_table`; it chases
`num_tokens`, and when it arrives the next token is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from nanocupy.engine.block_pool import BlockPool, Key
from nanocupy.engine.detokenize import TextStream
from nanocupy.engine.outputs import (
    Chunk,
    CompletionOutput,
    FinishReason,
    Metrics,
    RequestOutput,
    TokenLogprobs,
)
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.speculation import Guesses


class Status(Enum):
    """Where a request is; the scheduler alone changes it."""

    HELD = "held"  # waits for its leader to compute the prompt they share
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Request:
    """One choice of one group: what the scheduler, the sampler and the runner work on."""

    group: Group
    index: int  # which of the group's answers
    limit: int  # at most this many generated tokens (max_tokens, or the room)
    text: TextStream
    want_prompt_logprobs: bool = False

    tokens: list[int] = field(init=False)
    num_computed: int = 0
    block_table: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)  # of its full blocks, as far as needed so far
    status: Status = Status.HELD
    followers: list[Request] = field(default_factory=list)  # held until our prompt is computed
    seen: dict[int, int] = field(default_factory=dict)  # token -> times generated (0: prompt only)
    preemptions: int = 0
    guesses: Guesses = field(default_factory=Guesses)

    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    cached_tokens: int | None = None  # set when first admitted

    def __post_init__(self) -> None:
        self.tokens = list(self.group.prompt_ids)
        if self.want_prompt_logprobs:
            self.prompt_logprobs.append(None)  # nothing comes before the first token
        if self.params.repetition_penalty != 1:
            self.seen = dict.fromkeys(self.tokens, 0)

    @property
    def params(self) -> SamplingParams:
        return self.group.params

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_prompt(self) -> int:
        return len(self.group.prompt_ids)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def remaining(self) -> int:
        """How many tokens are still to be computed before the next one can be sampled."""
        return len(self.tokens) - self.num_computed

    @property
    def prompt_logprobs_missing(self) -> bool:
        """True while a recorded position of the prompt must still be computed, cached or not."""
        return self.want_prompt_logprobs and len(self.prompt_logprobs) < self.num_prompt

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token)
        self.seen[token] = self.seen.get(token, 0) + 1

    def seen_with(self, ahead: Sequence[int]) -> dict[int, int]:
        """`seen` as it would be with the tokens `ahead`, for those who must not change it."""
        seen = dict(self.seen) if ahead else self.seen
        for token in ahead:
            seen[token] = seen.get(token, 0) + 1
        return seen

    def key(self, pool: BlockPool, index: int) -> Key:
        """What its full block `index` is found by."""
        size = pool.block_size
        for i in range(len(self.keys), index + 1):
            parent = self.keys[-1] if self.keys else None
            tokens = self.tokens[i * size : (i + 1) * size]
            self.keys.append(pool.make_key(parent, self.params.cache_salt or "", tokens))
        return self.keys[index]

    def output(self) -> CompletionOutput:
        """What has been generated so far."""
        logprobs = None if self.params.logprobs is None else list(self.logprobs)
        return CompletionOutput(
            index=self.index,
            text=self.text.text,
            token_ids=self.tokens[self.num_prompt :],
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )


@dataclass(eq=False)
class Group:
    """What a caller asked for in one go: a prompt, its params, and `params.n` Requests."""

    id: str
    prompt: str | None
    prompt_ids: Sequence[int]
    params: SamplingParams
    seed: int  # the params' own, or drawn
    requests: list[Request] = field(default_factory=list)
    arrival: float = field(default_factory=time.monotonic)
    scheduled: float | None = None
    first_token: float | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        return all(request.finish_reason for request in self.requests)

    def chunk(
        self, request: Request, text: str, tokens: list[int], logprobs: list[TokenLogprobs]
    ) -> Chunk:
        """What one step added to `request`; the last chunk of all carries the whole output."""
        return Chunk(
            request_id=self.id,
            index=request.index,
            text=text,
            token_ids=tokens,
            logprobs=None if self.params.logprobs is None else logprobs,
            finish_reason=request.finish_reason,
            stop_reason=request.stop_reason,
            output=self.output() if self.finished else None,
        )

    def output(self) -> RequestOutput:
        """The whole request as it stands."""
        leader = self.requests[0]
        return RequestOutput(
            request_id=self.id,
            prompt=self.prompt,
            prompt_token_ids=list(self.prompt_ids),
            outputs=[request.output() for request in self.requests],
            prompt_logprobs=leader.prompt_logprobs if leader.want_prompt_logprobs else None,
            cached_tokens=leader.cached_tokens or 0,
            metrics=Metrics(
                arrival=self.arrival,
                scheduled=self.scheduled,
                first_token=self.first_token,
                finished=time.monotonic() if self.finished else None,
                preemptions=sum(request.preemptions for request in self.requests),
            ),
            error=self.error,
            drafted=sum(request.guesses.drafted for request in self.requests),
            accepted=sum(request.guesses.accepted for request in self.requests),
        )
