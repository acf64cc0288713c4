"""Hugging Face transformers on PyTorch: one forward a step, and `generate` on a padded batch.

It runs in bfloat16 where the processor multiplies it, else in float32. transformers has no 4-bit or
8-bit weights of its own on a CPU, so it reads the bf16 folder whatever the format of the others. A
padded batch goes on until its longest answer is done. Only the tokens of the job count.
"""

from __future__ import annotations

import time

import torch
import transformers
from load import serve


def kind() -> torch.dtype:
    """Return the faster dtype on this processor."""
    return torch.bfloat16 if "avx512_bf16" in open("/proc/cpuinfo").read() else torch.float32


class Transformers:
    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        load = transformers.AutoModelForCausalLM.from_pretrained
        self.model = load(model, dtype=kind()).eval()

    def about(self) -> str:
        versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
        return f"{versions}, {kind()}, {torch.backends.cpu.get_cpu_capability()}"

    def prefill(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._forward(prompt, None)
        return time.perf_counter() - start

    def decode(self, prompt: list[int], new: int) -> float:
        token, cache = self._forward(prompt, None)
        start = time.perf_counter()
        for _ in range(new):
            token, cache = self._forward([token], cache)
        return time.perf_counter() - start

    def batch(self, prompts: list[list[int]], new: list[int]) -> float:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        length = {"max_new_tokens": max(new), "min_new_tokens": max(new)}
        start = time.perf_counter()
        self.model.generate(ids, attention_mask=mask, do_sample=False, pad_token_id=0, **length)
        return time.perf_counter() - start

    def _forward(self, tokens: list[int], cache: object) -> tuple[int, object]:
        """Return (most likely next token, cache)."""
        out = self.model(torch.tensor([tokens]), past_key_values=cache, logits_to_keep=1)
        return int(out.logits[0, -1].argmax()), out.past_key_values


if __name__ == "__main__":
    serve(Transformers)
