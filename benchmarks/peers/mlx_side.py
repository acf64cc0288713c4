"""mlx-lm on MLX's CPU backend: `generate_step` for one, its `BatchGenerator` for a batch.

It reads the folders that nanocupy reads, also those in 4 and 8 bits. MLX does not say how many
threads it uses. Products of float matrices go to OpenBLAS, which reads OPENBLAS_NUM_THREADS.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
from load import serve
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.utils import load_model


class Mlx:
    def __init__(self, model: str, threads: int) -> None:
        mx.set_default_device(mx.cpu)
        self.model, self.config = load_model(Path(model))

    def about(self) -> str:
        versions = (f"{name} {importlib.metadata.version(name)}" for name in ("mlx", "mlx-lm"))
        bits = self.config.get("quantization", {}).get("bits", 16)
        return f"{', '.join(versions)}, {mx.default_device()}, {bits} bits"

    def prefill(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        next(self._steps(prompt, 1))
        return time.perf_counter() - start

    def decode(self, prompt: list[int], new: int) -> float:
        steps = self._steps(prompt, new + 1)
        next(steps)
        start = time.perf_counter()
        for _ in steps:
            pass
        return time.perf_counter() - start

    def batch(self, prompts: list[list[int]], new: list[int]) -> float:
        start = time.perf_counter()
        generator = BatchGenerator(self.model)
        generator.insert(prompts, new)
        while generator.next_generated():
            pass
        generator.close()
        return time.perf_counter() - start

    def _steps(self, prompt: list[int], new: int) -> Iterator[Any]:
        return generate_step(mx.array(prompt), self.model, max_tokens=new)


if __name__ == "__main__":
    serve(Mlx)
