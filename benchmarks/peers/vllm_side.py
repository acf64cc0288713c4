"""vLLM's CPU backend in bfloat16: its offline `LLM`, for one and for a batch.

It reads the bf16 folder whatever the format of the others.
"""

from __future__ import annotations

import os
import time
from typing import Any

import vllm
from load import serve


class Vllm:
    def __init__(self, model: str, threads: int) -> None:
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        limits = {"max_num_seqs": 32, "max_model_len": 8192, "max_num_batched_tokens": 8192}
        options = {"enable_prefix_caching": False, "disable_log_stats": False} | limits
        self.llm = vllm.LLM(model, dtype="bfloat16", **options)

    def about(self) -> str:
        return f"vLLM {vllm.__version__}, bfloat16"

    def prefill(self, prompt: list[int]) -> float:
        times = self._generate([prompt], [1])[0].metrics
        return times.first_token_ts - times.scheduled_ts

    def decode(self, prompt: list[int], new: int) -> float:
        times = self._generate([prompt], [new + 1])[0].metrics
        return times.last_token_ts - times.first_token_ts

    def batch(self, prompts: list[list[int]], new: list[int]) -> float:
        start = time.perf_counter()
        self._generate(prompts, new)
        return time.perf_counter() - start

    def _generate(self, prompts: list[list[int]], new: list[int]) -> Any:
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        params = [vllm.SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in new]
        return self.llm.generate(inputs, params, use_tqdm=False)


if __name__ == "__main__":
    serve(Vllm)
