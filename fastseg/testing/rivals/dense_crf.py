"""Filters of the dense CRF as plain PyTorch."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...reference import dense_crf as reference


def permutohedral_filter(values: Tensor, features: Tensor, *, normalization: str = "none") -> Tensor:
    """The lattice by `torch.unique`, sorts and gathers, as pure PyTorch packages have it."""
    return reference.permutohedral_filter(values, features, normalization, False)


def gaussian_filter_2d(values: Tensor, sigma: float, *, normalization: str = "none", method: str = "exact") -> Tensor:
    """Two depthwise convolutions, of as many taps as ours."""
    reach = min(math.ceil(sigma * math.sqrt(52 * math.log(2))), max(values.shape[2:]))
    at = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    taps = (-0.5 * (at / sigma).square()).exp().expand(values.shape[1], 1, 1, -1)

    def smooth(x: Tensor) -> Tensor:
        weights = taps[: x.shape[1]]
        down = F.conv2d(x, weights.transpose(2, 3), padding=(reach, 0), groups=x.shape[1])
        return F.conv2d(down, weights, padding=(0, reach), groups=x.shape[1])

    if normalization == "none":
        return smooth(values)
    sums = smooth(torch.ones_like(values[:1, :1]))
    if normalization == "before":
        return smooth(values / sums)
    if normalization == "after":
        return smooth(values) / sums
    return smooth(values * sums.rsqrt()) * sums.rsqrt()


PLAIN: Mapping[str, Callable[..., Any]] = {
    "gaussian_filter_2d": gaussian_filter_2d,
    "permutohedral_filter": permutohedral_filter,
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
# The size of what it finds depends on the values: no graph holds it.
UNCOMPILED = ("permutohedral_filter",)
