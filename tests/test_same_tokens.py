"""E1 on the real model: the same request gives the same tokens, to the bit of its logprobs.

Whatever else runs: prefix cache on or off, chunk sizes, batch size and order, preemption, stream or
not, captured or eager, block size, threads, speculation; greedy and seeded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanocupy import LLM, SamplingParams

Answer = tuple[list[int], list[float]]

SHARED = "You are a careful librarian. Answer in one sentence and name a book. "
PROMPTS = [
    "The capital of France is",
    SHARED + "Who wrote about whales?",
    SHARED + "Who wrote about whales? And who about bees?",
    "def fibonacci(n):",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
    "Ünïcödé 日本語 🙂",
]
NEW = 12


def params(index: int) -> SamplingParams:
    """Greedy and seeded in turns."""
    if index % 2:
        return SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, logprobs=0)
    return SamplingParams(
        temperature=0.9,
        top_p=0.95,
        seed=index,
        max_tokens=NEW,
        ignore_eos=True,
        repetition_penalty=1.1,
        logprobs=0,
    )


def engine(folder: Path, **options: Any) -> LLM:
    chosen = {"max_model_len": 256, "max_num_seqs": 20, "threads": 2} | options
    return LLM(folder, **chosen)


def answer(output: Any) -> Answer:
    [choice] = output.outputs
    assert output.error is None and choice.finish_reason == "length", output
    logprobs = [
        step[token].logprob for step, token in zip(choice.logprobs, choice.token_ids, strict=True)
    ]
    return choice.token_ids, logprobs


def answers(llm: LLM, order: list[int]) -> list[Answer]:
    """The answers of PROMPTS[i % 6] for i in `order`, asked for all at once."""
    texts = [PROMPTS[i % len(PROMPTS)] for i in order]
    outputs = llm.generate(texts, [params(i % len(PROMPTS)) for i in order])
    return [answer(o) for o in outputs]


@pytest.fixture(scope="module")
def alone(real_model: Path) -> Iterator[list[Answer]]:
    """Each request by itself, nothing cached, one thread, no graph."""
    plain = {"prefix_cache": False, "threads": 1, "capture": False, "speculate": 0}
    with engine(real_model, **plain, max_num_seqs=1) as llm:
        yield [answers(llm, [i])[0] for i in range(len(PROMPTS))]


def check(llm: LLM, alone: list[Answer], order: list[int]) -> None:
    for i, got in zip(order, answers(llm, order), strict=True):
        assert got == alone[i % len(PROMPTS)], PROMPTS[i % len(PROMPTS)]


@pytest.mark.parametrize(
    "options",
    [
        {"prefix_cache": False},
        {"chunk": 1},
        {"chunk": 7},
        {"chunk": 16},
        {"capture": False},
        {"block_size": 32},
        {"block_size": 64, "threads": 3},
        {"threads": 1},
        {"max_num_batched_tokens": 20},
    ],
    ids=str,
)
def test_options_change_nothing(real_model: Path, alone: list[Answer], options: Any) -> None:
    with engine(real_model, **options) as llm:
        check(llm, alone, list(range(6)))
        check(llm, alone, [2, 1])  # found in the cache, where there is one


def test_company_changes_nothing(real_model: Path, alone: list[Answer]) -> None:
    with engine(real_model) as llm:
        for count in (1, 2, 8, 17):
            order = list(range(count))
            random.Random(count).shuffle(order)
            check(llm, alone, order)


def test_preemption_changes_nothing(real_model: Path) -> None:
    """Room for two and a half requests, and twenty of them."""
    wanted = [replace(params(i), max_tokens=32) for i in range(6)]
    with engine(real_model, max_model_len=72, max_num_seqs=1) as llm:
        want = [answer(o) for o in llm.generate(PROMPTS, wanted)]
    with engine(real_model, max_model_len=72, num_kv_blocks=11, prefix_cache=False) as llm:
        order = [i % 6 for i in range(20)]
        outputs = llm.generate([PROMPTS[i] for i in order], [wanted[i] for i in order])
        assert sum(o.metrics.preemptions for o in outputs) > 0
        assert [answer(o) for o in outputs] == [want[i] for i in order]
        assert llm.engine.pool.num_available == 11


def guessing(folder: Path, **options: Any) -> LLM:
    """An engine that guesses whenever it can: by its clock, no step takes any time."""
    llm = engine(folder, **options)
    llm.engine.speculator.clock = lambda: 0.0
    return llm


LINES = "".join(f"{n}. The quick brown fox jumps over the lazy dog.\n" for n in range(1, 5))
REPEATING = [LINES + "5. The quick", "a b c d a b c d a b c", PROMPTS[4], SHARED * 2, PROMPTS[3]]
LONGER = [
    SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, logprobs=2),
    SamplingParams(temperature=0.7, seed=5, max_tokens=60, ignore_eos=True, logprobs=0),
    SamplingParams(temperature=0, max_tokens=40, repetition_penalty=1.05, min_tokens=30),
    SamplingParams(temperature=1.0, seed=6, max_tokens=40, n=2, stop=["dog", "4"], logprobs=1),
]


@pytest.mark.parametrize("options", [{}, {"dtype": "exact"}, {"dtype": "int8"}], ids=str)
def test_guesses_change_nothing(real_model: Path, options: Any) -> None:
    """One by one and all together; many guesses are right, and many are not."""
    asked = [(prompt, params) for prompt in REPEATING for params in LONGER]
    prompts, params = [prompt for prompt, _ in asked], [params for _, params in asked]
    with engine(real_model, speculate=0, **options) as llm:
        plain = [o.outputs for o in llm.generate(prompts, params)]
    with guessing(real_model, **options) as llm:
        together = llm.generate(prompts, params)
        alone = [llm.generate([prompt], one)[0] for prompt, one in asked]
    assert [o.outputs for o in together] == plain
    assert [o.outputs for o in alone] == plain
    drafted, accepted = (sum(getattr(o, n) for o in alone) for n in ("drafted", "accepted"))
    assert 50 < accepted < drafted - 50


def test_streams_change_nothing(real_model: Path, alone: list[Answer]) -> None:
    with engine(real_model) as llm:
        streams = [llm.stream(PROMPTS[i], params(i)) for i in range(6)]
        tokens: list[list[int]] = [[] for _ in streams]
        texts = [""] * 6
        for _ in range(NEW + 1):
            for i, stream in enumerate(streams):
                for chunk in stream:
                    tokens[i] += chunk.token_ids
                    texts[i] += chunk.text
                    break
        assert tokens == [a[0] for a in alone]
        whole = llm.generate(PROMPTS, [params(i) for i in range(6)])
        assert texts == [o.outputs[0].text for o in whole]


def test_a_kernel_that_fails_ends_one_request(real_model: Path, alone: list[Answer]) -> None:
    """Fail the k-th run of the graph for k = 1, 2, ...: the others' tokens stay as they are."""
    with engine(real_model) as llm:
        runner: Any = llm.engine.runner
        [graph] = runner._graphs
        for k in range(1, 8):
            runner._graphs = [Failing(graph, k)]
            outputs = llm.generate(PROMPTS[:3], [params(i) for i in range(3)])
            runner._graphs = [graph]
            ended = [o for o in outputs if o.outputs[0].finish_reason == "error"]
            assert len(ended) <= 1
            for i, output in enumerate(outputs):
                if output not in ended:
                    assert answer(output) == alone[i]
        check(llm, alone, [0, 1, 2])


