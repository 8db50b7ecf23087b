"""Panoptic quality, and the IoU of Cityscapes in which instances weigh alike."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseg import ops
from fastseg.metrics.averages import mean
from fastseg.ops.arguments import brief, check_devices, is_whole

# cityscapesScripts, evalPixelLevelSemanticLabeling.py: mean sizes of instances in the training set, in pixels.
CITYSCAPES_SIZES = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "caravan": 36771.8241758242,
    "trailer": 16926.9763313609,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}


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
    for argument, classes in (("prediction", maps[0]), ("target", maps[2])):
        bad = classes[((classes < 0) | (classes >= num_classes)) & (classes != void)]
        if len(bad):
            raise ValueError(f"fastseg::{op}: {argument} must have classes below {num_classes} or void {void}, "
                             f"got {bad[0].item()}")  # fmt: skip
    counts = maps[0].new_zeros((4, num_classes), dtype=torch.int64)
    overlap = maps[0].new_zeros(num_classes, dtype=torch.float64)
    merged = torch.tensor([*stuff, void], device=maps[0].device)
    for i in range(len(maps[0])):
        many = torch.zeros_like(maps[0][i]) if crowd is None else crowd[i]
        runs, lengths = _runs(*(x[i] for x in maps), many)
        for side in (0, 2):
            runs[side + 1].masked_fill_(torch.isin(runs[side], merged), 0)
        _match(runs, lengths, void, overlap, counts)
    return PanopticCounts(overlap, *counts)


def _runs(*maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of one image -> the values [maps, R] of its runs of equal pixels, and their lengths; neighbours agree."""
    lines = [x.flatten() for x in maps]
    starts = torch.ones_like(lines[0], dtype=torch.bool)
    starts[1:] = False
    for line in lines:
        starts[1:] |= line[1:] != line[:-1]
    places = starts.nonzero().squeeze(1)
    values = torch.stack([line[places].long() for line in lines])
    return values, places.diff(append=places.new_tensor([len(lines[0])]))


def _ranks(values: Tensor) -> tuple[Tensor, int]:
    distinct, which = values.unique(return_inverse=True)
    return which, len(distinct)


