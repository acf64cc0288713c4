"""Four ranks that use MPI themselves, as two pairs with an engine each. argv: model."""

from __future__ import annotations

import sys

from mpi4py import MPI

from nanocupy import LLM, SamplingParams

world = MPI.COMM_WORLD
pair = world.Split(world.rank // 2)
found: list[int] = []
for _ in range(2):
    with LLM(sys.argv[1], comm=pair, threads=1) as llm:
        if pair.rank == 0:
            params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
            found = llm.generate([5, 6, 7], params)[0].outputs[0].token_ids
answers = world.gather(found)
if world.rank == 0:
    assert answers is not None
    print(answers[0] == answers[2], len(answers[0]))
