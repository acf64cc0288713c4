"""Answers of an engine on all ranks, as JSON. argv: model, options, prompts (JSON), repeats."""

from __future__ import annotations

import json
import sys
from typing import Any

from nanocupy import LLM, SamplingParams

model, options, prompts, repeats = sys.argv[1:]
given = {"tensor_parallel": "auto"} | json.loads(options)
params = SamplingParams(temperature=0, max_tokens=24, logprobs=2, ignore_eos=True)
seeded = SamplingParams(temperature=0.9, top_k=20, seed=7, max_tokens=24, repetition_penalty=1.2)


def answers(llm: LLM) -> list[Any]:
    outs = llm.generate(json.loads(prompts) * 2, [params, seeded] * len(json.loads(prompts)))
    return [
        {
            "tokens": out.outputs[0].token_ids,
            "logprobs": [
                [at[t].logprob for t in sorted(at)] for at in out.outputs[0].logprobs or []
            ],
        }
        for out in outs
    ]


found = []
for _ in range(int(repeats)):
    with LLM(model, **given) as llm:
        if llm.engine.speculator is not None:  # no step takes any time: guess whenever that is on
            llm.engine.speculator.clock = float
        found.append(answers(llm))
print(json.dumps(found))
