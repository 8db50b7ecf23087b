"""Exact distance transforms, of masks and of labels."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .._registry import INTEGERS, call, declare
from ..reference import distance as reference
from .arguments import checked_choice
from .distance_arguments import as_labels, as_mask, checked_space, images, volume_spacing

SIGNED = ("symmetric", "kervadec")


def distance_transform(
    mask: Tensor,
    *,
    spatial_dims: int | None = None,
    spacing: Sequence[float] | None = None,
    metric: Literal["euclidean", "taxicab", "chessboard"] = "euclidean",
    squared: bool = False,
    signed: Literal[False, "symmetric", "kervadec"] = False,
    labels: bool = False,
    return_indices: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Compute the distance from each nonzero element to the nearest zero, exactly.

    .. math:: D_p = \min_{q:\, m_q = 0} \Big( \sum_k s_k^2 (p_k - q_k)^2 \Big)^{1/2}

    and 0 where :math:`m_p = 0`; with ``labels`` the minimum is over all q whose label is not that of p.

    Args:
        mask: [..., H, W] or [..., D, H, W], boolean, integer or floating; leading dimensions are independent images.
            With ``labels`` it holds labels (boolean or integer), of which 0 is one like the others.
        spatial_dims: 2 or 3, the number of dimensions that are space. None takes it from `spacing`, or 2 for a mask of
            two dimensions; otherwise it has to be given.
        spacing: size of an element along each spatial dimension; None is 1 along all.
        metric: "euclidean"; "taxicab", the sum of :math:`s_k |p_k - q_k|`; "chessboard", the largest of them.
        squared: leave out the root of the Euclidean distance. At unit spacing squares are exact integers: in float32 up
            to 2^24, in float64 always.
        signed: the distance to the other side of the boundary, positive outside of the mask and negative inside.
            "symmetric" has no zero; "kervadec" is nearer by 1 inside, :math:`-(D - 1)`, so that the innermost elements
            of the boundary are 0, and 0 everywhere in an image without a boundary, as the boundary loss wants it.
        labels: the distance to the nearest element of another label, for all labels in one pass.
        return_indices: also return where the nearest element is; of several the one with the lowest flat index.
        dtype: of the distances, float32 or float64.

    Returns:
        Distances of the shape of `mask`, +inf where an image has nothing to measure to. With ``return_indices`` also
        int64 [spatial_dims, ...], its coordinates, -1 where there is none.

    Memory: the result, 4 or 8 bytes per element beside it where it is float64 or has indices, a scratch of lines.
    Gradient: none. Devices: CPU compiled, others through the reference. Errors: `ValueError` naming the argument for a
    wrong dtype, rank, spacing or combination; labels beyond int32 raise.

    Source: separable minima as Felzenszwalb and Huttenlocher 2012, "Distance Transforms of Sampled Functions", and
    Meijster et al. 2000; Kervadec et al. 2019, "Boundary loss" (arXiv 1812.07032) for the signs.

    Example:
        >>> mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
        >>> distance_transform(mask, squared=True)
        tensor([[ 0.,  1.,  4.,  9.],
                [ 1.,  2.,  5., 10.]])
    """
    op = "distance_transform"
    dims, sizes = checked_space(op, "mask", mask, spatial_dims, spacing)
    checked_choice(op, "metric", metric, reference.METRICS)
    if signed is not False:
        checked_choice(op, "signed", signed, SIGNED)
    if signed and (labels or squared):
        raise ValueError(f"fastseg::{op}: signed must be False with labels or squared, got {signed!r}")
    if squared and metric != "euclidean":
        raise ValueError(f"fastseg::{op}: squared must be False with metric {metric!r}, got True")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"fastseg::{op}: dtype must be torch.float32 or torch.float64, got {dtype}")
    given = as_labels(op, "mask", mask) if labels else as_mask(mask if not signed else mask != 0)
    volume = images(given, dims)
    distance, index = call(op, volume, volume_spacing(sizes), metric, squared, bool(labels or signed), return_indices,
                           dtype)  # fmt: skip
    if signed:
        distance = _signed(distance, volume != 0, signed)
    distance = distance.view(mask.shape)
    if not return_indices:
        return distance
    return distance, _coordinates(index, volume.shape[4 - dims :]).view(dims, *mask.shape)


def _signed(distance: Tensor, inside: Tensor, convention: str) -> Tensor:
    if convention == "symmetric":
        return torch.where(inside, -distance, distance)
    return torch.where(inside, 1 - distance, distance).masked_fill_(distance.isinf(), 0)


def _coordinates(index: Tensor, space: torch.Size) -> Tensor:
    """Flat indices -> one more dimension in front, of coordinates; -1 stays -1."""
    found, rest = [], index
    for size in reversed(space):
        found.append(rest.remainder(max(size, 1)))
        rest = rest.div(max(size, 1), rounding_mode="floor")
    return torch.stack(found[::-1]).masked_fill_(index < 0, -1)


def _fake(
    mask: Tensor, spacing: Any, metric: str, squared: bool, labels: bool, indices: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    index = mask.shape if indices else (mask.shape[0], 0)
    return mask.new_empty(mask.shape, dtype=dtype), mask.new_empty(index, dtype=torch.int64)


declare(
    "distance_transform(Tensor mask, float[] spacing, str metric, bool squared, bool labels, bool indices,"
    " ScalarType dtype) -> (Tensor, Tensor)",
    reference=reference.distance_transform,
    fake=_fake,
    dtypes=INTEGERS,
    per_sample=True,
)
