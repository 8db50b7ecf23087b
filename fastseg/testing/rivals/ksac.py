"""Kernel-sharing atrous convolution as a composition of plain PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "relu6": F.relu6,
    "silu": F.silu,
}


def _fused(parts: list[Tensor], fusion: str) -> Tensor:
    if fusion == "concat":
        return torch.cat(parts, 1)
    out = parts[0]
    for part in parts[1:]:
        out = out + part
    return out


def ksac_conv2d(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    fusion: str = "sum",
    activation: str = "relu",
) -> Tensor:
    """A dilated convolution for each rate, each with its affine step and activation."""
    parts = []
    for k, r in enumerate(rates):
        y = F.conv2d(x, weight, padding=r, dilation=r)
        if scale is not None:
            y = y * scale[k, :, None, None]
        if shift is not None:
            y = y + shift[k, :, None, None]
        parts.append(ACTIVATIONS[activation](y))
    return _fused(parts, fusion)


def ksac_conv2d_train(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float = 1e-5,
    fusion: str = "sum",
    activation: str = "relu",
) -> tuple[Tensor, Tensor, Tensor]:
    """A dilated convolution and a batch norm for each rate, and the statistics, which are not asked for twice."""
    parts, means, variances = [], [], []
    for k, r in enumerate(rates):
        y = F.conv2d(x, weight, padding=r, dilation=r)
        means.append(y.mean((0, 2, 3)))
        variances.append(y.var((0, 2, 3), correction=0))
        parts.append(ACTIVATIONS[activation](F.batch_norm(y, None, None, gamma[k], beta[k], True, 0.0, eps)))
    return _fused(parts, fusion), torch.stack(means), torch.stack(variances)


PLAIN: Mapping[str, Callable[..., Any]] = {f.__name__: f for f in (ksac_conv2d, ksac_conv2d_train)}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
WEIGHTS: Mapping[str, tuple[int | str, ...]] = {
    "ksac_conv2d": (1, "scale", "shift"),
    "ksac_conv2d_train": (1, 3, 4),
}
