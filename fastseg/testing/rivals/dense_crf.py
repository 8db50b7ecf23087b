"""Filters of the dense CRF as plain PyTorch."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from ... import backend, ops
from ...reference import dense_crf_filters as reference


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


def dense_crf(unary: Tensor, image: Tensor, **options: Any) -> Tensor:
    """Mean field on lattices that are built and applied by plain PyTorch."""
    with backend("reference"):
        return ops.dense_crf(unary, image, **options)


def pydensecrf(unary: Tensor, image: Tensor, **options: Any) -> Tensor:
    """One image after the other, as the README of pydensecrf does it; the image is of whole numbers up to 255."""
    from pydensecrf import densecrf

    (n, labels, height, width), iterations = unary.shape, options["iterations"]
    q = torch.empty_like(unary)
    for i in range(n):
        crf = densecrf.DenseCRF2D(width, height, labels)
        crf.setUnaryEnergy(unary[i].flatten(1).contiguous().numpy())
        crf.addPairwiseGaussian(sxy=options["spatial_sigma"], compat=options["spatial_weight"])
        crf.addPairwiseBilateral(
            sxy=options["bilateral_sigma_xy"],
            srgb=options["bilateral_sigma_color"],
            rgbim=image[i].permute(1, 2, 0).to(torch.uint8).contiguous().numpy(),
            compat=options["bilateral_weight"],
        )
        q[i] = torch.from_numpy(numpy.asarray(crf.inference(iterations))).view(labels, height, width)
    return q


PLAIN: Mapping[str, Callable[..., Any]] = {
    "dense_crf": dense_crf,
    "gaussian_filter_2d": gaussian_filter_2d,
    "permutohedral_filter": permutohedral_filter,
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {"dense_crf": {"pydensecrf": pydensecrf}}
# The size of what it finds depends on the values: no graph holds it.
UNCOMPILED = ("dense_crf", "permutohedral_filter")
# What plain PyTorch takes many seconds for, and nobody does with it who has the library.
BY_LIBRARY = ("dense_crf",)
