"""`Bilinear`: a form in two inputs, as `mlx.nn` has it."""

from __future__ import annotations

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module


class Bilinear(Module):
    """y_o = x1 W_o^T x2 (+ b_o), weight [output_dims, input2_dims, input1_dims]."""

    def __init__(
        self, input1_dims: int, input2_dims: int, output_dims: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = core.zeros((output_dims, input2_dims, input1_dims))
        if bias:
            self.bias = core.zeros((output_dims,))

    def __call__(self, x1: array, x2: array) -> array:
        out, second, first = self.weight.shape
        if x1.shape != (*x2.shape[:-1], first) or x2.shape[-1] != second:
            raise ValueError(
                f"[Bilinear] x1 {list(x1.shape)} and x2 {list(x2.shape)}: expected [..., {first}] "
                f"and [..., {second}]"
            )
        rows = x1.reshape(-1, first) @ self.weight.reshape(out * second, first).T
        forms = rows.reshape(-1, out, second) @ x2.reshape(-1, second, 1)
        y = forms.reshape(*x1.shape[:-1], out)
        return y + self.bias if "bias" in self else y

    def _extra_repr(self) -> str:
        out, second, first = self.weight.shape
        return (
            f"input1_dims={first}, input2_dims={second}, output_dims={out}, bias={'bias' in self}"
        )
