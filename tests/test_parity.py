"""The real model against transformers in float32 (goldens made by golden/make_parity.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import parity
from nanocupy import LLM
from nanocupy.engine.batch import SampleRow, Scheduled


@pytest.fixture(scope="module", params=["exact", "auto"])
def llm(request: pytest.FixtureRequest, real_model: Path) -> Iterator[LLM]:
    with LLM(real_model, dtype=request.param, max_model_len=512, max_num_seqs=1) as made:
        yield made


def logits_for(llm: LLM, ids: list[int]) -> np.ndarray:
    """Teacher-forced logits by the engine's own runner, as many rows a step as it samples."""
    runner = llm.engine.runner
    table = list(range(1, 1 + -(-len(ids) // runner.block_size)))
    out = []
    for start in range(0, len(ids), runner.max_samples):
        part = ids[start : start + runner.max_samples]
        rows = [SampleRow(i, 0.0, 0, 1.0, 0.0, 0.0, None, -1, 0) for i in range(len(part))]
        runner.step([Scheduled(None, start, part, table, rows)])  # type: ignore[arg-type]
        out.append(runner.program.outputs[2][: len(part)].copy())  # type: ignore[attr-defined]
    return np.concatenate(out)


def test_parity_with_transformers(llm: LLM) -> None:
    """(i) in exact mode, (ii) in the default mode; raw and chat prompts."""
    goldens = parity.load()
    if llm.options.dtype == "exact":
        parity.exact(goldens, lambda ids: logits_for(llm, ids)).check()
    parity.default(goldens, lambda ids: logits_for(llm, ids)).check()
