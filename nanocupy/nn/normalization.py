"""Norms besides `RMSNorm`, as `mlx.nn` has them. Channels are the last axis."""

from __future__ import annotations

from typing import Any

from nanocupy import core
from nanocupy.core import array, fast
from nanocupy.nn.module import Module


class _Norm(Module):
    """A norm of `dims` channels, with `eps` > 0, and optionally a weight and bias for each."""

    def __init__(self, dims: int, eps: float, affine: bool, bias: bool = True) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"[{type(self).__name__}] eps={eps}: expected a number above 0")
        self.dims, self.eps = dims, eps
        if affine:
            self.weight = core.ones((dims,))
            if bias:
                self.bias = core.zeros((dims,))

    def _scaled(self, x: array) -> array:
        return self.weight * x + self.bias if "weight" in self else x

    def _extra_repr(self) -> str:
        return f"{self.dims}, eps={self.eps}, affine={'weight' in self}"


class LayerNorm(_Norm):
    """(x - mean) / deviation along the last axis (https://arxiv.org/abs/1607.06450).

    Args:
        affine: whether to multiply by a weight, and with `bias` to add a bias.
    """

    def __init__(
        self, dims: int, eps: float = 1e-5, affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__(dims, eps, affine, bias)

    def __call__(self, x: array) -> array:
        return fast.layer_norm(x, self.get("weight"), self.get("bias"), self.eps)


class InstanceNorm(_Norm):
    """(x - mean) / deviation of each channel of each example of x [N, ..., C]
    (https://arxiv.org/abs/1607.08022)."""

    def __init__(self, dims: int, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__(dims, eps, affine)

    def __call__(self, x: array) -> array:
        if x.ndim < 3:
            raise ValueError(f"[InstanceNorm] x {list(x.shape)}: expected [N, ..., C]")
        rows = x.reshape(x.shape[0], -1, x.shape[-1]).swapaxes(1, 2)
        normal = fast.layer_norm(rows, None, None, self.eps)
        return self._scaled(normal.swapaxes(1, 2).reshape(x.shape))


class GroupNorm(_Norm):
    """(x - mean) / deviation of groups of channels of x [N, ..., C]
    (https://arxiv.org/abs/1803.08494).

    Args:
        num_groups: a divisor of `dims`.
        pytorch_compatible: a group is neighbouring channels, as in PyTorch; otherwise every
            `num_groups`-th channel.
    """

    def __init__(
        self,
        num_groups: int,
        dims: int,
        eps: float = 1e-5,
        affine: bool = True,
        pytorch_compatible: bool = False,
    ) -> None:
        super().__init__(dims, eps, affine)
        if num_groups < 1 or dims < 1 or dims % num_groups:
            raise ValueError(
                f"[GroupNorm] {dims} channels in {num_groups} groups: expected groups that divide "
                "the channels"
            )
        self.num_groups, self.pytorch_compatible = num_groups, pytorch_compatible

    def __call__(self, x: array) -> array:
        batch, size = x.shape[0], self.dims // self.num_groups
        if self.pytorch_compatible:
            parts = x.reshape(batch, -1, self.num_groups, size).transpose(0, 2, 1, 3)
        else:
            parts = x.reshape(batch, -1, size, self.num_groups).transpose(0, 3, 1, 2)
        rows = parts.reshape(batch, self.num_groups, -1)
        normal = fast.layer_norm(rows, None, None, self.eps).reshape(parts.shape)
        back = (0, 2, 1, 3) if self.pytorch_compatible else (0, 2, 3, 1)
        return self._scaled(normal.transpose(*back).reshape(x.shape))

    def _extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {super()._extra_repr()}, "
            f"pytorch_compatible={self.pytorch_compatible}"
        )


class BatchNorm(_Norm):
    """(x - mean) / deviation of x [N, (H, (W,)) C], both from training
    (https://arxiv.org/abs/1502.03167); without `track_running_stats` those of x itself."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, affine)
        self.num_features, self.momentum = num_features, momentum
        self.track_running_stats = track_running_stats
        if track_running_stats:
            self.running_mean, self.running_var = (
                core.zeros((num_features,)),
                core.ones((num_features,)),
            )
            self._freeze_stats()

    def _freeze_stats(self) -> Module:
        """Freeze the running statistics, which are not trainable."""
        return self.freeze(keys=["running_mean", "running_var"], recurse=False)

    def unfreeze(self, **how: Any) -> Module:
        super().unfreeze(**how)
        return self._freeze_stats()

    def __call__(self, x: array) -> array:
        if not 2 <= x.ndim <= 4:
            raise ValueError(f"[BatchNorm] x {list(x.shape)}: expected 2 to 4 dimensions")
        if self.track_running_stats:
            mean, var = self.running_mean, self.running_var
        else:
            axes = tuple(range(x.ndim - 1))
            mean, var = core.mean(x, axes), core.var(x, axes)
        return self._scaled((x - mean) * core.rsqrt(var + self.eps))
