"""Recurrent layers over x [N, L, D] or [L, D], as `mlx.nn` has them."""

from __future__ import annotations

from collections.abc import Callable

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module


class RNN(Module):
    """h = nonlinearity(Wxh x + Whh h + bias). Returns every h, [..., L, H].

    Args:
        nonlinearity: None: tanh.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Callable[[array], array] | None = None,
    ) -> None:
        super().__init__()
        if nonlinearity is not None and not callable(nonlinearity):
            raise ValueError(f"[RNN] nonlinearity={nonlinearity!r}: expected a function")
        self.nonlinearity = nonlinearity or core.tanh
        self.hidden_size = hidden_size
        self.Wxh = core.zeros((hidden_size, input_size))
        self.Whh = core.zeros((hidden_size, hidden_size))
        self.bias = core.zeros((hidden_size,)) if bias else None

    def __call__(self, x: array, hidden: array | None = None) -> array:
        inputs, steps = _projected(x, self.Wxh, self.bias), []
        for time in range(x.shape[-2]):
            step = inputs[..., time, :]
            hidden = self.nonlinearity(step if hidden is None else step + hidden @ self.Whh.T)
            steps.append(hidden)
        return core.stack(steps, axis=-2)

    def _extra_repr(self) -> str:
        return _described(self.Wxh, self.hidden_size, self.bias)


class GRU(Module):
    """A gated recurrent unit (https://arxiv.org/abs/1406.1078). Returns every h, [..., L, H].

    Wx [3H, D], Wh [3H, H], b [3H]: of the reset, update and new gates; bhn [H]: of h in the new.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.Wx = core.zeros((3 * hidden_size, input_size))
        self.Wh = core.zeros((3 * hidden_size, hidden_size))
        self.b = core.zeros((3 * hidden_size,)) if bias else None
        self.bhn = core.zeros((hidden_size,)) if bias else None

    def __call__(self, x: array, hidden: array | None = None) -> array:
        inputs, steps = _projected(x, self.Wx, self.b), []
        if hidden is None:
            hidden = core.zeros((*x.shape[:-2], self.hidden_size), x.dtype)
        for time in range(x.shape[-2]):
            xr, xz, xn = core.split(inputs[..., time, :], 3, axis=-1)
            hr, hz, hn = core.split(hidden @ self.Wh.T, 3, axis=-1)
            reset, update = core.sigmoid(xr + hr), core.sigmoid(xz + hz)
            new = core.tanh(xn + reset * (hn if self.bhn is None else hn + self.bhn))
            hidden = (1 - update) * new + update * hidden
            steps.append(hidden)
        return core.stack(steps, axis=-2)

    def _extra_repr(self) -> str:
        return _described(self.Wx, self.hidden_size, self.b)


class LSTM(Module):
    """Long short-term memory (https://doi.org/10.1162/neco.1997.9.8.1735).

    Returns every h and every cell, [..., L, H] each. Wx [4H, D], Wh [4H, H], bias [4H]: of the
    input, forget, cell and output gates.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.Wx = core.zeros((4 * hidden_size, input_size))
        self.Wh = core.zeros((4 * hidden_size, hidden_size))
        self.bias = core.zeros((4 * hidden_size,)) if bias else None

    def __call__(
        self, x: array, hidden: array | None = None, cell: array | None = None
    ) -> tuple[array, array]:
        inputs, steps, cells = _projected(x, self.Wx, self.bias), [], []
        for time in range(x.shape[-2]):
            gates = inputs[..., time, :]
            if hidden is not None:
                gates = gates + hidden @ self.Wh.T
            i, f, g, o = core.split(gates, 4, axis=-1)
            added = core.sigmoid(i) * core.tanh(g)
            cell = added if cell is None else core.sigmoid(f) * cell + added
            hidden = core.sigmoid(o) * core.tanh(cell)
            steps.append(hidden)
            cells.append(cell)
        return core.stack(steps, axis=-2), core.stack(cells, axis=-2)

    def _extra_repr(self) -> str:
        return _described(self.Wx, self.hidden_size, self.bias)


def _projected(x: array, weight: array, bias: array | None) -> array:
    y = x @ weight.T
    return y if bias is None else y + bias


def _described(weight: array, hidden: int, bias: array | None) -> str:
    return f"input_dims={weight.shape[1]}, hidden_size={hidden}, bias={bias is not None}"
