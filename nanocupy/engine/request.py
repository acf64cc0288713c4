"""The requests of an engine: what a caller asked for (RequestGroup), and each of its answers.

A RequestGroup with `n` answers has `n` Requests with the same prompt. `tokens` of a Request holds
prompt and answer; `num_computed` of them have K/V in `block_table`. Where all are computed, the
next token is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from nanocupy.engine.block_pool import BlockPool, Key
from nanocupy.engine.outputs import (
    Chunk,
    CompletionOutput,
    FinishReason,
    Metrics,
    RequestOutput,
    TokenLogprobs,
)
from nanocupy.engine.params import SamplingParams
from nanocupy.text.detokenizer import TextStream


class Status(Enum):
    """Where a request is; the scheduler alone changes it."""

    HELD = "held"  # waits for its leader to compute the prompt they share
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class PreparedRequest(NamedTuple):
    """A request that has passed every check: the engine will take it."""

    prompt: str | None
    prompt_ids: list[int]
    params: SamplingParams
    limit: int  # at most this many generated tokens (max_tokens, or the room)


@dataclass(eq=False)
class Request:
    """One choice of one group: what the scheduler, the sampler and the runner work on."""

    group: RequestGroup
    index: int  # which of the group's answers
    limit: int  # at most this many generated tokens
    text: TextStream
    stop_ids: Collection[int]  # the tokens that end it

    params: SamplingParams = field(init=False)  # the group's
    tokens: list[int] = field(init=False)
    num_prompt: int = field(init=False)
    greedy: bool = field(init=False)
    edits_logits: bool = field(init=False)
    num_computed: int = 0
    block_table: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)  # of its full blocks, as far as needed so far
    status: Status = Status.HELD
    followers: list[Request] = field(default_factory=list)  # held until our prompt is computed
    seen: dict[int, int] = field(default_factory=dict)  # token -> times generated (0: prompt only)
    preemptions: int = 0

    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] | None = None  # None: not asked for
    prompt_logprobs_missing: bool = False  # some position of the prompt must still be computed
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    cached_tokens: int | None = None  # set when first admitted

    def __post_init__(self) -> None:
        self.params, self.tokens = self.group.params, list(self.group.prompt_ids)
        self.num_prompt = len(self.tokens)
        self.greedy, self.edits_logits = self.params.greedy, self.params.edits_logits
        if self.params.prompt_logprobs is not None and self.index == 0:
            self.prompt_logprobs = [None]  # nothing comes before the first token
            self.prompt_logprobs_missing = self.num_prompt > 1
        if self.params.repetition_penalty != 1:
            self.seen = dict.fromkeys(self.tokens, 0)

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.tokens)

    @property
    def num_generated(self) -> int:
        """Tokens of the answer."""
        return len(self.tokens) - self.num_prompt

    def add_prompt_logprobs(self, logprobs: TokenLogprobs) -> None:
        """Add the logprobs of the next position of the prompt."""
        assert self.prompt_logprobs is not None
        self.prompt_logprobs.append(logprobs)
        self.prompt_logprobs_missing = len(self.prompt_logprobs) < self.num_prompt

    def append(self, token: int) -> None:
        """Add a sampled token."""
        self.tokens.append(token)
        self.seen[token] = self.seen.get(token, 0) + 1

    def seen_with(self, ahead: Sequence[int]) -> dict[int, int]:
        """Return `seen` as it will be after the tokens `ahead`; the request does not change."""
        seen = dict(self.seen) if ahead else self.seen
        for token in ahead:
            seen[token] = seen.get(token, 0) + 1
        return seen

    def key(self, pool: BlockPool, index: int) -> Key:
        """Return the prefix-cache key of its full block `index`."""
        size = pool.block_size
        for i in range(len(self.keys), index + 1):
            parent = self.keys[-1] if self.keys else None
            tokens = self.tokens[i * size : (i + 1) * size]
            self.keys.append(pool.make_key(parent, self.params.cache_salt or "", tokens))
        return self.keys[index]

    def output(self) -> CompletionOutput:
        """Return the answer as far as it has been generated."""
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
class RequestGroup:
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
    unfinished: int = 0  # answers that have not ended
    drafted: int = 0  # tokens guessed by speculation, and those of them that were right
    accepted: int = 0

    def chunk(
        self, request: Request, text: str, tokens: list[int], logprobs: list[TokenLogprobs]
    ) -> Chunk:
        """Return what one step added to `request`; the group's last chunk has the whole output."""
        return Chunk(
            request_id=self.id,
            index=request.index,
            text=text,
            token_ids=tokens,
            logprobs=None if self.params.logprobs is None else logprobs,
            finish_reason=request.finish_reason,
            stop_reason=request.stop_reason,
            output=None if self.unfinished else self.output(),
        )

    def output(self) -> RequestOutput:
        """Return the output of all answers as they stand."""
        leader = self.requests[0]
        return RequestOutput(
            request_id=self.id,
            prompt=self.prompt,
            prompt_token_ids=list(self.prompt_ids),
            outputs=[request.output() for request in self.requests],
            prompt_logprobs=leader.prompt_logprobs,
            cached_tokens=leader.cached_tokens or 0,
            metrics=Metrics(
                arrival=self.arrival,
                scheduled=self.scheduled,
                first_token=self.first_token,
                finished=None if self.unfinished else time.monotonic(),
                preemptions=sum(request.preemptions for request in self.requests),
            ),
            error=self.error,
            drafted=self.drafted,
            accepted=self.accepted,
        )
