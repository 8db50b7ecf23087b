"""Adaptive pooling into several grids at once, in one read of the map."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import pyramid_pool as reference
from ..reference.upsample import memory_format
from .arguments import brief, check_map, checked_choice, is_whole, pixels

MODES = ("max", "mean")


def pyramid_pool(x: Tensor, bins: Sequence[int] = (1, 2, 4), mode: str = "max") -> tuple[Tensor, ...]:
    r"""Pool a map into n x n bins, for every n of `bins`.

    .. math:: y^n_{ncij} = \max_{a \in A_i,\, b \in B_j} x_{ncab} \quad\text{or}\quad
        \frac{1}{|A_i| |B_j|} \sum_{a \in A_i,\, b \in B_j} x_{ncab}

    with :math:`A_i = [\lfloor i h / n \rfloor, \lceil (i + 1) h / n \rceil)` and likewise :math:`B_j`:
    `adaptive_max_pool2d(x, n)` or `adaptive_avg_pool2d(x, n)`, but all levels in one read of the map. Bins of a level
    overlap where n does not divide the map, and more so where the map is smaller than n.

    Args:
        x: [N, C, h, w], float32, float64, bfloat16 or float16, of any strides; at least one pixel.
        bins: sides of the grids, each from 1 to 32767: (1, 2, 4) for the SPP vector, (1, 2, 3, 6) for PSPNet.
        mode: "max" or "mean".

    Returns:
        A map [N, C, n, n] for each n, in the dtype of `x`. They are views of one tensor [N, C * sum n^2], level after
        level, and torch lets nobody change one in place where a gradient is recorded. Half precision is computed in
        float32 and rounded once. NaN wins a maximum.

    Memory: the results, of maxima their places (4 bytes each), and a scratch of some rows and cells for each thread.
    Gradient: exact, once differentiable; that of a maximum goes to the first of equal values, in the order of rows, and
    to the last NaN, as in PyTorch. Devices: CPU compiled, others through the reference. Errors: `ValueError` naming the
    argument for a wrong rank, dtype, grid or mode.

    Source: He et al. 2014, "Spatial Pyramid Pooling in Deep Convolutional Networks" (arXiv 1406.4729), section 2.2;
    Zhao et al. 2017, "Pyramid Scene Parsing Network" (arXiv 1612.01105), section 3.2.

    Example:
        >>> [list(level.shape) for level in pyramid_pool(torch.randn(1, 256, 13, 13))]
        [[1, 256, 1, 1], [1, 256, 2, 2], [1, 256, 4, 4]]
    """
    check_map("pyramid_pool", "x", x)
    if not 0 < x.shape[2] * x.shape[3] < 2**31:
        raise ValueError(f"fastseg::pyramid_pool: x must have from 1 to 2^31 - 1 pixels, got {brief(x)}")
    sides = list(bins) if isinstance(bins, Sequence) else []
    if not sides or not all(is_whole(n) and 1 <= n < 2**15 for n in sides):
        raise ValueError(f"fastseg::pyramid_pool: bins must be whole numbers from 1 to 32767, got {bins!r}")
    maximum = checked_choice("pyramid_pool", "mode", mode, MODES) == "max"
    flat, _ = call("pyramid_pool", x, sides, maximum)
    batch, channels = x.shape[:2]
    parts = flat.split([channels * n * n for n in sides], 1)
    return tuple(part.view(batch, channels, n, n) for part, n in zip(parts, sides, strict=True))


def _total(bins: Sequence[int]) -> int:
    return sum(n * n for n in bins)


def _fake(x: Tensor, bins: Sequence[int], maximum: bool) -> tuple[Tensor, Tensor]:
    size = x.shape[1] * _total(bins)
    return x.new_empty((x.shape[0], size)), x.new_empty((x.shape[0], size if maximum else 0), dtype=torch.int32)


def _fake_backward(
    grad: Tensor, positions: Tensor, bins: Sequence[int], h: int, w: int, maximum: bool, channels_last: bool
) -> Tensor:
    shape = grad.shape[0], grad.shape[1] // _total(bins), h, w
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return grad.new_empty(shape).contiguous(memory_format=layout)


def _save_positions(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, bins, maximum = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.rest = bins, *x.shape[2:], maximum, memory_format(x) is torch.channels_last


def _backward(ops: Any, ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    return ops.pyramid_pool_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None


declare(
    "pyramid_pool(Tensor x, int[] bins, bool maximum) -> (Tensor, Tensor)",
    reference=reference.pyramid_pool,
    fake=_fake,
    setup_context=_save_positions,
    backward=_backward,
    per_sample=True,
    flops=lambda shape, *_, **__: pixels(shape, *shape[2:]),
)
declare(
    "pyramid_pool_backward(Tensor grad, Tensor positions, int[] bins, SymInt height, SymInt width, bool maximum,"
    " bool channels_last) -> Tensor",
    reference=reference.pyramid_pool_backward,
    fake=_fake_backward,
    per_sample=True,
    flops=lambda shape, *_, **__: int(shape[0] * shape[1]),
    **not_differentiable("pyramid_pool_backward"),
)
