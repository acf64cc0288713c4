"""What callers get: RequestOutput for a whole request, Chunk for one piece of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "abort", "error"]
LOWEST_LOGPROB = -9999.0  # JSON has no -inf


class Logprob(NamedTuple):
    """Log-probability of one token under the raw distribution (before temperature and edits)."""

    logprob: float
    decoded_token: str


TokenLogprobs = dict[int, Logprob]  # the token itself first, then the best ones in order


@dataclass(frozen=True)
class CompletionOutput:
    """One answer. `token_ids` includes the token it stopped at, `text` never shows it."""

    index: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None  # one per token id
    finish_reason: FinishReason | None  # None while it runs
    stop_reason: int | str | None  # the stop token or stop string; None for the model's own end


@dataclass(frozen=True)
class Metrics:
    """Times are seconds of `time.monotonic()`; None where the request never got there."""

    arrival: float
    scheduled: float | None
    first_token: float | None
    finished: float | None
    preemptions: int  # how often it gave its blocks up and was computed again

    @property
    def ttft(self) -> float | None:
        """Seconds from arrival to the first token."""
        return None if self.first_token is None else self.first_token - self.arrival

    @property
    def latency(self) -> float | None:
        """Seconds from arrival to the end."""
        return None if self.finished is None else self.finished - self.arrival


@dataclass(frozen=True)
class RequestOutput:
    """A request and its `n` answers."""

    request_id: str
    prompt: str | None  # None where token ids were given
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[TokenLogprobs | None] | None  # one per prompt token; the first is None
    cached_tokens: int  # prompt tokens whose K/V were found in the prefix cache
    metrics: Metrics
    error: str | None  # why an answer has finish_reason "error"
    drafted: int = 0  # tokens that were guessed, to be verified together
    accepted: int = 0  # those of them that were right

    @property
    def acceptance_rate(self) -> float | None:
        """The part of the drafted tokens that were right; None where none was drafted."""
        return self.accepted / self.drafted if self.drafted else None


@dataclass(frozen=True)
class Chunk:
    """What one token added to one answer. The texts of its chunks join to the answer's text."""

    request_id: str
    index: int  # which of the n answers
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None
    finish_reason: FinishReason | None  # set on the answer's last chunk
    stop_reason: int | str | None
    output: RequestOutput | None  # set on the request's last chunk


def describe(error: Exception) -> str:
    """One line for `RequestOutput.error`."""
    return f"{type(error).__name__}: {error}"
