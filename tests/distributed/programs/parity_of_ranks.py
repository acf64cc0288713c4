"""Parity with transformers on several ranks. argv: model. Prints "well" on rank 0."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the tests' own folder

import parity
from nanocupy import LLM
from test_parity import logits_for

with LLM(sys.argv[1], tensor_parallel="auto", max_model_len=512, max_num_seqs=1, threads=1) as llm:
    parity.default(parity.load(), lambda ids: logits_for(llm, ids)).check()
print("well")
