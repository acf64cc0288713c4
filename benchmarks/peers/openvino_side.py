"""OpenVINO GenAI on a GGUF file: its LLMPipeline, and its continuous batching for a batch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
from load import serve


class OpenVino:
    def __init__(self, model: str, threads: int) -> None:
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
        self.one = genai.LLMPipeline(model, "CPU", **options)
        limits = genai.SchedulerConfig()
        limits.cache_size, limits.max_num_seqs, limits.max_num_batched_tokens = 1, 32, 512
        self.many = genai.ContinuousBatchingPipeline(model, limits, "CPU", options)

    def about(self) -> str:
        return f"OpenVINO {ov.__version__}, its own choice of precision"

    def prefill(self, prompt: list[int]) -> float:
        return self._one(prompt, 1).get_ttft().mean / 1000

    def decode(self, prompt: list[int], new: int) -> float:
        return self._one(prompt, new + 1).get_tpot().mean / 1000 * new

    def batch(self, prompts: list[list[int]], new: list[int]) -> float:
        inputs = [ov.Tensor(np.array([prompt], np.int64)) for prompt in prompts]
        start = time.perf_counter()
        self.many.generate(inputs, [self._config(n) for n in new])
        return time.perf_counter() - start

    def _one(self, prompt: list[int], new: int) -> Any:
        ids = np.array([prompt], np.int64)
        inputs = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        return self.one.generate(inputs, self._config(new)).perf_metrics

    def _config(self, new: int) -> Any:
        return genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False)


if __name__ == "__main__":
    serve(OpenVino)
