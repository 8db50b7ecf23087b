"""Boundary IoU and boundary F1: how well outlines agree."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastseg import ops
from fastseg.metrics.labels import is_label
from fastseg.ops.arguments import brief, check_devices, checked_choice, is_whole
from fastseg.ops.distance_arguments import as_labels, as_mask, checked_classes, checked_space
from fastseg.ops.distance_lists import EMPTY, EmptyCounts

Empty = Literal["default", "nan", "perfect"]


class BoundaryScores(NamedTuple):
    """A score of each pair of objects, float64 [...], and how many pairs the policy on empty objects decided."""

    values: Tensor
    empty: EmptyCounts


def boundary_iou(
    prediction: Tensor,
    target: Tensor,
    *,
    distance: int | None = None,
    share: float = 0.02,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = None,
    empty: Empty = "default",
) -> BoundaryScores:
    r"""Compute the intersection over union of the inner bands along the boundaries of two objects.

    .. math:: \frac{|A_d \cap B_d|}{|A_d \cup B_d|}, \quad A_d = \{p \in A : \max(|p_y - q_y|, |p_x - q_x|) \le d
        \text{ for some } q \notin A\}

    where everything beyond the image is outside: A without d erosions by a 3x3 square. Found from one distance
    transform of each label map, whatever d and however many classes.

    Args:
        prediction, target: masks [..., H, W] of one shape, nonzero inside; leading dimensions are independent. With
            `classes` they are label maps.
        distance: width d of the band, in pixels, at least 1.
        share: where no distance is given, d is this share of the image's diagonal, rounded, at least 1.
        classes: labels to score, each against all others; the values get a last dimension for them.
        ignore_index: with `classes`, a label in the target whose pixels are no object's, in the prediction neither.
        empty: the value where an object has no pixels. "default": nan where both have none, 0 where one has
            none; "nan": nan in both cases; "perfect": 1 where both have none, 0 where one has none.

    Returns:
        `BoundaryScores`.

    Memory: some 20 bytes a pixel. Gradient: none. Devices: all. Errors: `ValueError` naming the argument for a wrong
    dtype, rank or number, or shapes that differ.

    Source: Cheng et al. 2021, "Boundary IoU" (arXiv 2103.16562).

    Example:
        >>> a, b = torch.zeros(12, 12), torch.zeros(12, 12)
        >>> a[2:9, 2:9], b[2:9, 4:11] = 1, 1
        >>> boundary_iou(a, b, distance=1).values
        tensor(0.2632, dtype=torch.float64)
    """
    op = "boundary_iou"
    prediction, target, labels = _checked(op, prediction, target, classes, ignore_index)
    size = prediction.shape[-2:]
    if distance is None:
        distance = max(1, round(_checked_share(op, share) * math.hypot(*size)))
    if not is_whole(distance) or distance < 1:
        raise ValueError(f"fastseg::{op}: distance must be a whole number of pixels from 1, got {distance!r}")
    checked_choice(op, "empty", empty, EMPTY)
    shape, count = prediction.shape[:-2], len(labels)
    bands = [_band(x.reshape(-1, *size), labels, int(distance)) for x in (prediction, target)]
    matrix = bands[0].new_zeros((len(bands[0]), count + 1, count + 1), dtype=torch.int64)
    for a, b, out in zip(*bands, matrix, strict=True):
        ops.confusion_matrix(a[None], b[None], count + 1, ignore_index=-1, out=out)
    inter, found, truth = (x[..., :count] for x in (matrix.diagonal(dim1=1, dim2=2), matrix.sum(1), matrix.sum(2)))
    values = _by_policy(inter.double() / (found + truth - inter), found, truth, empty)
    return _scores(values, found, truth, shape, classes)


def boundary_f1(
    prediction: Tensor,
    target: Tensor,
    *,
    distance: float | None = None,
    share: float = 0.008,
    classes: Sequence[int] | None = None,
    ignore_index: int | None = None,
    empty: Empty = "default",
) -> BoundaryScores:
    r"""Compute the F1 of the shares of each boundary that are near the other.

    .. math:: F = \frac{2 P R}{P + R}, \quad P = \frac{|\{a \in \partial A : d(a, \partial B) \le \theta\}|}
        {|\partial A|}, \quad R = \frac{|\{b \in \partial B : d(b, \partial A) \le \theta\}|}{|\partial B|}

    with Euclidean distances and the inner boundaries of `surface_distances`; 0 where P and R are.

    Args:
        prediction, target, classes, ignore_index, empty: as in `boundary_iou`.
        distance: tolerance :math:`\theta`, in pixels, at least 0.
        share: where no distance is given, :math:`\theta` is this share of the image's diagonal, rounded up.

    Returns:
        `BoundaryScores`.

    Memory and devices: as `surface_distances`; GPUs are waited for. Gradient: none. Errors: as `boundary_iou`.

    Source: Csurka et al. 2013; Perazzi et al. 2016 (DAVIS), whose share this is.

    Example:
        >>> a, b = torch.zeros(12, 12), torch.zeros(12, 12)
        >>> a[2:9, 2:9], b[2:9, 4:11] = 1, 1
        >>> boundary_f1(a, b, distance=1).values
        tensor(0.5833, dtype=torch.float64)
    """
    op = "boundary_f1"
    prediction, target, labels = _checked(op, prediction, target, classes, ignore_index)
    if distance is None:
        distance = math.ceil(_checked_share(op, share) * math.hypot(*prediction.shape[-2:]))
    if not isinstance(distance, Real) or not 0 <= distance < math.inf:
        raise ValueError(f"fastseg::{op}: distance must be a number of pixels from 0, got {distance!r}")
    checked_choice(op, "empty", empty, EMPTY)
    found = ops.surface_distances(prediction, target, spatial_dims=2, classes=labels)
    counts = found.counts
    lists = torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts.flatten())
    near = torch.zeros_like(counts).view(-1).index_add_(0, lists, (found.distances <= distance).long()).view_as(counts)
    precision, recall = (near.double() / counts.clamp(min=1)).unbind(-1)
    values = (2 * precision * recall / (precision + recall)).nan_to_num(0.0)
    values = _by_policy(values, counts[..., 0], counts[..., 1], empty)
    return _scores(values, counts[..., 0], counts[..., 1], prediction.shape[:-2], classes)


def _checked(
    op: str, prediction: Tensor, target: Tensor, classes: Any, ignore_index: int | None
) -> tuple[Tensor, Tensor, list[int]]:
    """Check two masks or label maps; return label maps, void where the target is, and which labels are objects."""
    for argument, x in (("prediction", prediction), ("target", target)):
        checked_space(op, argument, x, 2, None)
    if prediction.shape != target.shape:
        raise ValueError(f"fastseg::{op}: target must have the shape of prediction {list(prediction.shape)}, "
                         f"got {brief(target)}")  # fmt: skip
    check_devices(op, prediction, target=target)
    if classes is None:
        if ignore_index is not None:
            raise ValueError(f"fastseg::{op}: ignore_index must be None for masks, got {ignore_index!r}")
        return (as_mask(prediction) != 0).byte(), (as_mask(target) != 0).byte(), [1]
    given = checked_classes(op, classes)
    prediction, target = as_labels(op, "prediction", prediction), as_labels(op, "target", target)
    if ignore_index is not None:
        if not is_whole(ignore_index) or ignore_index in given:
            raise ValueError(f"fastseg::{op}: ignore_index must be a label that is no class, got {ignore_index!r}")
        prediction = torch.where(is_label(target, ignore_index), target, prediction)
    return prediction, target, given


def _checked_share(op: str, share: Any) -> float:
    if not isinstance(share, Real) or not 0 < float(share) < math.inf:
        raise ValueError(f"fastseg::{op}: share must be a positive number, got {share!r}")
    return float(share)


def _band(labels: Tensor, classes: list[int], width: int) -> Tensor:
    """Label maps [B, H, W] -> the place in `classes` of each pixel in the band of its object, else their number."""
    height, breadth = labels.shape[1:]
    inner: Any = ops.distance_transform(labels, spatial_dims=2, metric="chessboard", labels=True)
    far = inner > width
    far[:, :width] = far[:, max(height - width, 0) :] = False
    far[:, :, :width] = far[:, :, max(breadth - width, 0) :] = False
    if classes == list(range(len(classes))) and len(classes) <= torch.iinfo(labels.dtype).max:
        return labels.masked_fill(far | (labels < 0) | (labels >= len(classes)), len(classes))
    ordered, place = torch.tensor(classes, device=labels.device).sort()
    at = torch.searchsorted(ordered, labels.long()).clamp(max=len(classes) - 1)
    return place[at].masked_fill(far | (ordered[at] != labels), len(classes))


def _by_policy(values: Tensor, found: Tensor, truth: Tensor, empty: str) -> Tensor:
    none, one = (found == 0) & (truth == 0), (found == 0) ^ (truth == 0)
    values = values.masked_fill(none, 1.0 if empty == "perfect" else torch.nan)
    return values.masked_fill(one, torch.nan if empty == "nan" else 0.0)


def _scores(values: Tensor, found: Tensor, truth: Tensor, shape: Any, classes: Any) -> BoundaryScores:
    none, no_truth = found == 0, truth == 0
    sides = (none & no_truth, none & ~no_truth, no_truth & ~none)
    values = values.reshape(shape if classes is None else (*shape, values.shape[-1]))
    return BoundaryScores(values, EmptyCounts(*(int(side.sum()) for side in sides)))
