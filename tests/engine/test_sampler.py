"""Random numbers as a function of (seed, choice, position), and the rows made from params."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.fake import EOS
from nanocupy.engine.batch import SampleRow
from nanocupy.engine.params import SamplingParams
from nanocupy.engine.philox import philox, uniform
from nanocupy.engine.request import Request, RequestGroup
from nanocupy.engine.sampler import NEVER, Sampler
from nanocupy.text.detokenizer import TextStream


@pytest.mark.parametrize(
    "counter, key, words",
    [  # the known answers of the authors' library, Random123
        ("00000000 00000000 00000000 00000000", "00000000 00000000",
         "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
         "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_gives_the_published_answers(counter: str, key: str, words: str) -> None:
    numbers = [tuple(int(w, 16) for w in text.split()) for text in (counter, key, words)]
    assert philox(numbers[0], numbers[1]) == numbers[2]  # type: ignore[arg-type]


def test_uniform_is_uniform_and_exact_in_float32() -> None:
    u = np.array([uniform(1, 0, position) for position in range(4000)])
    assert u.min() >= 0 and u.max() < 1
    assert (u.astype(np.float32) == u).all()
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 43.8  # chi-squared, 19 degrees, p = 0.001


def test_uniform_depends_on_all_it_should() -> None:
    made = {
        uniform(seed, choice, position)
        for seed in (0, 1, 2**32, 2**64 - 1)
        for choice in (0, 1)
        for position in (0, 1, 4, 2**31 - 1)
    }
    assert len(made) == 32
    assert uniform(-1, 0, 0) == uniform(2**64 - 1, 0, 0)
    assert uniform(5, 3, 77) == uniform(5, 3, 77)


def request(prompt: list[int], generated: list[int], **params: Any) -> Request:
    group = RequestGroup("r", None, prompt, SamplingParams(**params), seed=9)
    index = 2 if params.get("prompt_logprobs") is None else 0  # the first answer reports them
    made = Request(group, index, 100, TextStream(), Sampler([EOS]).stop_ids(group.params))
    for token in generated:
        made.append(token)
    return made


def draw_row(prompt: list[int], generated: list[int], **params: Any) -> SampleRow:
    made = request(prompt, generated, **params)
    [row] = Sampler([EOS]).rows(made, len(made.tokens) - made.num_computed)
    return row


def edits(prompt: list[int], generated: list[int], **params: Any) -> dict[int, tuple[float, float]]:
    found = draw_row(prompt, generated, **params).edits
    return {} if found is None else {i: (m, a) for i, m, a in zip(*found, strict=True)}


def test_a_plain_request_has_no_edits() -> None:
    row = draw_row([1, 2, 3], [4], temperature=0.5, top_k=-1, top_p=0.9, min_p=0.1)
    assert row == SampleRow(3, 0.5, 0, 0.9, 0.1, uniform(9, 2, 4), None, -1, -1)
    greedy = draw_row([1, 2, 3], [4], temperature=0, logprobs=3)
    assert (greedy.temperature, greedy.uniform, greedy.top) == (0.0, 0.0, 3)


def test_penalties_count_what_was_generated() -> None:
    found = edits([1, 2], [5, 6, 5], presence_penalty=0.5, frequency_penalty=0.25)
    assert found == {5: (1.0, -1.0), 6: (1.0, -0.75)}


def test_repetition_penalty_covers_the_prompt_too() -> None:
    assert edits([1, 2], [5], repetition_penalty=1.5) == dict.fromkeys((1, 2, 5), (1.5, 0.0))


def test_everything_together_has_one_entry_per_token() -> None:
    found = edits(
        [1, 2], [5], repetition_penalty=2.0, presence_penalty=1.0, logit_bias={5: 3, 7: -100},
        min_tokens=4, stop_token_ids=[2],
    )  # fmt: skip
    assert found == {
        1: (2.0, 0.0),
        2: (2.0, NEVER),
        5: (2.0, 2.0),
        7: (1.0, -100.0),
        EOS: (1, NEVER),
    }


def test_min_tokens_forbids_ends_until_it_is_reached() -> None:
    assert edits([1], [], min_tokens=2) == {EOS: (1.0, NEVER)}
    assert edits([1], [3], min_tokens=2, logit_bias={EOS: 50}) == {EOS: (1.0, NEVER)}
    assert edits([1], [3, 4], min_tokens=2) == {}
    assert edits([1], [], min_tokens=2, ignore_eos=True) == {}
    assert edits([1], [], min_tokens=2, ignore_eos=True, stop_token_ids=[8]) == {8: (1.0, NEVER)}


def test_prompt_rows_come_once_each_over_chunks_and_recomputation() -> None:
    made, sampler = request([10, 11, 12, 13], [], prompt_logprobs=1), Sampler([])
    rows = sampler.rows(made, 2)
    assert [(r.row, r.target, r.top) for r in rows] == [(0, 11, 1), (1, 12, 1)]
    made.prompt_logprobs += [{}, {}]
    made.num_computed = 2
    assert [(r.row, r.target) for r in sampler.rows(made, 2)] == [(0, 13), (1, -1)]
    made.num_computed = 0  # preempted
    assert [(r.row, r.target) for r in sampler.rows(made, 4)] == [(2, 13), (3, -1)]
    assert [(r.row, r.target) for r in sampler.rows(made, 2)] == []
