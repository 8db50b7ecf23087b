"""Pyramid pooling in plain PyTorch: an adaptive pool for each level, flattened and stacked level after level."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def pyramid_pool(x: Tensor, bins: list[int], maximum: bool) -> tuple[Tensor, Tensor]:
    """x [N, C, h, w] -> the levels [N, C * sum n^2], and of maxima their places y * w + x (int32, same shape)."""
    wide = _wide(x)
    if x.numel() == 0:  # adaptive pools take no empty sizes
        size = x.shape[0], x.shape[1] * sum(n * n for n in bins)
        out, positions = wide.new_zeros(size) + 0 * wide.sum(), x.new_zeros(size)
    elif maximum:
        levels = [F.adaptive_max_pool2d(wide, n, return_indices=True) for n in bins]
        out, positions = (torch.cat([part.flatten(1) for part in parts], 1) for parts in zip(*levels, strict=True))
    else:
        out = torch.cat([F.adaptive_avg_pool2d(wide, n).flatten(1) for n in bins], 1)
        positions = out
    return out.to(x.dtype), (positions if maximum else positions[:, :0]).int()


def pyramid_pool_backward(
    grad: Tensor, positions: Tensor, bins: list[int], height: int, width: int, maximum: bool, channels_last: bool
) -> Tensor:
    """The adjoint: grad [N, C * sum n^2] -> [N, C, h, w]."""
    total = sum(n * n for n in bins)
    shape = grad.shape[0], grad.shape[1] // total, height, width
    out = _wide(grad).new_zeros(shape)
    sizes = [shape[1] * n * n for n in bins]
    if out.numel() == 0:
        pass
    elif maximum:
        for part, at in zip(_wide(grad).split(sizes, 1), positions.split(sizes, 1), strict=True):
            rows = part.reshape(*shape[:2], -1)
            out.flatten(2).scatter_add_(2, at.reshape(rows.shape).long(), rows)
    else:
        for n, part in zip(bins, _wide(grad).split(sizes, 1), strict=True):
            out += torch.ops.aten._adaptive_avg_pool2d_backward(part.reshape(*shape[:2], n, n), out)
    return out.to(grad.dtype).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
