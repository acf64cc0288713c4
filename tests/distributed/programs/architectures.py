"""Greedy answers of one model after the other on all ranks, as JSON. argv: folder of models, their
names, options, prompts (all JSON)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nanocupy import LLM, SamplingParams

folder, names, options, prompts = sys.argv[1:]
given = {"tensor_parallel": "auto"} | json.loads(options)
params = SamplingParams(temperature=0, max_tokens=8, logprobs=2, ignore_eos=True)

found = {}
for name in json.loads(names):
    with LLM(Path(folder) / name, **given) as llm:
        outs = [out.outputs[0] for out in llm.generate(json.loads(prompts), params)]
        found[name] = [
            (out.token_ids, [at[t].logprob for at in out.logprobs or [] for t in sorted(at)])
            for out in outs
        ]
print(json.dumps(found))
