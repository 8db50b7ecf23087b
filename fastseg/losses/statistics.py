"""What all region losses are made of: sums over pixels, taken in one pass."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg import ops
from fastseg.ops.arguments import (
    brief,
    check_devices,
    checked_choice,
    checked_float,
    checked_ignore_index,
    checked_maps,
    checked_target,
    is_readable,
    wide_dtype,
    widened,
    without_autocast,
)

ACTIVATIONS = ("softmax", "sigmoid")
INTERSECTIONS = ("product", "minimum")


class Reading(TypedDict, total=False):
    """How `statistics` reads logits and target; each loss takes these by keyword and passes them on."""

    activation: str
    ignore_index: int | None
    align_corners: bool
    intersection: str


@dataclass(frozen=True)
class RegionStatistics:
    """Sums over the pixels that are not ignored, for each image and class; y is the target, p the probability.

    Args:
        tp: [N, C], sum of y p; of min(y, p) with ``intersection="minimum"``.
        predicted: [N, C], sum of p.
        predicted_squared: [N, C], sum of p^2.
        target: [N, C], sum of y.
        target_squared: [N, C], sum of y^2.
        cross_entropy: [N, C], sum of -y log p.
        focal: [N, C], sum of -y (1 - p)^gamma log p; None without gamma.
        pixels: [N], number of pixels.
        activation: `softmax` or `sigmoid`.
        gamma: the exponent of `focal`.
        negative_cross_entropy: of the sigmoid only: [N, C], sum of -(1 - y) log(1 - p).
        negative_focal: of the sigmoid only: [N, C], sum of -(1 - y) p^gamma log(1 - p).
    """

    tp: Tensor
    predicted: Tensor
    predicted_squared: Tensor
    target: Tensor
    target_squared: Tensor
    cross_entropy: Tensor
    focal: Tensor | None
    pixels: Tensor
    activation: str
    gamma: float | None
    negative_cross_entropy: Tensor | None = None
    negative_focal: Tensor | None = None

    def without_background(self) -> "RegionStatistics":
        """The statistics of classes 1, 2, ..."""
        sums = {f.name: getattr(self, f.name) for f in fields(self)}
        rest: dict[str, Any] = {name: x[:, 1:] for name, x in sums.items() if isinstance(x, Tensor) and x.dim() == 2}
        return replace(self, **rest)


def statistics(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str = "softmax",
    gamma: float | None = None,
    ignore_index: int | None = None,
    align_corners: bool = False,
    intersection: str = "product",
) -> RegionStatistics:
    r"""Take the sums that cross-entropy, focal, Dice, Jaccard and Tversky losses are made of, all in one pass.

    .. math:: TP = \sum_i y_i p_i, \quad P = \sum_i p_i, \quad T = \sum_i y_i, \quad CE = -\sum_i y_i \log p_i, \ldots

    over the pixels i that are not ignored, for each image and class, with p the softmax or sigmoid of the upsampled
    logits. Every region loss takes the result in the place of logits and target, so that a sum of them reads the
    logits once.

    Args:
        logits: [N, C, h, w] at any resolution.
        target: integer labels [N, H, W], or [N, C, H, W], boolean, integer or floating in [0, 1]: one mask for each
            class, several of which may hold at a pixel, or shares of a pixel (soft labels). It sets the full size.
            Labels are for `sigmoid` one class against the rest, or {0, 1} where C = 1.
        activation: `softmax` or `sigmoid`.
        gamma: exponent of the focal sums; None leaves them out.
        ignore_index: pixels of this label count nowhere; in a target [N, C, H, W] pixels where any channel holds it.
            None is 255, unless that is a class: then it has to be given.
        align_corners: as in `upsample_bilinear`.
        intersection: `product` takes y p, `minimum` takes min(y, p), which is as good for y in {0, 1}, and for soft
            labels the one that a perfect prediction maximises.

    Returns:
        The sums, float32 (float64 for float64 logits).

    Memory: labels take the fused `fastseg.ops.region_statistics` at low resolution; a target [N, C, H, W] takes plain
    PyTorch with several maps of its size. Gradient: of `logits`, once differentiable from labels. Devices: CPU and
    CUDA. Errors: a value outside of the classes or of [0, 1] raises; on CUDA, which is not waited for, it makes the
    sums NaN. NaN logits make NaN sums.

    Example:
        >>> s = statistics(torch.randn(1, 3, 4, 4, requires_grad=True), torch.zeros(1, 16, 16, dtype=torch.uint8))
        >>> loss = cross_entropy(s) + dice(s)
        >>> loss.backward()
    """
    name = "region_statistics"
    checked_choice(name, "activation", activation, ACTIVATIONS)
    checked_choice(name, "intersection", intersection, INTERSECTIONS)
    if gamma is not None and not checked_float(name, "gamma", gamma) >= 0:
        raise ValueError(f"fastseg::{name}: gamma must be at least 0, got {gamma}")
    if isinstance(target, Tensor) and target.dim() == 4:
        return _dense(name, logits, target, activation, gamma, ignore_index, align_corners, intersection)
    sums = ops.region_statistics(
        logits, target, activation=activation, gamma=gamma, ignore_index=ignore_index, align_corners=align_corners
    ).unbind(2)
    tp, predicted, squared, positives, entropy, focal, *negative = sums
    if logits.shape[1] == 1 and activation == "sigmoid":
        pixels = counted(name, target, ignore_index, 1).sum((1, 2)).to(tp.dtype)
    else:  # every pixel has one class
        pixels = positives.sum(1)
    some = gamma is not None
    return RegionStatistics(
        tp, predicted, squared, positives, positives, entropy, focal if some else None, pixels, activation, gamma,
        negative[0] if negative else None, negative[1] if negative and some else None,
    )  # fmt: skip


def counted(name: str, labels: Tensor, ignore_index: int | None, classes: int) -> Tensor:
    """Where labels [N, H, W] are not `ignore_index`."""
    labels = checked_target(name, labels)
    ignored, held = checked_ignore_index(name, ignore_index, classes), torch.iinfo(labels.dtype)
    # A scalar beyond the dtype would wrap in the comparison.
    return labels != ignored if held.min <= ignored <= held.max else torch.ones_like(labels, dtype=torch.bool)


def probabilities(logits: Tensor, size: Any, activation: str, align_corners: bool = False) -> Tensor:
    """Logits [N, C, h, w] -> probabilities [N, C, H, W], at least float32."""
    wide = logits.to(wide_dtype(logits.dtype))
    if activation == "softmax":
        return ops.upsample_softmax(wide, size, align_corners=align_corners)
    return ops.upsample_bilinear(wide, size, align_corners=align_corners).sigmoid()


def masks(
    name: str, logits: Tensor, target: Tensor, activation: str, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Labels [N, H, W], masks or soft labels [N, C, H, W] -> masks, 0 where ignored, and valid [N, 1, H, W].

    Where a label is no class, or a value not in [0, 1], this raises, or makes the masks NaN where it cannot look.
    """
    dtype, classes = wide_dtype(logits.dtype), logits.shape[1]
    if target.dim() == 3:
        valid = counted(name, target, ignore_index, classes)[:, None]
        value = checked_target(name, target)[:, None].long()
        binary = classes == 1 and activation == "sigmoid"
        low, high = 0, 2 if binary else classes
        asked = torch.arange(int(binary), high, device=value.device).view(1, -1, 1, 1)
        y, bad = (valid & (value == asked)).to(dtype), valid & ((value < low) | (value >= high))
    else:
        ignored = checked_ignore_index(name, ignore_index, 1)
        value = widened(target).to(dtype)
        valid = (value != ignored).all(1, keepdim=True)
        y, (low, high) = value.masked_fill(~valid, 0), (0, 1)
        bad = ~((y >= 0) & (y <= 1))
    if not is_readable(y):
        return y.masked_fill(bad, float("nan")), valid
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        rule = f"[{low}, {high}{')' if target.dim() == 3 else ']'}"
        shown = [place[0], *place[2:]] if target.dim() == 3 else list(place)
        raise RuntimeError(f"fastseg::{name}: target must be in {rule} or ignore_index, got {value[place].item()} at "
                           f"{shown}")  # fmt: skip
    return y, valid


