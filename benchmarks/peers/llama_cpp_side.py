"""llama.cpp through llama-cpp-python's low-level API: `llama_decode` alone, no sampling, no Python.

Every sequence has its own id in one unified cache; a step is one batch, prompts in pieces of 512
first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import llama_cpp as lib
from load import serve

PIECE = 512
SEQUENCES = 32
Row = tuple[int, int, int]  # token, position, sequence


class LlamaCpp:
    def __init__(self, model: str, threads: int) -> None:
        lib.llama_backend_init()
        self._quiet = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self._quiet, None)
        loaded = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 16384, PIECE, PIECE
        params.n_seq_max, params.kv_unified = SEQUENCES, True
        params.n_threads = params.n_threads_batch = threads
        self.context = lib.llama_init_from_model(loaded, params)
        self.piece = lib.llama_batch_init(PIECE, 0, 1)

    def about(self) -> str:
        return "llama.cpp, " + lib.llama_print_system_info().decode().strip()

    def prefill(self, prompt: list[int]) -> float:
        self._clear()
        start = time.perf_counter()
        self._prompts([prompt])
        return time.perf_counter() - start

    def decode(self, prompt: list[int], new: int) -> float:
        self.prefill(prompt)
        start = time.perf_counter()
        for position in range(len(prompt), len(prompt) + new):
            self._step([(prompt[0], position, 0)])
        return time.perf_counter() - start

    def batch(self, prompts: list[list[int]], new: list[int]) -> float:
        self._clear()
        start = time.perf_counter()
        self._prompts(prompts)
        for step in range(1, max(new)):  # the prompt gave the first token
            going = [s for s, count in enumerate(new) if step < count]
            self._step([(7, len(prompts[s]) + step - 1, s) for s in going])
        return time.perf_counter() - start

    def _prompts(self, prompts: list[list[int]]) -> None:
        rows = [(t, at, s) for s, prompt in enumerate(prompts) for at, t in enumerate(prompt)]
        for first in range(0, len(rows), PIECE):
            self._step(rows[first : first + PIECE])

    def _step(self, rows: Iterable[Row]) -> None:
        rows, batch = list(rows), self.piece
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            following = rows[i + 1] if i + 1 < len(rows) else None
            batch.logits[i] = following is None or following[2] != sequence
        code = lib.llama_decode(self.context, batch)
        assert code == 0, f"llama_decode gave {code}"

    def _clear(self) -> None:
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)


if __name__ == "__main__":
    serve(LlamaCpp)
