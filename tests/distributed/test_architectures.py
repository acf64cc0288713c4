"""Every architecture on two ranks, from its folder to its tokens: as on one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.needs import needs_compiler
from models.test_model_file import FILE
from mpirun import needs_mpi, program

pytestmark = needs_mpi
GOLDEN = Path(__file__).parents[1] / "golden" / "architectures"
CASES = sorted(path.name for path in GOLDEN.iterdir())
PROMPTS = [[5, 6, 7], [*range(3, 40)], [9]]
EXACT = {"dtype": "exact", "max_num_batched_tokens": 32, "threads": 1, "num_kv_blocks": 12,
         "max_model_len": 48, "stall_timeout": 60}  # fmt: skip
EMULATED = {"device": "emulated", "max_num_seqs": 4}


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """The tiny models, each with a tokenizer."""
    for case in CASES:
        (tmp_path / case).mkdir()
        for path in (*(GOLDEN / case).glob("*.[js]*"), *tiny.glob("tokenizer*")):
            shutil.copy(path, tmp_path / case)
    return tmp_path


def agree(folder: Path, cases: list[str], **options: Any) -> None:
    given = [str(folder), json.dumps(cases), json.dumps(EXACT | options), json.dumps(PROMPTS)]
    alone, two = (json.loads(program(n, "architectures.py", *given)) for n in (1, 2))
    assert [*alone] == cases
    for case in cases:
        for (tokens, logprobs), (want, theirs) in zip(two[case], alone[case], strict=True):
            assert tokens == want, case
            np.testing.assert_allclose(logprobs, theirs, rtol=1e-3, atol=1e-3, err_msg=case)


def test_two_ranks_answer_as_one(folder: Path) -> None:
    agree(folder, CASES)


@needs_compiler
def test_two_emulated_gpus_answer_as_one(folder: Path) -> None:
    """Norms over all heads, fused projections, caps and scales, a mixture."""
    agree(folder, ["gemma2", "granite", "mixtral", "olmo2", "phi3"], **EMULATED)


def test_a_model_file_divides_by_its_own_shard(
    tiny_f16: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four query and two KV heads; the file's tokens on two ranks are our own model's on one."""
    (tmp_path / "file_of_a_test.py").write_text(FILE)
    (tmp_path / "model").symlink_to(tiny_f16)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{before}")

    def tokens(ranks: int, **options: Any) -> list[list[int]]:
        given = [str(tmp_path), '["model"]', json.dumps(EXACT | options), json.dumps(PROMPTS)]
        found = json.loads(program(ranks, "architectures.py", *given))["model"]
        return [answer for answer, _ in found]

    assert tokens(2, model_file="file_of_a_test") == tokens(1)
