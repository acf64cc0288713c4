"""Convolutions, as `mlx.nn` has them: x [N, ..., in_channels], weight [out, kernel..., in]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nanocupy import core
from nanocupy.core import array
from nanocupy.nn.module import Module

Sizes = int | tuple[int, ...]


class _Convolution(Module):
    """A convolution of any rank.

    Args:
        kernel_size, stride, padding, dilation: a number, or one for each axis.
        groups: the number of independent parts that the channels are divided into.
    """

    rank: int
    function: Callable[..., array]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        **more: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"[{name}] {in_channels} channels to {out_channels} in {groups} groups: expected "
                "groups that divide both"
            )
        sizes = (kernel_size,) * self.rank if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(sizes) != self.rank:
            raise ValueError(f"[{name}] kernel_size={kernel_size}: expected {self.rank} numbers")
        self.weight = core.zeros((out_channels, *sizes, in_channels // groups))
        if bias:
            self.bias = core.zeros((out_channels,))
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self._more = more

    def __call__(self, x: array) -> array:
        how = {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
            "groups": self.groups, **self._more,
        }  # fmt: skip
        y = type(self).function(x, self.weight, **how)
        return y + self.bias if "bias" in self else y

    def _extra_repr(self) -> str:
        out, *kernel, into = self.weight.shape
        return (
            f"{into * self.groups}, {out}, kernel_size={tuple(kernel)}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"bias={'bias' in self}"
        )


class _Transposed(_Convolution):
    """A transposed convolution, with `output_padding` more elements at the far ends."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        output_padding: Sizes = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias,
            output_padding=output_padding,
        )  # fmt: skip


def _kind(base: type[_Convolution], name: str, rank: int, function: Any) -> type[_Convolution]:
    about = {"rank": rank, "function": staticmethod(function), "__doc__": base.__doc__}
    return type(name, (base,), {**about, "__module__": __name__})


Conv1d = _kind(_Convolution, "Conv1d", 1, core.conv1d)
Conv2d = _kind(_Convolution, "Conv2d", 2, core.conv2d)
Conv3d = _kind(_Convolution, "Conv3d", 3, core.conv3d)
ConvTranspose1d = _kind(_Transposed, "ConvTranspose1d", 1, core.conv_transpose1d)
ConvTranspose2d = _kind(_Transposed, "ConvTranspose2d", 2, core.conv_transpose2d)
ConvTranspose3d = _kind(_Transposed, "ConvTranspose3d", 3, core.conv_transpose3d)