def check_masks(name: str, logits: Tensor, target: Tensor) -> None:
    """Logits [N, C, h, w] and a target [N, H, W] or [N, C, H, W] of the same batch and classes."""
    if not isinstance(target, Tensor) or target.dim() not in (3, 4) or target.dtype.is_complex:
        raise ValueError(f"fastseg::{name}: target must be [N, H, W] or [N, C, H, W], got {brief(target)}")
    checked_maps(name, "logits", logits, target.shape[-2:])
    if target.shape[:-2] != logits.shape[: target.dim() - 2] or logits.shape[1] == 0:
        raise ValueError(f"fastseg::{name}: target must have the batch of logits, and its classes where it has any, "
                         f"got {brief(target)} for {brief(logits)}")  # fmt: skip
    check_devices(name, logits, target=target)


def power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent for x >= 0, with gradient 0 at 0, where the slope of a power below 1 is infinite."""
    some = x > 0
    at_zero = 1.0 if exponent == 0 else 0.0
    raised = torch.where(some, x, 1.0).pow(exponent)
    return torch.where(some | x.isnan(), raised + 0 * x, at_zero)


def _dense(
    name: str,
    logits: Tensor,
    target: Tensor,
    activation: str,
    gamma: float | None,
    ignore_index: int | None,
    align_corners: bool,
    intersection: str,
) -> RegionStatistics:
    check_masks(name, logits, target)
    y, valid = masks(name, logits, target, activation, ignore_index)
    with without_autocast(logits):
        wide = logits.to(y.dtype)
        full = ops.upsample_bilinear(wide, target.shape[2:], align_corners=align_corners).masked_fill(~valid, 0)
        log_p = full.log_softmax(1) if activation == "softmax" else F.logsigmoid(full)
        p = log_p.exp()

        def total(x: Tensor) -> Tensor:
            return x.masked_fill(~valid, 0).sum((2, 3))

        def surprise(share: Tensor, log_p: Tensor) -> Tensor:
            return -torch.where(share == 0, 0.0, share * log_p)  # 0 where nothing is asked of p = 0

        positive, negative = surprise(y, log_p), None
        if activation == "sigmoid":
            negative = surprise(1 - y, F.logsigmoid(-full))
        return RegionStatistics(
            tp=total(y * p if intersection == "product" else torch.minimum(y, p)),
            predicted=total(p),
            predicted_squared=total(p.square()),
            target=total(y),
            target_squared=total(y.square()),
            cross_entropy=total(positive),
            focal=None if gamma is None else total(power(-torch.expm1(log_p), gamma) * positive),
            pixels=valid.sum((1, 2, 3)).to(y.dtype),
            activation=activation,
            gamma=gamma,
            negative_cross_entropy=None if negative is None else total(negative),
            negative_focal=None if negative is None or gamma is None else total(power(p, gamma) * negative),
        )
