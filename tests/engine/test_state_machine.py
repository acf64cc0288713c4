"""Any sequence of add, abort and step keeps I1-I5 and gives every request its own tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from engine.fake import FakeRunner, engine, expected, runner_of, token_ids
from nanocupy.engine.batch import Scheduled
from nanocupy.engine.invariants import check_invariants
from nanocupy.engine.params import SamplingParams

HEADS = ([], [1] * 16, [1] * 32, [1] * 31 + [2], list(range(48)))
TAILS = ((3,), (1, 1, 1), tuple(range(20)), (1,) * 17)
PARAMS = (
    SamplingParams(temperature=0, max_tokens=6, ignore_eos=True),
    SamplingParams(seed=1, max_tokens=20, n=3),
    SamplingParams(seed=2, max_tokens=3, prompt_logprobs=1, repetition_penalty=1.2, n=2),
    SamplingParams(max_tokens=0),
    SamplingParams(temperature=0, max_tokens=40, cache_salt="s", min_tokens=40),
)


@functools.cache
def wanted(prompt: tuple[int, ...], params: int, echo: float) -> list[list[int]]:
    return expected(prompt, PARAMS[params], FakeRunner(echo=echo))


class EngineMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize(
        num_blocks=st.sampled_from([8, 12, 40]),
        chunk=st.sampled_from([None, 1, 7, 16]),
        cache=st.booleans(),
        rows=st.sampled_from([4, 20, 512]),
        seqs=st.sampled_from([1, 2, 4]),
        speculate=st.sampled_from([0, 1, 16]),
        echo=st.sampled_from([0, 6]),
    )
    def start(
        self,
        num_blocks: int,
        chunk: int | None,
        cache: bool,
        rows: int,
        seqs: int,
        speculate: int,
        echo: float,
    ) -> None:
        self.echo = echo
        self.engine = engine(
            FakeRunner(num_blocks=num_blocks, max_samples=8, echo=echo),
            speculate=speculate,
            chunk=chunk,
            prefix_cache=cache,
            max_num_batched_tokens=rows,
            max_num_seqs=seqs,
        )
        if self.engine.speculator is not None:
            self.engine.speculator.clock = lambda: 0.0  # every draft pays
        self.requests: dict[str, tuple[tuple[int, ...], int]] = {}

    @rule(
        target=ids,
        head=st.sampled_from(HEADS),
        tail=st.sampled_from(TAILS),
        params=st.sampled_from(range(len(PARAMS))),
    )
    def add(self, head: list[int], tail: tuple[int, ...], params: int) -> str:
        prompt = (*head, *tail)
        id = self.engine.add(prompt, PARAMS[params])
        self.requests[id] = prompt, params
        return id

    @rule(id=ids)
    def abort(self, id: str) -> None:
        self.engine.abort(id)
        assert id not in self.engine.groups

    @rule(steps=st.integers(1, 9))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            for chunk in self.engine.step():
                if chunk.output is not None:
                    prompt, params = self.requests[chunk.request_id]
                    tokens = wanted(prompt, params, self.echo)
                    room = self.engine.max_len - len(prompt)
                    assert token_ids(chunk.output) == [answer[:room] for answer in tokens]

    @rule()
    def fail_a_step(self) -> None:
        """A step of several requests fails once: it is repeated one by one, and nobody ends."""

        def fail(batch: Sequence[Scheduled]) -> None:
            runner_of(self.engine).before_step = lambda batch: None
            if len(batch) > 1:
                raise OSError("once")

        runner_of(self.engine).before_step = fail
        self.step(1)

    @invariant()
    def books_add_up(self) -> None:
        if hasattr(self, "engine"):
            check_invariants(self.engine.scheduler, self.engine.groups.values())

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            for _ in range(3000):
                if not self.engine.has_work:
                    break
                self.step(1)
            assert not self.engine.has_work, "it does not end"
            assert self.engine.pool.num_available == len(self.engine.pool.blocks) - 1


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
