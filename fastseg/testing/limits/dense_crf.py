"""Limits of the Gaussian filters, and of what a lattice's state says of its points: the first and the last sample."""

import math

import torch
from torch import Tensor

from ..limit import Limit, zeros_but_ends

raw = torch.ops.fastseg
APART = -math.exp(-0.5)  # the kernel of two points with a deviation between them, times what is between them


def _smoothed() -> Tensor:
    return raw.gaussian_filter_2d(zeros_but_ends(1, 2**15 + 1, 1, 2**8, 2**8), [0.5, 0.5], "none")


def _paired() -> Tensor:
    """Two points that are far apart, of more than 2^30 channels."""
    return raw.gaussian_filter(zeros_but_ends(1, 1, 2**30 + 1, 2), torch.tensor([[[0.0, 99.0]]]))


def _differentiated() -> Tensor:
    """Of two points, one has the value and the other its gradient."""
    shape = 2**26 + 1, 16, 2
    values, grad = zeros_but_ends(1, *shape), zeros_but_ends(0, *shape)
    grad[0, 0, 1] = grad[-1, -1, 0] = 1
    return raw.gaussian_filter_gradient(grad, values, zeros_but_ends(1, shape[0], 1, 2))


def _diagonal() -> Tensor:
    """Lattices of one vertex, which is its own neighbour: half of it comes back along each axis."""
    n, points = 2**21 + 1, 2**7
    vertices = zeros_but_ends(0, n, points, 2, dtype=torch.int32)
    neighbours = zeros_but_ends(0, n * 2 * 2 * points * 2, dtype=torch.int32).view(n, 2, 2 * points, 2)
    count = zeros_but_ends(1, n, dtype=torch.int64)
    return raw.permutohedral_diagonal(vertices, zeros_but_ends(1, n, points, 2), neighbours, count)


LIMITS = (
    Limit("gaussian_filter_2d", "maps", _smoothed, 1, 1),
    Limit("gaussian_filter", "values", _paired, 1, 1),
    Limit("gaussian_filter_gradient", "values", _differentiated, APART, APART),
    Limit("permutohedral_diagonal", "neighbours", _diagonal, 1, 1),
)

_WHOLE = "torch fills tables and sorts corners, whole: beyond 32 bits that is tens of gigabytes"
UNLIMITED = dict.fromkeys(("permutohedral_lattice", "permutohedral_apply", "permutohedral_filter", "dense_crf"), _WHOLE)
