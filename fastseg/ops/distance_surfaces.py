"""Distances between the boundaries of objects."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .._registry import INTEGERS, call, declare
from ..reference import distance_surfaces as reference
from .arguments import brief, check_devices, checked_choice
from .distance_arguments import as_labels, as_mask, checked_classes, checked_space, images, volume_spacing

BOUNDARIES = ("inner", "dual")


class SurfaceDistances(NamedTuple):
    """Distances of boundary elements, object after object: those of the prediction, then those of the target.

    Args:
        distances: float64 [M], of each boundary element to the other boundary, +inf where that is empty.
        weights: float64 [M], lengths or areas of the elements of the dual boundary; [0] for the inner one.
        counts: int64 [..., 2], elements of the prediction and of the target.
    """

    distances: Tensor
    weights: Tensor
    counts: Tensor


def surface_distances(
    prediction: Tensor,
    target: Tensor,
    *,
    spatial_dims: int | None = None,
    spacing: Sequence[float] | None = None,
    boundary: Literal["inner", "dual"] = "inner",
    classes: Sequence[int] | None = None,
) -> SurfaceDistances:
    r"""Measure from each boundary element of one object to the boundary of the other, both ways.

    .. math:: d_a = \min_{b \in \partial B} \lVert s \odot (a - b) \rVert, \quad a \in \partial A \qquad\text{and}\qquad
        d_b = \min_{a \in \partial A} \lVert s \odot (a - b) \rVert, \quad b \in \partial B

    with s the spacing. Beyond the image everything is background.

    Args:
        prediction: mask [..., H, W] or [..., D, H, W], nonzero inside; leading dimensions (batch, classes) are
            independent. With `classes` it is a label map.
        target: likewise, of the same shape.
        spatial_dims: 2 or 3, as in `distance_transform`.
        spacing: size of an element along each spatial dimension; None is 1 along all.
        boundary: "inner", the elements inside that share a face with one outside, at their centres; "dual", the corners
            between elements inside and outside, each with the length or area of the boundary around it, by marching
            squares or cubes (the convention of the surface-distance package).
        classes: labels to measure, each against all others; the results get a dimension for them, as the last but the
            counts' own.

    Returns:
        `SurfaceDistances`: all lists in one, with the lengths of each.

    Memory: some 14 bytes for each element of the box around both objects, of one large box at a time, or one for each
    thread; never a matrix of distances. Gradient: none. Devices: CPU compiled, others through the reference; the
    lengths of the results depend on the data, so GPUs are waited for. Errors: `ValueError` naming the argument for a
    wrong dtype, rank, spacing, or shapes that differ.

    Source: Nikolov et al. 2018 (arXiv 1809.04430) for the dual boundary.

    Example:
        >>> a, b = torch.zeros(8, 8), torch.zeros(8, 8)
        >>> a[2:5, 2:5], b[2:5, 3:7] = 1, 1
        >>> found = surface_distances(a, b)
        >>> found.counts, found.distances[:8]
        (tensor([ 8, 10]), tensor([1., 0., 0., 1., 1., 1., 0., 0.], dtype=torch.float64))
    """
    op = "surface_distances"
    dims, sizes = checked_space(op, "prediction", prediction, spatial_dims, spacing)
    checked_space(op, "target", target, dims, None)
    if prediction.shape != target.shape:
        raise ValueError(f"fastseg::{op}: target must have the shape of prediction {list(prediction.shape)}, "
                         f"got {brief(target)}")  # fmt: skip
    check_devices(op, prediction, target=target)
    checked_choice(op, "boundary", boundary, BOUNDARIES)
    labels = None if classes is None else checked_classes(op, classes)
    of = as_mask if labels is None else lambda x: as_labels(op, "prediction and target", x)
    weights = reference.element_weights(sizes).to(prediction.device) if boundary == "dual" else None
    distances, pieces, counts = call(op, images(of(prediction), dims), images(of(target), dims), labels or [], dims,
                                     volume_spacing(sizes), weights)  # fmt: skip
    leading = prediction.shape[: prediction.dim() - dims]
    objects = leading if labels is None else (*leading, len(labels))
    return SurfaceDistances(distances, pieces, counts.view((*objects, 2)))


def _fake(
    prediction: Tensor, target: Tensor, classes: Any, spatial_dims: int, spacing: Any, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    counts = prediction.new_empty((prediction.shape[0] * max(len(classes), 1), 2), dtype=torch.int64)
    distances = prediction.new_empty((size,), dtype=torch.float64)
    return distances, prediction.new_empty((size if weights is not None else 0,), dtype=torch.float64), counts


declare(
    "surface_distances(Tensor prediction, Tensor target, int[] classes, int spatial_dims, float[] spacing,"
    " Tensor? weights) -> (Tensor, Tensor, Tensor)",
    reference=reference.surface_distances,
    fake=_fake,
    dtypes=INTEGERS,
)
