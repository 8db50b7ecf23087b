"""IoU of Cityscapes in which instances weigh alike: iIoU."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastseg import ops
from fastseg.metrics.labels import distinct, runs, sums
from fastseg.ops.arguments import brief, check_devices, widened

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
    for maps in zip(widened(prediction), widened(target), widened(instances), strict=True):
        (found_label, label, index), lengths = runs(*maps)
        own = (index != 0) & (label != ignored)
        each, which = distinct(torch.stack([label[own], index[own]]))
        right = lengths * (found_label == label)
        size, hit = (sums(which, each.shape[1], x[own]) for x in (lengths, right))
        found.index_add_(0, each[0], hit.double() / size)
        counts.index_add_(1, each[0], torch.stack([torch.ones_like(size), size]))
    return InstanceCounts(found, counts[0], counts[1], matrix.sum(0) - matrix.diagonal())


def instance_iou(counts: InstanceCounts, sizes: Sequence[float] | Tensor | None = None) -> Tensor:
    r"""Compute the IoU of each class in which every instance weighs as one of mean size (iIoU of Cityscapes).

    A pixel of an instance of n pixels weighs :math:`\bar s_c / n`, a false positive 1; with the share r of each of the
    N instances that is found,

    .. math:: \text{iIoU}_c = \frac{\bar s_c \sum_i r_i}{\bar s_c N_c + FP_c}

    Args:
        counts: of `instance_counts`.
        sizes: mean number of pixels of the instances of each class, nan for stuff; None is that of those counted. The
            official evaluation has ``[CITYSCAPES_SIZES.get(name, nan) for name in classes]``.

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
