"""core has two parts: what a step needs (the recorder), and MLX's wide surface, loaded on use."""

from __future__ import annotations

import json
import subprocess
import sys

WIDE = (
    *(f"nanocupy.core.{p}" for p in ("arrays", "maths", "compiling", "runtime", "random")),
    *(f"nanocupy.core.{p}" for p in ("linalg", "metal", "cuda", "fast", "distributed")),
)
MOST_MODULES = 132  # of ours, packages among them: only ever lower it
START = """
import json, sys
from nanocupy import LLM, SamplingParams
with LLM("smollm2-135m", max_model_len=256, progress=False) as llm:
    llm.generate("Hello", SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
    print(json.dumps([name for name in sys.modules if name.partition(".")[0] == "nanocupy"]))
"""


def test_a_llama_loads_none_of_the_wide_surface_and_few_modules() -> None:
    command = [sys.executable, "-c", START]
    for _ in range(2):  # the first start may compile kernels, which loads their sources
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = json.loads(run.stdout.splitlines()[-1])
    assert [name for name in loaded if name.startswith(WIDE)] == []
    assert len(loaded) <= MOST_MODULES, sorted(loaded)
