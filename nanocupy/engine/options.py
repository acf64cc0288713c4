"""EngineOptions: the options of a model that is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nanocupy.engine.validation import Checked, checked, choice, flag, integer, real, to_int
from nanocupy.quoting import quoted

MAX = 2**31 - 1
MAX_DRAFTED = 16  # tokens drafted per request and step, where nobody says
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def _num_bytes(value: Any) -> int:
    if not isinstance(value, str):
        return to_int(value, 1, 2**60)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", value.strip().lower())
    if not match:
        raise ValueError(f"must be bytes or a size such as '2GiB' or '512M', got {quoted(value)}")
    return to_int(int(min(float(match[1]) * UNITS[match[2]], 2.0**61)), 1, 2**60)


def _module_name(value: Any) -> str:
    named = isinstance(value, str) and len(value) < 1000 and not re.search(r"[^\w.-]", value)
    if not named or not all(value.split(".")):
        raise ValueError(
            "must be the name of a Python module, as 'mlx_lm.models.starcoder2', "
            f"got {quoted(value)}"
        )
    return value


def _ranks(value: Any) -> Any:
    return value if value == "auto" else to_int(value, 1, 4096)


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Checked):
    """The options of LLM and AsyncLLM; an unknown name is an error that lists them.

    On a CPU none of them changes a token of any answer, except `device`, `dtype`, `kv_dtype` and
    `quantize` (the arithmetic), `max_model_len` of a longrope model where it is more than the
    original length (it takes the long factors), and the limits (`max_model_len`, the KV memory),
    which can end an answer earlier. On a GPU the size of a step may change a rounding, and so may
    what decides it.
    """

    max_model_len: int | None = integer(
        None,
        1,
        MAX,
        "longest prompt + answer in tokens; None = what the model and memory allow "
        "(of a longrope model: its original length; more takes its long factors)",
    )
    max_num_seqs: int = integer(32, 1, 4096, "requests computed together in one step")
    max_num_batched_tokens: int = integer(512, 1, 2**20, "tokens computed in one step")
    max_waiting: int = integer(
        10_000, 0, MAX, "requests that may wait beside those computed; one more is refused"
    )
    chunk: int | None = integer(None, 1, MAX, "tokens of one prompt in one step; None = no limit")
    block_size: int = choice(16, (16, 32, 64), "tokens in one KV block")
    num_kv_blocks: int | None = integer(None, 1, MAX, "KV blocks; None = from kv_memory")
    kv_memory: int | None = checked(
        None, _num_bytes, "memory for KV blocks, bytes or '2GiB'; None = a share of what is free"
    )
    gpu_memory_utilization: float = real(
        0.9, 0.01, 1.0, "share of a GPU's memory that weights, KV blocks and all else may take"
    )
    prefix_cache: bool = flag(True, "reuse KV blocks of prompts that start alike")
    dtype: str = choice(
        "auto",
        ("auto", "exact", "int8", "bfloat16", "float16"),
        "'exact' computes in float32 throughout; 'auto', on a CPU, rounds activations to 16 bits "
        "where products of them are faster, 'int8' to 8 where weights are quantised (faster "
        "prompts); the 16-bit floats are for GPUs, where 'auto' is the model's own",
    )
    kv_dtype: str = choice(
        "auto",
        ("auto", "float32", "bfloat16", "float16", "int8"),
        "how keys and values are stored; 'int8', on a CPU: half the memory of float16, and faster "
        "after long contexts",
    )
    quantize: int | None = choice(
        None,
        (4, 8),
        "bits of the weights of a model that has floats, in groups of 64, as `nanocupy convert` "
        "writes them; None = as they are",
    )
    device: str = choice(
        "auto",
        ("auto", "cpu", "cuda", "emulated"),
        "where the model runs; 'auto' is a GPU if CuPy and a driver are there, else the CPU; "
        "'emulated' runs the CUDA kernels on the CPU, to learn and to test (slow)",
    )
    threads: int | None = integer(
        None, 1, 1024, "CPU threads of each process; None = one per core, shared out over processes"
    )
    tensor_parallel: int | str = checked(
        1, _ranks, "processes that share out the layers: as many as mpirun started, or 'auto'"
    )
    stall_timeout: float = real(
        6.0, 0.5, 3600.0, "seconds without progress in a step after which a process is given up"
    )
    speculate: int | None = integer(
        None,
        0,
        64,
        "tokens of each request that a step may guess from what the text has already, "
        "and check: where text repeats itself several are right at once, and no token changes; "
        "0 = off; None = 16 on a CPU, 0 on a GPU, where rounding may depend on the step",
    )
    model_file: str | None = checked(
        None,
        _module_name,
        "Python module with the network, in MLX's contract, as 'mlx_lm.models.starcoder2': it is "
        "imported and run, unchanged; None = nanocupy's own, by the model_type in config.json",
    )
    capture: bool = flag(True, "replay the step as one captured graph")
    seed: int | None = integer(
        0, 0, 2**64 - 1, "draws the seeds of requests without one; None = fresh", optional=True
    )
    progress: bool | None = flag(
        None, "progress bars; None = on a terminal, or with NANOCUPY_PROGRESS=1"
    )

    def drafted(self, row_invariant: bool) -> int:
        """Return how many tokens of a request a step may draft on a device; 0: no speculation.

        Raises:
            ValueError: drafts are asked for where they could change tokens.
        """
        if self.speculate and not row_invariant:
            raise ValueError(
                f"[EngineOptions] speculate={self.speculate} needs a device on which a token does "
                "not depend on what else is in its step, and that is the CPU: leave it out or "
                "give 0"
            )
        if self.speculate is None:
            return MAX_DRAFTED if row_invariant else 0
        return self.speculate

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                "[EngineOptions] max_num_batched_tokens must be at least max_num_seqs (every "
                f"running request needs one token per step), got {self.max_num_batched_tokens} "
                f"and {self.max_num_seqs}: raise the first or lower the second"
            )
        if self.num_kv_blocks is not None and self.kv_memory is not None:
            raise ValueError("[EngineOptions] give num_kv_blocks or kv_memory, not both")
        if self.model_file is not None and self.quantize is not None:
            raise ValueError(
                "[EngineOptions] quantize is for nanocupy's own networks: with model_file, give a "
                "folder that is quantised already, as mlx_lm.convert writes it"
            )
