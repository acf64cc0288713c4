"""The measurements of `nanocupy bench`: tokens per second of a model, and the memory's limit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from nanocupy import LLM
    from nanocupy.engine.outputs import RequestOutput

TOKENS = 10_000  # random prompts take ids from 0 to this, as nano-vLLM's do
REQUESTS = 256


class Load(NamedTuple):
    """Prompts, and how many tokens to generate for each."""

    prompts: list[list[int]]
    new_tokens: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return max((len(p) + n for p, n in zip(*self, strict=True)), default=0)


def nano_vllm_load(scale: float) -> Load:
    """The load of nano-vLLM's bench.py, with the same random numbers, scaled down by `scale`."""
    source = random.Random(0)
    lengths = (100, 1024)
    prompts = [random_tokens(source, source.randint(*lengths)) for _ in range(REQUESTS)]
    new = [source.randint(*lengths) for _ in range(REQUESTS)]
    kept = round(REQUESTS * scale)
    return Load(
        [prompt[: _shrunk(len(prompt), scale)] for prompt in prompts[:kept]],
        [_shrunk(n, scale) for n in new[:kept]],
    )


def random_tokens(source: random.Random, count: int) -> list[int]:
    """`count` random token ids."""
    return [source.randint(0, TOKENS) for _ in range(count)]


class Bench:
    """Measures one loaded model. Each run has its own cache salt, so prefixes are never shared."""

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._runner: Any = llm.engine.runner  # ModelRunner has more than the engine's protocol
        self._source = random.Random(1)
        self._runs = count()

    @property
    def device(self) -> Any:
        """The device that the model runs on."""
        return self._runner.device

    @property
    def where(self) -> dict[str, Any]:
        """The device's name and, of a CPU, how many threads."""
        about = {"device": self.device.name}
        return about | ({"threads": self.device.threads} if self.device.unified_memory else {})

    def limit(self) -> float:
        """GB/s of the device's memory: a streaming read, or on a GPU a copy."""
        if not self.device.unified_memory:
            from nanocupy.device.cuda import limits as gpu

            return gpu.stream_gbs(self.device)
        from nanocupy.device.cpu import limits as cpu

        return cpu.stream_gbs(threads=self.device.threads)

    @property
    def kv_dtype(self) -> str:
        """The dtype of keys and values."""
        return str(self._runner.kv_dtype)

    def warm_up(self) -> None:
        """Compile and touch everything once."""
        self._generate(Load([random_tokens(self._source, 32)], [8]))

    def prefill(self, length: int) -> float:
        """Prompt tokens per second of one prompt."""
        metrics = self._one(length, 1).metrics
        assert metrics.scheduled is not None and metrics.first_token is not None
        return length / (metrics.first_token - metrics.scheduled)

    def decode(self, context: int, tokens: int) -> float:
        """Tokens per second of one stream, after a prompt of `context` tokens."""
        metrics = self._one(context, tokens + 1).metrics
        assert metrics.finished is not None and metrics.first_token is not None
        return tokens / (metrics.finished - metrics.first_token)

    def batch(self, load: Load) -> float:
        """Output tokens per second of a whole load, from the first request to the last token."""
        start = time.perf_counter()
        outputs = self._generate(load)
        seconds = time.perf_counter() - start
        return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds

    def _one(self, length: int, new: int) -> RequestOutput:
        return self._generate(Load([random_tokens(self._source, length)], [new]))[0]

    def _generate(self, load: Load) -> list[RequestOutput]:
        from nanocupy import SamplingParams

        common: dict[str, Any] = {
            "temperature": 0.6,
            "ignore_eos": True,
            "cache_salt": str(next(self._runs)),
        }
        params = [SamplingParams(max_tokens=n, **common) for n in load.new_tokens]
        outputs = self.llm.generate(load.prompts, params)
        if error := next((output.error for output in outputs if output.error), None):
            raise RuntimeError(error)
        return outputs


def interleaved(
    jobs: Mapping[str, Callable[[], float]], repeats: int, say: Callable[[str], None]
) -> dict[str, float]:
    """The median of `repeats` runs of each job, interleaved so that drift affects all equally."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name, job in jobs.items():
            say(f"{name} ({turn + 1} of {repeats})")
            found[name].append(job())
    return {name: median(values) for name, values in found.items()}


def _shrunk(count: int, scale: float) -> int:
    return max(1, round(count * scale))