def _distinct(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [k, R] -> the distinct ones [k, U], and which of them each is."""
    code, span = torch.zeros_like(columns[0]), 1
    for row in columns if columns.numel() else ():
        low = int(row.min())
        width = int(row.max()) - low + 1
        if span * width > 2**62:  # numbers instead of values, of which there are no more than runs
            (code, span), (row, width) = _ranks(code), _ranks(row)
            low = 0
        code, span = code * width + (row - low), span * width
    which, number = _ranks(code)
    return columns[:, which.new_empty(number).scatter_(0, which, torch.arange(len(which)).to(which))], which


def _sums(which: Tensor, number: int, values: Tensor) -> Tensor:
    return values.new_zeros(number).index_add_(0, which, values)


def _match(runs: Tensor, lengths: Tensor, void: int, overlap: Tensor, counts: Tensor) -> None:
    """Add one image, runs [5, R] of class, instance, true class, true instance and crowd, to the sums by class."""
    pairs, which_pair = _distinct(runs)
    shared = _sums(which_pair, pairs.shape[1], lengths)
    segments, which = _distinct(pairs[:2])
    truths, which_truth = _distinct(pairs[2:])
    no_truth, alike, many = pairs[2] == void, pairs[0] == pairs[2], pairs[4] == 1
    area, beside = (_sums(which, segments.shape[1], x) for x in (shared, shared * no_truth))
    excused = beside + _sums(which, segments.shape[1], shared * (many & alike & ~no_truth))
    true_area = _sums(which_truth, truths.shape[1], shared)
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


class InstanceCounts(NamedTuple):
    """What the instance-weighted IoU is made of, and adds up over images.

    Args:
        found: float64 [C], sum over the instances of the share of their pixels that is found.
        instances: int64 [C], their number.
        pixels: int64 [C], of all of them.
        false_positives: int64 [C], pixels predicted as a class where the target is another one.
    """

    found: Tensor
    instances: Tensor
    pixels: Tensor
    false_positives: Tensor


def instance_counts(
    prediction: Tensor, target: Tensor, instances: Tensor, num_classes: int, *, ignore_index: int | None = None
) -> InstanceCounts:
    """Count how much of each instance is found.

    Args:
        prediction, target, num_classes, ignore_index: labels [N, H, W], as in `confusion_matrix`.
        instances: integers [N, H, W], the instance of each pixel of the target, unique within an image and class; 0 is
            none (stuff, and groups, which Cityscapes leaves out).

    Returns:
        `InstanceCounts`, of which `instance_iou` makes numbers. Errors: as `confusion_matrix`.
    """
    op = "instance_counts"
    if not isinstance(prediction, Tensor) or prediction.is_floating_point():
        raise ValueError(f"fastseg::{op}: prediction must be integer labels, got {brief(prediction)}")
    if not isinstance(instances, Tensor) or instances.is_floating_point() or instances.shape != target.shape:
        raise ValueError(f"fastseg::{op}: instances must be integers {list(target.shape)}, got {brief(instances)}")
    check_devices(op, target, instances=instances)
    matrix = ops.confusion_matrix(prediction, target, num_classes, ignore_index=ignore_index)
    found = matrix.new_zeros(num_classes, dtype=torch.float64)
    counts = matrix.new_zeros((2, num_classes))
    ignored = 255 if ignore_index is None else ignore_index
    for labels, truth, index in zip(prediction, target, instances, strict=True):
        runs, lengths = _runs(truth, index, labels == truth)
        own = (runs[1] != 0) & (runs[0] != ignored)
        each, which = _distinct(runs[:2, own])
        size, right = (_sums(which, each.shape[1], x) for x in (lengths[own], (lengths * runs[2])[own]))
        found.index_add_(0, each[0], right.double() / size)
        counts.index_add_(1, each[0], torch.stack([torch.ones_like(size), size]))
    return InstanceCounts(found, counts[0], counts[1], matrix.sum(0) - matrix.diagonal())


def instance_iou(counts: InstanceCounts, sizes: Sequence[float] | Tensor | None = None) -> Tensor:
    r"""Compute the IoU of each class in which every instance weighs as one of mean size (iIoU of Cityscapes).

    A pixel of an instance of n pixels weighs :math:`\bar s_c / n`, a false positive 1; with the share r of each of the
    N instances that is found,

    .. math:: \text{iIoU}_c = \frac{\bar s_c \sum_i r_i}{\bar s_c N_c + FP_c}

    Args:
        counts: of `instance_counts`.
        sizes: mean number of pixels of the instances of each class, nan for stuff; None is that of those counted, and
            `CITYSCAPES_SIZES` are those of the official evaluation.

    Returns:
        float64 [C]; nan for stuff, and a class that neither side has. A class that is only predicted is 0 where its
        size is given, and nan where it is to be that of those counted.

    Source: Cordts et al. 2016, "The Cityscapes dataset" (arXiv 1604.01685).

    Example:
        >>> target, instances = torch.tensor([[[1, 1, 1, 1, 1, 0]]]), torch.tensor([[[1, 2, 2, 2, 2, 0]]])
        >>> prediction = torch.tensor([[[0, 1, 1, 1, 1, 1]]])
        >>> instance_iou(instance_counts(prediction, target, instances, 2))
        tensor([   nan, 0.4167], dtype=torch.float64)
    """
    found, number, pixels, wrong = counts
    if sizes is None:
        size = pixels.double() / number
    else:
        size = torch.as_tensor(sizes, dtype=torch.float64).to(found)
        if size.shape != found.shape or not bool((size[number > 0] > 0).all()):
            raise ValueError(f"fastseg::instance_iou: sizes must be {len(found)} numbers, positive where there are "
                             f"instances, got {sizes!r}")  # fmt: skip
    return size * found / (size * number + wrong)


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
            maps.append(x)
    return tuple(maps)
