"""Panoptic quality: segments matched, and the numbers of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseg.metrics.averages import mean
from fastseg.metrics.labels import distinct, runs, sums
from fastseg.ops.arguments import brief, check_devices, is_whole, widened


class PanopticCounts(NamedTuple):
    """What panoptic quality is made of, and adds up over images.

    Args:
        iou: float64 [C], sum of the IoU of matched segments.
        matched, unmatched_prediction, unmatched_target: int64 [C], segments: TP, FP, FN.
        ignored: int64 [C], predicted segments that are left out, because more than half of them is void or a crowd.
    """

    iou: Tensor
    matched: Tensor
    unmatched_prediction: Tensor
    unmatched_target: Tensor
    ignored: Tensor


class PanopticQuality(NamedTuple):
    """Panoptic, segmentation and recognition quality: means, and float64 [C], nan of a class without segments."""

    pq: float
    sq: float
    rq: float
    pq_of_class: Tensor
    sq_of_class: Tensor
    rq_of_class: Tensor


def panoptic_counts(
    prediction: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    void: int = 255,
    stuff: Sequence[int] = (),
    crowd: Tensor | None = None,
) -> PanopticCounts:
    r"""Match predicted segments with true ones: of one class, with an IoU above 1/2.

    A segment is all pixels of an image with one class and instance. Pixels that are void in the target count in no
    union, and a predicted segment without a match is left out if more than half of it is void or a crowd of its class.

    Args:
        prediction, target: pairs of classes and instances, integers [N, H, W]; instances of any number.
        num_classes: number of classes C.
        void: class of pixels that belong to no segment. In the prediction they are just not predicted.
        stuff: classes of which an image has one segment, whatever the instances.
        crowd: boolean [N, H, W], segments of the target that stand for many: they match nothing and are not missed.

    Returns:
        `PanopticCounts`, of which `panoptic_quality` makes numbers.

    Memory: some 40 bytes a pixel of one image. Gradient: none. Devices: all; GPUs are waited for. Errors: `ValueError`
    for shapes that differ, or a class that is neither void nor below C.

    Source: Kirillov et al. 2019, "Panoptic segmentation" (arXiv 1801.00868); panopticapi for void and crowds.

    Example:
        >>> classes, instances = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 2]]])
        >>> panoptic_quality(panoptic_counts((classes, instances), (classes, instances * 0), 2)).pq_of_class
        tensor([1., 0.], dtype=torch.float64)
    """
    op = "panoptic_counts"
    maps = _checked_maps(op, prediction, target)
    if not is_whole(num_classes) or num_classes < 1 or not is_whole(void) or 0 <= void < num_classes:
        raise ValueError(f"fastseg::{op}: void must be no class of num_classes {num_classes!r} (from 1), got {void!r}")
    if crowd is not None and (not isinstance(crowd, Tensor) or crowd.dtype != torch.bool
                              or crowd.shape != maps[0].shape or crowd.device != maps[0].device):  # fmt: skip
        raise ValueError(f"fastseg::{op}: crowd must be boolean {list(maps[0].shape)} beside the target, "
                         f"got {brief(crowd)}")  # fmt: skip
    counts = maps[0].new_zeros((4, num_classes), dtype=torch.int64)
    overlap = maps[0].new_zeros(num_classes, dtype=torch.float64)
    merged = torch.tensor([*stuff, void], device=maps[0].device)
    for i in range(len(maps[0])):
        many = torch.zeros_like(maps[0][i]) if crowd is None else crowd[i]
        values, lengths = runs(*(x[i] for x in maps), many)
        for argument, side in (("prediction", 0), ("target", 2)):
            classes = values[side]
            bad = classes[((classes < 0) | (classes >= num_classes)) & (classes != void)]
            if len(bad):
                raise ValueError(f"fastseg::{op}: {argument} must have classes below {num_classes} or void {void}, "
                                 f"got {bad[0].item()}")  # fmt: skip
            values[side + 1].masked_fill_(torch.isin(classes, merged), 0)
        _match(values, lengths, void, overlap, counts)
    return PanopticCounts(overlap, *counts)


def _match(values: Tensor, lengths: Tensor, void: int, overlap: Tensor, counts: Tensor) -> None:
    """Add one image, [5, R] of runs: class, instance, true class, true instance and crowd, to the sums by class."""
    pairs, which_pair = distinct(values)
    shared = sums(which_pair, pairs.shape[1], lengths)
    segments, which = distinct(pairs[:2])
    truths, which_truth = distinct(pairs[2:])
    no_truth, alike, many = pairs[2] == void, pairs[0] == pairs[2], pairs[4] == 1
    area, beside = (sums(which, segments.shape[1], x) for x in (shared, shared * no_truth))
    excused = beside + sums(which, segments.shape[1], shared * (many & alike))
    true_area = sums(which_truth, truths.shape[1], shared)
    union = area[which] - beside[which] + true_area[which_truth] - shared
    hit = alike & ~no_truth & ~many & (2 * shared > union)
    overlap.index_add_(0, pairs[0, hit], shared[hit].double() / union[hit])
    lone = torch.ones_like(area, dtype=torch.bool).index_fill_(0, which[hit], False) & (segments[0] != void)
    left_out = lone & (2 * excused > area)
    missed = torch.ones_like(true_area, dtype=torch.bool).index_fill_(0, which_truth[hit], False)
    missed &= (truths[0] != void) & (truths[2] == 0)
    found = pairs[0, hit], segments[0, lone & ~left_out], truths[0, missed], segments[0, left_out]
    for row, classes in zip(counts, found, strict=True):
        row.index_add_(0, classes, torch.ones_like(classes))


def panoptic_quality(counts: PanopticCounts) -> PanopticQuality:
    r"""Compute panoptic quality from counts: with U the sum of the IoU of matched segments,

    .. math:: \text{PQ} = \frac{U}{TP + \frac12 FP + \frac12 FN} = \underbrace{\frac{U}{TP}}_{SQ}
        \underbrace{\frac{TP}{TP + \frac12 FP + \frac12 FN}}_{RQ}

    SQ is 0 where nothing matched. A class that neither side has is nan and left out of the means.
    """
    matched = counts.matched.double()
    whole = matched + (counts.unmatched_prediction + counts.unmatched_target) / 2
    seen = torch.where(whole > 0, 1.0, torch.nan)
    sq = counts.iou / matched.clamp(min=1) * seen
    of_class = counts.iou / whole, sq, matched / whole
    means = [float(mean(x)) for x in of_class]
    return PanopticQuality(means[0], means[1], means[2], *of_class)


def _checked_maps(op: str, prediction: Any, target: Any) -> tuple[Tensor, ...]:
    maps: list[Tensor] = []
    for argument, pair in (("prediction", prediction), ("target", target)):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(x, Tensor) for x in pair):
            raise ValueError(f"fastseg::{op}: {argument} must be (classes, instances), got {type(pair).__name__}")
        for x in pair:
            if x.dim() != 3 or x.is_floating_point() or x.dtype == torch.bool or (maps and x.shape != maps[0].shape):
                shape = list(maps[0].shape) if maps else "[N, H, W]"
                raise ValueError(f"fastseg::{op}: {argument} must be integers {shape}, got {brief(x)}")
            if maps:
                check_devices(op, maps[0], **{argument: x})
            maps.append(widened(x))
    return tuple(maps)
