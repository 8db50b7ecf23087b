"""Atrous spatial pyramid pooling as a composition of plain PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def aspp_conv2d(
    x: Tensor,
    pointwise_weight: Tensor,
    branch_weights: Sequence[Tensor],
    rates: Sequence[int],
    pool_weight: Tensor,
    project_weight: Tensor,
    *,
    branch_scale: Tensor,
    branch_shift: Tensor,
    project_scale: Tensor,
    project_shift: Tensor,
    packed: Sequence[Tensor] = (),
) -> Tensor:
    """Convolutions, the pool broadcast, a concatenation and a convolution; the weights need no packing."""

    def after(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return torch.relu(y * scale[:, None, None] + shift[:, None, None])

    maps = [F.conv2d(x, pointwise_weight)]
    maps += [F.conv2d(x, w, padding=r, dilation=r) for w, r in zip(branch_weights, rates, strict=True)]
    maps.append(F.conv2d(F.adaptive_avg_pool2d(x, 1), pool_weight))
    maps = [after(y, s, t) for y, s, t in zip(maps, branch_scale, branch_shift, strict=True)]
    maps[-1] = maps[-1].expand(-1, -1, x.shape[2], x.shape[3])
    return after(F.conv2d(torch.cat(maps, 1), project_weight), project_scale, project_shift)


PLAIN: Mapping[str, Callable[..., Any]] = {"aspp_conv2d": aspp_conv2d}
WEIGHTS: Mapping[str, tuple[int | str, ...]] = {
    "aspp_conv2d": (1, 2, 4, 5, "branch_scale", "branch_shift", "project_scale", "project_shift")
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