class Failing:
    """A graph whose k-th run raises."""

    def __init__(self, graph: Any, k: int) -> None:
        self.graph, self.left = graph, k

    def run(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("injected")
        self.graph.run()


def test_a_row_that_is_not_finite_ends_its_request_alone(
    real_model: Path, alone: list[Answer]
) -> None:
    """Poison the keys of one request's first block: its row is NaN, the others' bits stay."""
    with engine(real_model, prefix_cache=False) as llm:
        runner: Any = llm.engine.runner
        step = runner.step

        def poisoned(batch: Any) -> Any:
            for item in batch:
                if item.request.tokens[: item.request.num_prompt] == victim and item.start:
                    runner.pages[3][0][item.block_table[0]] = float("nan")
            return step(batch)

        victim = llm.tokenizer.encode(PROMPTS[1])
        runner.step = poisoned
        outputs = llm.generate(PROMPTS, [params(i) for i in range(6)])
        assert outputs[1].outputs[0].finish_reason == "error"
        for i in (0, 2, 3, 4, 5):
            assert answer(outputs[i]) == alone[i]
        runner.step = step
        for keys, _ in runner.pages:
            keys[:] = 0
        check(llm, alone, list(range(6)))


def test_memory_returns_to_its_baseline(real_model: Path) -> None:
    with engine(real_model) as llm:
        device = llm.engine.runner.device  # type: ignore[attr-defined]
        answers(llm, [0, 1])
        before = device.memory_active()
        answers(llm, list(range(17)))
        assert device.memory_active() == before
