"""Atrous spatial pyramid pooling with its epilogues, in plain PyTorch."""

from collections.abc import Callable

import torch
from torch import Tensor

from .atrous_conv import convolved
from .conv import finished, widened
from .upsample import memory_format


def aspp_conv2d(
    x: Tensor,
    pointwise_weight: Tensor,
    branch_weights: list[Tensor],
    packed: list[Tensor],
    rates: list[int],
    pool_weight: Tensor | None,
    project_weight: Tensor,
    branch_scale: Tensor | None,
    branch_shift: Tensor | None,
    project_scale: Tensor | None,
    project_shift: Tensor | None,
    pooled: Tensor | None,
    convolve: Callable[..., Tensor] = convolved,
) -> Tensor:
    """x [N, C, H, W] -> [N, K, H, W]; `packed` changes nothing."""
    wide = widened(x)

    def branch(i: int, x: Tensor, weight: Tensor, rate: int) -> Tensor:
        side = weight.shape[2] // 2 * rate
        y = convolve(x, widened(weight), (1, 1), (side, side), (rate, rate), 1)
        scale, shift = (None if v is None else v[i] for v in (branch_scale, branch_shift))
        return finished(y, None, scale, shift, None, "relu")

    weights = [pointwise_weight, *branch_weights]
    maps = [branch(i, wide, w, r) for i, (w, r) in enumerate(zip(weights, [1, *rates], strict=True))]
    if pool_weight is not None:
        mean = wide.mean((2, 3)) if pooled is None else pooled.to(wide.dtype)
        maps.append(branch(len(weights), mean[:, :, None, None], pool_weight, 1).expand(-1, -1, *x.shape[2:]))
    y = convolve(torch.cat(maps, 1), widened(project_weight), (1, 1), (0, 0), (1, 1), 1)
    y = finished(y, None, project_scale, project_shift, None, "relu")
    return y.to(x.dtype).contiguous(memory_format=memory_format(x))
