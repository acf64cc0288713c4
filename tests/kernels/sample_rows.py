"""Rows to sample from, on any device: the kernel's inputs, its outputs and the reference's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nanocupy.device import protocols
from nanocupy.kernels import launches_of, sample

INF = float("inf")
ALMOST_ONE = 1 - 2.0**-24
NO_EDITS: list[tuple[int, float, float]] = []


class Rows:
    """Rows of logits [rows, V], each with its settings; one value serves all rows."""

    def __init__(
        self,
        logits: Any,
        *,
        temperature: Any = 1.0,
        top_p: Any = 1.0,
        min_p: Any = 0.0,
        uniform: Any = 0.5,
        top_k: Any = 0,
        target: Any = -1,
        edits: dict[int, list[tuple[int, float, float]]] | None = None,
    ) -> None:
        self.logits = np.atleast_2d(np.asarray(logits, np.float32))
        count = len(self.logits)
        columns = [np.broadcast_to(x, count) for x in (temperature, top_p, min_p, uniform)]
        self.floats = np.stack(columns, 1).astype(np.float32)
        self.top_k = np.broadcast_to(top_k, count).astype(np.int32)
        self.target = np.broadcast_to(target, count).astype(np.int32)
        per_row = [(edits or {}).get(row, NO_EDITS) for row in range(count)]
        flat = [edit for row in per_row for edit in row] or [(0, 1.0, 0.0)]
        start = np.cumsum([0, *map(len, per_row)]).astype(np.int32)
        ids, mul, add = (np.array(x) for x in zip(*flat, strict=True))
        self.edits = (start, ids.astype(np.int32), *(x.astype(np.float32) for x in (mul, add)))

    def build(self, device: Any) -> Any:
        kernel = launches_of(device.kind).sample
        count, vocabulary = self.logits.shape
        token, lse = device.empty((count + 1,), np.int32), device.empty((count + 1,), np.float32)
        names = ("floats", "top_k", "target", "edit_start", "edits")
        arrays = (
            self.floats,
            self.top_k,
            self.target,
            self.edits[0],
            sample.pack_edits(*self.edits[1:]),
        )
        buffers = SimpleNamespace(
            **{name: device.asarray(x) for name, x in zip(names, arrays, strict=True)}
        )
        logits = device.asarray(self.logits)
        rows = protocols.Rows(count + 1, device.asarray(np.array([count])))
        sizes = {"vocabulary": vocabulary, "scratch": kernel.scratch(device, int(rows), vocabulary)}
        launch = kernel.launch(device, token, lse, logits, buffers, rows, **sizes)
        return [launch], [token, lse, logits]

    def sample(self, run: Any, **how: Any) -> tuple[np.ndarray, np.ndarray]:
        token, lse, logits = run(self.build, **how)
        assert token[-1] == 0 and lse[-1] == 0  # the row past the end is left alone
        assert logits.tobytes() == self.logits.tobytes()
        return token[:-1], lse[:-1]

    def reference(self, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """With every uniform moved by `shift`: tokens ascend with it, so two shifts enclose one."""
        floats = self.floats.astype(np.float64)
        floats[:, 3] = np.clip(floats[:, 3] + shift, 0, ALMOST_ONE)
        return sample.reference(self.logits, floats, self.top_k, self.target, self.edits)

    def check(self, run: Any) -> np.ndarray:
        """The kernel agrees with the reference; the tokens."""
        token, lse = self.sample(run)
        np.testing.assert_allclose(lse, self.reference()[1], rtol=1e-5, atol=1e-6)
        low, high = (self.reference(shift)[0] for shift in (-1e-6, 1e-6))
        assert ((low <= token) & (token <= high)).all(), (token, low, high)
        return token


def normal(*shape: int, scale: float = 3, seed: int = 0) -> np.ndarray:
    """Logits in steps of 1/8, so that there are ties, and no near-ties."""
    x = np.random.default_rng(seed).standard_normal(shape) * scale
    return np.asarray(np.round(x * 8) / 8, np.float32)


def spread(count: int) -> np.ndarray:
    """Uniforms over all of [0, 1), both ends too."""
    return np.append(np.arange(count - 1) / count, ALMOST_ONE)


def drawn(run: Any, logits: Any, count: int = 200, **settings: Any) -> set[int]:
    """The tokens that some uniform draws."""
    logits = np.tile(np.asarray(logits, np.float32), (count, 1))
    return set(Rows(logits, uniform=spread(count), **settings).check(run).tolist())


SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 1e-30, 0.3, 1.0, 2.5, 100.0]),
        "top_k": st.sampled_from([0, 1, 2, 5, 40, 1000]),
        "top_p": st.sampled_from([1e-3, 0.1, 0.523, 0.9, 0.9871, 1.0]),
        "min_p": st.sampled_from([0.0, 1e-3, 0.0531, 0.7, 1.0]),
        "uniform": st.sampled_from([0.0, ALMOST_ONE]) | st.floats(0, ALMOST_ONE),
    }
)
