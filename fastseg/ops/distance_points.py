"""Hausdorff distances of point sets."""

import math

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import distance_points as reference
from .arguments import brief, check_devices

MOST_DIMS = 8


def directed_hausdorff(
    points_a: Tensor, points_b: Tensor, *, return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Compute how far the points of one set are from another set at most.

    .. math:: h(A, B) = \max_{a \in A} \min_{b \in B} \lVert a - b \rVert

    Args:
        points_a: [..., N, d], float32 or float64, with 1 to 8 coordinates; leading dimensions are independent sets.
        points_b: [..., M, d], likewise.
        return_indices: also return the two points that are this far apart, of several the first of `points_a` and the
            first of `points_b`.

    Returns:
        Distances [...] in the dtype of the points: 0 where `points_a` is empty, else +inf where `points_b` is. With
        ``return_indices`` also int64 [..., 2], -1 where there are none. The undirected distance is the larger of both
        directions.

    Memory: a tree of `points_b`, about as large again. Gradient: none. Devices: CPU compiled, others through the
    reference. Errors: `ValueError` naming the argument for a wrong shape or dtype; coordinates that are not finite
    raise.

    Source: Taha and Hanbury 2015, "An efficient algorithm for calculating the exact Hausdorff distance", for the early
    break; here over a k-d tree.

    Example:
        >>> directed_hausdorff(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0]]), return_indices=True)
        (tensor(5.), tensor([1, 0]))
    """
    op = "directed_hausdorff"
    for argument, x in (("points_a", points_a), ("points_b", points_b)):
        if not isinstance(x, Tensor) or x.dim() < 2 or x.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"fastseg::{op}: {argument} must be float32 or float64 [..., N, d], got {brief(x)}")
    like = (*points_a.shape[:-2], points_b.shape[-2], points_a.shape[-1])
    if points_b.shape != like or points_b.dtype != points_a.dtype or not 1 <= like[-1] <= MOST_DIMS:
        raise ValueError(f"fastseg::{op}: points_b must have the batch, dtype and 1 to {MOST_DIMS} coordinates of "
                         f"points_a {brief(points_a)}, got {brief(points_b)}")  # fmt: skip
    check_devices(op, points_a, points_b=points_b)
    batch = points_a.shape[:-2]
    sets = [x.reshape(math.prod(batch), *x.shape[-2:]) for x in (points_a, points_b)]
    distance, indices = call(op, *sets)
    return (distance.view(batch), indices.view(*batch, 2)) if return_indices else distance.view(batch)


declare(
    "directed_hausdorff(Tensor points_a, Tensor points_b) -> (Tensor, Tensor)",
    reference=reference.directed_hausdorff,
    fake=lambda a, b: (a.new_empty(a.shape[:1]), a.new_empty((a.shape[0], 2), dtype=torch.int64)),
    dtypes=(torch.float32, torch.float64),
    per_sample=True,
    **not_differentiable("directed_hausdorff"),
)
