"""Average precision of a ranking, by each of the conventions."""

from typing import Literal

import torch
from torch import Tensor

from fastseg.metrics.averages import AVERAGES, Average, mean
from fastseg.metrics.labels import is_label
from fastseg.ops.arguments import brief, check_devices, checked_choice, is_whole

CONVENTIONS = ("step", "trapezoid", "voc_all", "voc_11", "coco_101")
ABSENT = ("skip", "zero", "one")
Convention = Literal["step", "trapezoid", "voc_all", "voc_11", "coco_101"]


def curve(scores: Tensor, hits: Tensor, valid: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Precision and recall [..., N] along descending scores; equal scores share the point after the last of them.

    Args:
        scores: [..., N].
        hits, valid: boolean [..., N]; what is not valid is not in the ranking.
        positives: int64 [...], what there is to find.
    """
    scores, order = scores.masked_fill(~valid, -torch.inf).sort(dim=-1, descending=True, stable=True)
    found = (hits & valid).gather(-1, order).cumsum(-1)
    rank = valid.gather(-1, order).cumsum(-1)
    last = torch.ones_like(scores, dtype=torch.bool)
    last[..., :-1] = scores[..., 1:] != scores[..., :-1]
    place = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
    ends = place.masked_fill(~last, scores.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    found, rank = found.gather(-1, ends).double(), rank.gather(-1, ends).double()
    return found / rank.clamp(min=1), found / positives[..., None].clamp(min=1).double()


def area(precision: Tensor, recall: Tensor, convention: str) -> Tensor:
    """The area under a curve [..., N], as float64 [...]."""
    start = precision.new_ones((*precision.shape[:-1], 1))
    steps = recall.diff(dim=-1, prepend=start - 1)
    if convention == "step":
        return (steps * precision).sum(-1)
    if convention == "trapezoid":
        return (steps * (precision + torch.cat([start, precision], -1)[..., :-1])).sum(-1) / 2
    envelope = precision.flip(-1).cummax(-1).values.flip(-1)  # of what comes at this recall or a higher one
    if convention == "voc_all":
        return (steps * envelope).sum(-1)
    # pycocotools takes the 101 points from a linspace, whose products are rounded; the 11 are the nearest to tenths.
    places = torch.arange(101 if convention == "coco_101" else 11, dtype=torch.float64, device=recall.device)
    points = places * 0.01 if convention == "coco_101" else places / 10
    points = points.expand(*recall.shape[:-1], -1).contiguous()
    return torch.cat([envelope, start - 1], -1).gather(-1, torch.searchsorted(recall.contiguous(), points)).mean(-1)


def average_precision(
    scores: Tensor,
    target: Tensor,
    *,
    convention: Convention = "step",
    average: Average = "none",
    absent: Literal["skip", "zero", "one"] = "skip",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Compute the average precision of a ranking of positives and negatives by score, for each class.

    With :math:`P_k, R_k` at the k-th distinct score from above and :math:`R_0 = 0`, by convention

    .. math:: \sum_k (R_k - R_{k-1}) P_k, \quad \sum_k (R_k - R_{k-1}) \tfrac{P_k + P_{k-1}}{2}, \quad
        \sum_k (R_k - R_{k-1}) \max_{l \ge k} P_l, \quad \frac{1}{|T|} \sum_{t \in T} \max_{k: R_k \ge t} P_k

    Args:
        scores: floating [..., N], in any range; -inf to +inf, not nan. Rows are rankings (classes) of their own.
        target: of the same shape, boolean or integers 0 and 1: what is to be found.
        convention: "step" (scikit-learn, torchmetrics), "trapezoid" (area under the curve from recall 0, precision 1),
            "voc_all" (Pascal VOC from 2010: the envelope), "voc_11" (Pascal VOC 2007: T = 0, 0.1, ..., 1), "coco_101"
            (T = 0, 0.01, ..., 1). The maximum of nothing is 0.
        average: over the rows of [C, N]: "none"; "macro", the mean; "micro", one ranking of all; "weighted",
            by positives.
        absent: the value of a row without positives: "skip" is nan, left out of averages; "zero", "one".
        ignore_index: value of `target` that is left out of the ranking.

    Returns:
        float64 [...], or a scalar of an average.

    Memory: some 60 bytes for each score. Gradient: none. Devices: all; a GPU is waited for, to check the values.
    Errors: `ValueError` for a score that is nan, a target other than 0 and 1, shapes that differ.

    Source: Everingham et al. 2010 and 2015 (Pascal VOC), Lin et al. 2014 (COCO).

    Example:
        >>> scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
        >>> target = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0])
        >>> average_precision(scores, target)
        tensor(0.7470, dtype=torch.float64)
        >>> average_precision(scores, target, convention="coco_101")
        tensor(0.7702, dtype=torch.float64)
    """
    op = "average_precision"
    checked_choice(op, "convention", convention, CONVENTIONS)
    checked_choice(op, "average", average, AVERAGES)
    checked_choice(op, "absent", absent, ABSENT)
    hits, valid = checked_ranking(op, scores, target, ignore_index)
    if average != "none" and scores.dim() != 2:
        raise ValueError(f"fastseg::{op}: scores must be [C, N] with average {average!r}, got {brief(scores)}")
    if average == "micro":
        scores, hits, valid = scores.flatten(), hits.flatten(), valid.flatten()
    positives = hits.sum(-1)
    value = area(*curve(scores, hits, valid, positives), convention)
    value = value.masked_fill(positives == 0, {"skip": torch.nan, "zero": 0.0, "one": 1.0}[absent])
    if average in ("none", "micro"):
        return value
    return mean(value, positives if average == "weighted" else None)


def checked_ranking(op: str, scores: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Check scores and target [..., N]; return what is to be found, and what counts."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point() or scores.dim() == 0:
        raise ValueError(f"fastseg::{op}: scores must be a floating tensor [..., N], got {brief(scores)}")
    whole = isinstance(target, Tensor) and not target.is_floating_point() and not target.is_complex()
    if not whole or target.shape != scores.shape:
        raise ValueError(f"fastseg::{op}: target must be boolean or integer {list(scores.shape)}, got {brief(target)}")
    check_devices(op, scores, target=target)
    if ignore_index is not None and (not is_whole(ignore_index) or ignore_index in (0, 1)):
        raise ValueError(f"fastseg::{op}: ignore_index must be a number other than 0 and 1, got {ignore_index!r}")
    hits = target == 1
    valid = torch.ones_like(hits) if ignore_index is None else ~is_label(target, ignore_index)
    bad = target[valid & ~hits & (target != 0)]
    if len(bad):
        raise ValueError(f"fastseg::{op}: target must be 0 or 1, got {bad[0].item()}")
    if bool((scores.isnan() & valid).any()):
        raise ValueError(f"fastseg::{op}: scores must be numbers, got nan")
    return hits, valid
