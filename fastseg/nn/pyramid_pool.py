"""Spatial pyramid pooling, the layer that makes a vector of fixed length from a map of any size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.ops.arguments import checked_choice
from fastseg.ops.pyramid_pool import MODES, pyramid_pool


class SpatialPyramidPool(nn.Module):
    """Pool a map into n x n bins for every n of ``bins`` and stack all bins into one vector.

    ``y = [vec(pool_1(x)); vec(pool_2(x)); vec(pool_4(x))]``: levels in the order of ``bins``, each flattened from
    ``[C, n, n]``, so that ``y[:, C * offset + c * n * n + i * n + j]`` is bin ``(i, j)`` of channel ``c``, with the
    sum of the squares before ``n`` as ``offset``. The weights of a linear layer behind it depend on this order. Of
    ``(1, 2, 4)`` the vector has ``21 * C`` values. No parameters; gradients as in :func:`fastseg.ops.pyramid_pool`.

    Args:
        bins: sides of the grids; the paper's classifiers use (6, 3, 2, 1) and (4, 3, 2, 1) too.
        mode: "max" or "mean".

    Source: He et al. 2014, "Spatial Pyramid Pooling in Deep Convolutional Networks" (arXiv 1406.4729), section 2.2;
    with the bins of adaptive pooling, which fit every size of map, in place of the paper's window and stride.
    """

    def __init__(self, bins: Sequence[int] = (1, 2, 4), mode: str = "max") -> None:
        super().__init__()
        checked_choice("SpatialPyramidPool", "mode", mode, MODES)
        self.bins, self.mode = tuple(bins), mode

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C * sum(n * n for n in bins)]``."""
        return torch.cat([level.flatten(1) for level in pyramid_pool(x, self.bins, self.mode)], 1)

    def extra_repr(self) -> str:
        return f"bins={self.bins}, mode={self.mode!r}"
