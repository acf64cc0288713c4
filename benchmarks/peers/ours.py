"""nanocupy: the whole engine, sampling included."""

from __future__ import annotations

import sys
import time
from typing import Any

from load import serve

from nanocupy import LLM, SamplingParams


class Nanocupy:
    def __init__(self, model: str, threads: int, **options: Any) -> None:
        plain = {"prefix_cache": False, "speculate": 0}
        options = plain | {"max_model_len": 8192, "progress": False} | options
        self.llm = LLM(model, threads=threads, **options)

    def about(self) -> str:
        from nanocupy.device.cpu import target

        return f"nanocupy, {target.level()}"

    def prefill(self, prompt: list[int]) -> float:
        times = self._one(prompt, 1)
        return times.first_token - times.scheduled

    def decode(self, prompt: list[int], new: int) -> float:
        times = self._one(prompt, new + 1)
        return times.finished - times.first_token

    def batch(self, prompts: list[list[int]], new: list[int]) -> float:
        start = time.perf_counter()
        self.llm.generate(prompts, [self._params(n) for n in new])
        return time.perf_counter() - start

    def _params(self, new: int) -> SamplingParams:
        return SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)

    def _one(self, prompt: list[int], new: int) -> Any:
        return self.llm.generate([prompt], self._params(new))[0].metrics


class Int8(Nanocupy):
    """nanocupy with 8-bit activations, as llama.cpp and OpenVINO have them."""

    def __init__(self, model: str, threads: int) -> None:
        super().__init__(model, threads, dtype="int8")

    def about(self) -> str:
        return super().about() + ", 8-bit activations"


class Ranks(Nanocupy):
    """This process and the other ranks that mpirun started."""

    def __init__(self, model: str, threads: int) -> None:
        super().__init__(model, threads, tensor_parallel="auto", max_model_len=2048)


KINDS = {"": Nanocupy, "int8": Int8, "ranks": Ranks}

if __name__ == "__main__":
    serve(KINDS[sys.argv[3] if sys.argv[3:] else ""])
