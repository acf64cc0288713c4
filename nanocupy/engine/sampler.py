"""Which rows of a step are sampled, and how: from a request's params and history to SampleRows.

The drawing itself is part of the step, on the device; here is the policy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from nanocupy.engine.batch import Edits, SampleRow
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.philox import uniform
from nanocupy.engine.request import Request

NEVER = float("-inf")


class Sampler:
    """Makes the SampleRows of a chunk."""

    def __init__(self, eos_ids: Collection[int]) -> None:
        self.eos_ids = frozenset(eos_ids)

    def rows(self, request: Request, count: int, draft: Sequence[int] = ()) -> list[SampleRow]:
        """Return the rows wanted of the next `count` tokens of `request`; at most `count`.

        A draft adds one row for each of its tokens, as if those before it were in the request.
        """
        rows = []
        if request.prompt_logprobs_missing:
            # the row at position p tells the logprob of the token at p + 1
            first = max(request.num_computed, len(request.prompt_logprobs or ()) - 1)
            last = min(request.num_computed + count, request.num_prompt - 1)
            rows = [self._target(request, position) for position in range(first, last)]
        if count == len(request.tokens) - request.num_computed and request.limit:
            for i in range(len(draft) + 1):
                rows.append(self._draw(request, count - 1 + i, draft[:i]))
        return rows

    def stop_ids(self, params: SamplingParams) -> Collection[int]:
        """Return the tokens that end a request."""
        own = params.stop_token_ids
        return own if params.ignore_eos else self.eos_ids.union(own)

    def _target(self, request: Request, position: int) -> SampleRow:
        top, target = request.params.prompt_logprobs or 0, request.tokens[position + 1]
        return SampleRow(position - request.num_computed, top=top, target=target)

    def _draw(self, request: Request, row: int, ahead: Sequence[int]) -> SampleRow:
        params, position = request.params, len(request.tokens) + len(ahead)
        greedy = request.greedy
        return SampleRow(
            row=row,
            temperature=0.0 if greedy else params.temperature,
            top_k=max(params.top_k, 0),
            top_p=params.top_p,
            min_p=params.min_p,
            uniform=0.0 if greedy else uniform(request.group.seed, request.index, position),
            edits=self._edits(request, ahead) if request.edits_logits else None,
            top=-1 if params.logprobs is None else params.logprobs,
        )

    def _edits(self, request: Request, ahead: Sequence[int]) -> Edits | None:
        """Return penalties, biases and forbidden ends: one entry per token concerned."""
        params = request.params
        add = dict(params.logit_bias)
        seen = request.seen_with(ahead)
        if params.presence_penalty or params.frequency_penalty:
            for token, times in seen.items():
                if times:
                    penalty = params.presence_penalty + params.frequency_penalty * times
                    add[token] = add.get(token, 0.0) - penalty
        if request.num_generated + len(ahead) < params.min_tokens:
            add.update(dict.fromkeys(request.stop_ids, NEVER))
        mul = (
            {} if params.repetition_penalty == 1 else dict.fromkeys(seen, params.repetition_penalty)
        )
        ids = list(mul.keys() | add.keys()) if mul and add else list(mul or add)
        if not ids:
            return None
        return Edits(ids, [mul.get(i, 1.0) for i in ids], [add.get(i, 0.0) for i in ids])
