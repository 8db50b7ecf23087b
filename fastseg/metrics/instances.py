"""Average precision of instances over thresholds of IoU, matched as COCO does."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseg.metrics.average_precision import CONVENTIONS, Convention, area, curve
from fastseg.ops.arguments import brief, check_devices, checked_choice, is_whole

PIXELS = 2**18  # that masks are multiplied for at a time, in float32, which holds such counts
THRESHOLDS = tuple((50 + 5 * i) / 100 for i in range(10))


class InstanceScores(NamedTuple):
    """Average precision of instances.

    Args:
        ap: mean over thresholds and classes; nan without true instances.
        ap_of_threshold: float64 [T], means over classes.
        ap_of_class: float64 [C], means over thresholds; nan for a class without true instances.
        detections, instances: int64 [C], predicted ones that count at some threshold, and true ones that are no crowd.
        ignored: predictions that count at no threshold: beyond the most of an image, or matched with crowds.
    """

    ap: float
    ap_of_threshold: Tensor
    ap_of_class: Tensor
    detections: Tensor
    instances: Tensor
    ignored: int


def mask_iou(prediction: Tensor, target: Tensor, crowd: Tensor | None = None) -> Tensor:
    r"""Compute the IoU of every predicted mask with every true one.

    Args:
        prediction, target: masks [D, H, W] and [G, H, W], nonzero inside.
        crowd: boolean [G]; with a crowd it is the share of the prediction within, :math:`|A \cap B| / |A|`.

    Returns:
        float64 [D, G]; 0 of two empty masks. Memory: a byte for each element of the masks, and 1 MiB for each mask.

    Example:
        >>> a = torch.tensor([[[1, 1, 0]], [[0, 1, 1]]])
        >>> mask_iou(a, a)
        tensor([[1.0000, 0.3333],
                [0.3333, 1.0000]], dtype=torch.float64)
    """
    op = "mask_iou"
    for argument, x in (("prediction", prediction), ("target", target)):
        if not isinstance(x, Tensor) or x.dim() != 3:
            raise ValueError(f"fastseg::{op}: {argument} must be masks [number, H, W], got {brief(x)}")
    if prediction.shape[1:] != target.shape[1:]:
        raise ValueError(f"fastseg::{op}: target must be [number, {prediction.shape[1]}, {prediction.shape[2]}], "
                         f"got {brief(target)}")  # fmt: skip
    check_devices(op, prediction, target=target)
    crowd = _checked_crowd(op, crowd, len(target), target)
    a, b = ((x != 0).flatten(1) for x in (prediction, target))
    size, true_size = a.sum(1).double()[:, None], b.sum(1).double()
    shared = torch.zeros_like(size * true_size)
    for some, others in zip(a.split(PIXELS, 1), b.split(PIXELS, 1), strict=True):
        shared += some.float() @ others.float().T
    return shared / torch.where(crowd, size, size + true_size - shared).clamp(min=1)


def match_instances(
    iou: Tensor,
    scores: Tensor,
    prediction_classes: Tensor,
    target_classes: Tensor,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    crowd: Tensor | None = None,
    max_detections: int = 100,
) -> Tensor:
    """Match predicted instances of one image with true ones, greedily from the highest score, at each threshold.

    Each takes the true instance of its class with the highest IoU that none has taken, if that reaches the threshold;
    and if there is none, a crowd that it lies in, which any number can: then it does not count.

    Args:
        iou: [D, G], of `mask_iou`, or of boxes.
        scores: floating [D].
        prediction_classes, target_classes: integers [D] and [G].
        thresholds: T numbers, above 0 and up to 1.
        crowd: boolean [G].
        max_detections: of an image and class; those with lower scores do not count.

    Returns:
        int64 [D, T] on the CPU: 1 matched, 0 not, -1 does not count.

    Source: Lin et al. 2014, "Microsoft COCO"; of equal scores the first, and of equal IoU the last is taken, as by
    pycocotools.

    Example:
        >>> iou = torch.tensor([[0.9, 0.0], [0.6, 0.0]])
        >>> one = torch.ones(2, dtype=torch.int64)
        >>> match_instances(iou, torch.tensor([0.5, 0.8]), one, one, thresholds=(0.5, 0.75))
        tensor([[0, 1],
                [1, 0]])
    """
    op = "match_instances"
    limits = checked_thresholds(op, thresholds)
    if not is_whole(max_detections) or max_detections < 1:
        raise ValueError(f"fastseg::{op}: max_detections must be a whole number from 1, got {max_detections!r}")
    number, others = len(prediction_classes), len(target_classes)
    if not isinstance(iou, Tensor) or iou.shape != (number, others) or bool(iou.isnan().any()):
        raise ValueError(f"fastseg::{op}: iou must be numbers [{number}, {others}], got {brief(iou)}")
    if not isinstance(scores, Tensor) or scores.shape != (number,) or bool(scores.isnan().any()):
        raise ValueError(f"fastseg::{op}: scores must be numbers [{number}], got {brief(scores)}")
    many = _checked_crowd(op, crowd, others, target_classes).cpu()
    classes, true_classes, iou = prediction_classes.cpu(), target_classes.cpu(), iou.double().cpu()
    iou = iou.masked_fill(classes[:, None] != true_classes, -1.0)
    state = torch.full((number, len(limits)), -1)
    free = ~many.expand(len(limits), -1)
    seen: dict[int, int] = {}
    # pycocotools lowers a threshold of 1 alike.
    least = limits.clamp(max=1 - 1e-10)[:, None]
    for i in scores.cpu().sort(descending=True, stable=True).indices.tolist():
        label = int(classes[i])
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > max_detections:
            continue
        reaches = iou[i] >= least
        best = iou[i].masked_fill(~(reaches & free), -1.0).flip(-1)
        value, place = best.max(-1) if others else (torch.full((len(limits),), -1.0), torch.zeros(0))
        hit = value >= 0
        state[i] = torch.where(hit, 1, -1 * (reaches & many).any(-1).long())
        rows = hit.nonzero().squeeze(1)
        free = free.index_put((rows, others - 1 - place[rows]), torch.tensor(False)) if len(rows) else free
    return state


def instance_average_precision(
    scores: Tensor, classes: Tensor, state: Tensor, instances: Tensor, *, convention: Convention = "coco_101"
) -> InstanceScores:
    """Compute average precision over thresholds from the matches of all images.

    Args:
        scores: [D], of the predictions of all images.
        classes: integers [D].
        state: [D, T], of `match_instances`.
        instances: int64 [C], true instances of each class that are no crowd.
        convention: as in `average_precision`, which groups equal scores: they count together, whatever their order.

    Returns:
        `InstanceScores`.
    """
    op = "instance_average_precision"
    checked_choice(op, "convention", convention, CONVENTIONS)
    if state.dim() != 2 or scores.shape != state.shape[:1] or classes.shape != scores.shape:
        raise ValueError(f"fastseg::{op}: state must be [D, T] for scores and classes [D], got {brief(state)}")
    aps = []
    for label, positives in enumerate(instances.tolist()):
        own = state[classes == label].T
        ranked = scores[classes == label].expand_as(own)
        points = curve(ranked, own == 1, own >= 0, torch.full((len(own),), positives).to(own))
        aps.append(area(*points, convention).masked_fill(torch.tensor(positives == 0).to(own.device), torch.nan))
    table = torch.stack(aps) if aps else scores.new_zeros((0, state.shape[1]), dtype=torch.float64)
    counted = (state >= 0).any(-1)
    return InstanceScores(
        table.nanmean().item(),
        table.nanmean(0),
        table.nanmean(1),
        classes[counted].long().bincount(minlength=len(instances)),
        instances,
        int((~counted).sum()),
    )


def checked_thresholds(op: str, thresholds: Any) -> Tensor:
    limits = torch.as_tensor(thresholds, dtype=torch.float64)
    if limits.dim() != 1 or not len(limits) or not bool(((limits > 0) & (limits <= 1)).all()):
        raise ValueError(f"fastseg::{op}: thresholds must be numbers above 0 and up to 1, got {thresholds!r}")
    return limits


def _checked_crowd(op: str, crowd: Any, number: int, like: Tensor) -> Tensor:
    if crowd is None:
        return torch.zeros(number, dtype=torch.bool, device=like.device)
    if not isinstance(crowd, Tensor) or crowd.dtype != torch.bool or crowd.shape != (number,):
        raise ValueError(f"fastseg::{op}: crowd must be boolean [{number}], got {brief(crowd)}")
    return crowd
