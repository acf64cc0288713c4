"""One engine on several ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.needs import needs_compiler
from mpirun import PROGRAMS, mpirun, needs_mpi, program

pytestmark = needs_mpi
PROMPTS = [[5, 6, 7], list(range(40, 140)), [9]]
EMULATED = {"device": "emulated", "num_kv_blocks": 40, "max_model_len": 160, "stall_timeout": 60}
EXACT = {"dtype": "exact", "max_num_batched_tokens": 64, "threads": 1}


def answers(model: Path, ranks: int, repeats: int = 1, **options: Any) -> list[Any]:
    """What the program answers on so many ranks; each repeat is an engine of its own."""
    said = program(ranks, "engine.py", str(model), json.dumps(options), json.dumps(PROMPTS),
                   str(repeats))  # fmt: skip
    found: list[Any] = json.loads(said)  # and nothing else: output appears once
    assert len(found) == repeats
    return found


def agree(model: Path, ranks: int) -> None:
    """Several ranks answer as one does, and in a second engine the same to the bit."""
    [alone] = answers(model, 1, **EXACT)
    one, two = answers(model, ranks, repeats=2, **EXACT)
    assert one == two
    for ours, theirs in zip(one, alone, strict=True):
        assert ours["tokens"] == theirs["tokens"]
        np.testing.assert_allclose(ours["logprobs"], theirs["logprobs"], rtol=1e-3, atol=1e-3)


def test_two_ranks_answer_as_one(tiny: Path) -> None:
    """Each has a KV head and its two query heads."""
    agree(tiny, 2)


def test_four_ranks_answer_as_one(tiny_f16: Path) -> None:
    """Two ranks keep the same KV head, and each has one of its query heads."""
    agree(tiny_f16, 4)


def test_threads_and_capture_change_nothing(tiny: Path) -> None:
    [captured] = answers(tiny, 2, **EXACT)
    [eager] = answers(tiny, 2, **EXACT | {"capture": False, "threads": 2})
    [chunked] = answers(tiny, 2, **EXACT | {"chunk": 7, "prefix_cache": False})
    assert captured == eager == chunked


def test_guesses_change_nothing(tiny: Path) -> None:
    """A random model soon repeats itself: rank 0 guesses, and the others compute the same rows."""
    [plain] = answers(tiny, 2, **EXACT | {"speculate": 0})
    [quick] = answers(tiny, 2, **EXACT | {"speculate": 16})
    assert plain == quick


@needs_compiler
def test_the_emulated_gpus_answer_as_one(tiny_f16: Path) -> None:
    """NCCL's stand-in between processes, inside captured graphs and outside."""
    options = EXACT | EMULATED
    [alone], [captured] = (answers(tiny_f16, ranks, **options) for ranks in (1, 2))
    for ours, theirs in zip(captured, alone, strict=True):
        assert ours["tokens"] == theirs["tokens"]
        np.testing.assert_allclose(ours["logprobs"], theirs["logprobs"], rtol=1e-3, atol=1e-3)
    [eager] = answers(tiny_f16, 2, **options | {"capture": False})
    assert captured == eager
    half = options | {"dtype": "bfloat16"}
    assert answers(tiny_f16, 2, **half) == answers(tiny_f16, 2, **half)


def refused(tiny: Path, ranks: int, code: str) -> str:
    ended = mpirun(ranks, "-c", f"from nanocupy import LLM\nmodel = {str(tiny)!r}\n{code}")
    assert ended.code != 0 and ended.seconds < 20
    return ended.err


def test_what_cannot_be_divided_is_refused(tiny: Path) -> None:
    assert "3 ranks cannot share 4 query heads on 2 KV heads" in refused(
        tiny, 3, "LLM(model, tensor_parallel='auto')"
    )


def test_a_number_of_processes_that_were_not_started(tiny: Path) -> None:
    assert "mpirun -n 3" in refused(tiny, 2, "LLM(model, tensor_parallel=3)")


def test_ranks_must_ask_for_the_same(tiny: Path) -> None:
    code = (
        "from nanocupy.distributed.launcher import launched_rank\n"
        "LLM(model, tensor_parallel='auto', max_num_seqs=3 + launched_rank())"
    )
    said = refused(tiny, 2, code)
    assert "rank 1: ValueError: this rank asks for {'max_num_seqs': 4}, rank 0 for" in said


def test_a_refused_model_is_followed_by_a_good_one(tiny: Path) -> None:
    """An error while loading ends no rank."""
    code = (
        "from nanocupy import LLM, SamplingParams\n"
        f"model = {str(tiny)!r}\n"
        "try: LLM(model, tensor_parallel='auto', max_model_len=100_000)\n"
        "except ValueError as error: print('refused', 'max_model_len' in str(error))\n"
        "with LLM(model, tensor_parallel='auto') as a, LLM(model, tensor_parallel='auto') as b:\n"
        "    one, two = (x.generate([5, 6], SamplingParams(temperature=0, max_tokens=8))\n"
        "                for x in (a, b))\n"
        "    print(one[0].outputs[0].token_ids == two[0].outputs[0].token_ids)\n"
    )
    ended = mpirun(2, "-c", code)
    assert (ended.code, ended.out) == (0, "refused True\nTrue\n"), ended.err


def test_a_program_that_uses_mpi_itself(tiny: Path) -> None:
    """Two pairs of ranks, an engine each; afterwards all are free for other work."""
    ended = mpirun(4, str(PROGRAMS / "own_mpi.py"), str(tiny))
    assert (ended.code, ended.out) == (0, "True 6\n"), ended.err


def test_tensor_parallel_1_never_touches_mpi(tiny: Path) -> None:
    code = (
        "import sys\nfrom nanocupy import LLM\n"
        f"with LLM({str(tiny)!r}, threads=1) as llm: llm.generate([5])\n"
        "print('mpi4py' in sys.modules)"
    )
    assert mpirun(2, "-c", code).out == "False\nFalse\n"


def test_the_command_line(tiny: Path) -> None:
    main = "from nanocupy.cli import main; raise SystemExit(main())"
    model = ("-m", str(tiny), "--max-tokens", "4")
    command = ("-c", main, "generate", "Hello", *model, "--raw", "--json")
    ended = mpirun(2, *command)
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["token_ids"]) <= 4
    wrong = mpirun(2, *command, "--threads", "0")
    assert wrong.code != 0 and wrong.err.count("--threads") == 1 and wrong.out == ""


# ---- the real model


def test_the_example_on_the_real_model(real_model: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "generate.py"
    one, two = (mpirun(2, str(example)) for _ in range(2))
    assert one.code == two.code == 0, one.err
    assert one.out == two.out and len(one.out.splitlines()) == 3 and "Paris" in one.out


@pytest.mark.parametrize("ranks", [2, 3])
def test_parity_on_the_real_model(real_model: Path, ranks: int) -> None:
    """(ii) of tests/parity.py, by rank 0, with transformers."""
    assert program(ranks, "parity_of_ranks.py", str(real_model), timeout=300) == "well\n"
