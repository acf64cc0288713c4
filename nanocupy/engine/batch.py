"""One step: what the scheduler hands to the runner, and what the runner returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from nanocupy.engine.request import Request


class Edits(NamedTuple):
    """Sparse changes to one row of logits: `l = (l / mul if l > 0 else l * mul) + add`.

    `ids` are distinct; `add` may be -inf (the token cannot be drawn).
    """

    ids: list[int]
    mul: list[float]
    add: list[float]


class SampleRow(NamedTuple):
    """One row of a chunk whose logits are wanted, and what to do with them."""

    row: int  # index in the chunk
    temperature: float = 0.0  # 0 = greedy
    top_k: int = 0  # 0 = off
    top_p: float = 1.0  # 1 = off
    min_p: float = 0.0  # 0 = off
    uniform: float = 0.0  # the one random number of this (seed, choice, position), in [0, 1)
    edits: Edits | None = None
    top: int = -1  # how many top logprobs to report; -1: no logprobs at all
    target: int = -1  # -1: sample; >= 0: do not sample, report the logprob of this token


class Scheduled(NamedTuple):
    """One request's share of a step: positions start .. start + len(tokens) - 1.

    K/V of position p live in block `block_table[p // block_size]`, slot `p % block_size`.
    Block 0 is the dump block and never appears in a table. A chunk may end a prompt and still
    have no sample rows (`max_tokens=0`). Its last tokens may be drafted: guesses, which the rows
    before them verify.
    """

    request: Request
    start: int
    tokens: list[int]
    block_table: list[int]
    sample: list[SampleRow]
    draft: Sequence[int] = ()  # the last of `tokens`


class Sampled(NamedTuple):
    """The token drawn for one SampleRow; logprobs are of the raw distribution."""

    token: int  # -1: the row's logits are not finite
    logprob: float = float("nan")  # nan and no top where no logprobs are wanted
    top: Sequence[tuple[int, float]] = ()  # (token, logprob), best first


class Runner(Protocol):
    """A model on a device, with its KV blocks (block 0 is the dump block).

    A step has sum(len(tokens)) <= max_rows, at most max_samples sample rows and at most max_seqs
    requests. Running the same step again must be harmless: the engine does so to find out which
    request made a step fail. `row_invariant`: no token depends on what else is in its step.
    """

    max_rows: int
    max_samples: int
    max_seqs: int
    block_size: int
    num_blocks: int
    max_model_len: int
    vocab_size: int
    row_invariant: bool

    def step(self, batch: Sequence[Scheduled]) -> list[Sampled]:
        """Compute the chunks; one Sampled per SampleRow, in order."""

    def close(self) -> None:
        """Release the memory. May be called again."""


class Speculator(Protocol):
    """Drafts the next tokens of requests, so that one step computes several. See `speculation`."""

    def draft(self, batch: Sequence[Scheduled], rows: int, samples: int) -> list[list[int]]:
        """Guess what follows each request of a step that has `rows` and `samples` left.

        An empty list: no request of this step has a draft.
        """

    def verify(self, item: Scheduled, sampled: list[Sampled]) -> list[Sampled]:
        """Return the answers to `item` that were computed on the right tokens."""

    def end_step(self, batch: Sequence[Scheduled]) -> None:
        """Learn from a step what drafting gained and cost."""

    def forget(self, request: Request) -> None:
        """Drop the state of a request that has ended."""
