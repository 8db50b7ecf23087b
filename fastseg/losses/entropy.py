"""Losses of pixels: cross-entropy and focal."""

from typing import Unpack

import torch
from torch import Tensor

from fastseg.losses.region import NORMALIZERS, REDUCTIONS, check_reading, check_weight, quotient, read
from fastseg.losses.statistics import Reading, RegionStatistics, counted
from fastseg.ops.arguments import checked_choice, checked_float, wide_dtype
from fastseg.ops.upsample_loss import cross_entropy_and_weight


def cross_entropy(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ohem: float | None = None,
    normalizer: str = "weight",
    reduction: str = "mean",
    **reading: Unpack[Reading],
) -> Tensor:
    r"""Compute the cross-entropy of upsampled logits, of the softmax or of the sigmoid.

    .. math:: \frac{\sum_i p_i\, w_{t_i} (-\log q_{i t_i})}{\sum_i p_i\, w_{t_i}}
        \qquad\text{or}\qquad \frac{\sum_{ic} w_c (-y_{ic} \log q_{ic} - (1 - y_{ic}) \log (1 - q_{ic}))}{N \sum_c w_c}

    with w the class weights, p the pixel weights, and q the softmax (left) or the sigmoid of N pixels (right).

    Args:
        logits: [N, C, h, w] at any resolution, or `statistics` alone.
        target: labels [N, H, W], or masks or soft labels [N, C, H, W].
        weight: [C], a weight for each class.
        pixel_weight: [N, H, W], a weight for each pixel, from `border_weight_map`, say.
        label_smoothing: in [0, 1].
        ohem: share of the pixels, in (0, 1], that counts: those of the largest loss (online hard example mining). Their
            number is rounded down, but at least 1; the mean divides by it.
        normalizer: `weight` divides the mean by the sum of the weights, `count` by the number of pixels (and classes,
            with the sigmoid).
        reduction: `mean`, `sum`, or `none` for [N, H, W].
        reading: activation, ignore_index, align_corners and intersection, as in `statistics`.

    Returns:
        A scalar or [N, H, W], float32, or float64 for float64 logits; 0 with gradient 0 where all pixels are ignored.

    Pixel weights, smoothing, `ohem` and `none` need labels, the softmax, and logits rather than statistics: those
    have no pixels any more. Gradient: of `logits`, once differentiable. Devices and errors: as
    `fastseg.ops.upsample_cross_entropy` and `statistics`.

    Source: Ronneberger et al. 2015, "U-Net" (arXiv 1505.04597), equation 1, for pixel weights; Szegedy et al. 2016
        (arXiv 1512.00567), section 7, for smoothing; Shrivastava et al. 2016 (arXiv 1604.03540) for hard examples.

    Example:
        >>> logits, target = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(3, (2, 32, 32))
        >>> cross_entropy(logits, target, label_smoothing=0.1, ohem=0.25).backward()
    """
    name = "cross_entropy"
    checked_choice(name, "normalizer", normalizer, NORMALIZERS)
    checked_choice(name, "reduction", reduction, REDUCTIONS)
    check_reading(name, reading)
    per_pixel = {"pixel_weight": pixel_weight is not None, "label_smoothing": bool(label_smoothing),
                 "ohem": ohem is not None, "reduction": reduction == "none"}  # fmt: skip
    if not _has_labels(logits, target, reading):
        asked = [argument for argument, on in per_pixel.items() if on]
        if asked:
            raise ValueError(f"fastseg::{name}: {asked[0]} must be left alone without labels and logits of a softmax, "
                             f"got {asked}")  # fmt: skip
        s = read(name, logits, target, **reading)
        loss, negative = s.cross_entropy, s.negative_cross_entropy
        return _reduced(name, s, loss if negative is None else loss + negative, weight, normalizer, reduction)
    assert isinstance(logits, Tensor) and target is not None
    ignore_index = reading.get("ignore_index")
    wide = logits.to(wide_dtype(logits.dtype)) if logits.is_floating_point() else logits
    each = "none" if ohem is not None or reduction == "none" else "sum"
    loss, total = cross_entropy_and_weight(
        wide, target, weight, pixel_weight, ignore_index, label_smoothing, each, reading.get("align_corners", False)
    )
    if ohem is not None:
        return _hardest(name, loss, counted(name, target, ignore_index, logits.shape[1]), ohem, reduction)
    if reduction != "mean":
        return loss
    if normalizer == "count":
        total = counted(name, target, ignore_index, logits.shape[1]).sum()
    return quotient(loss, total.to(loss.dtype))


def _has_labels(logits: Tensor | RegionStatistics, target: Tensor | None, reading: Reading) -> bool:
    labels = isinstance(logits, Tensor) and isinstance(target, Tensor) and target.dim() == 3
    return labels and reading.get("activation", "softmax") == "softmax"


def _hardest(name: str, loss: Tensor, valid: Tensor, share: float, reduction: str) -> Tensor:
    """Losses of pixels [N, H, W] -> the mean or sum of the share of the valid ones that has the largest."""
    if not 0 < checked_float(name, "ohem", share) <= 1:
        raise ValueError(f"fastseg::{name}: ohem must be in (0, 1], got {share}")
    if reduction == "none":
        raise ValueError(f"fastseg::{name}: reduction must be mean or sum with ohem, got 'none'")
    if not loss.numel():
        return loss.sum()
    # As many as there could be; how many there are is not known before the device has counted them.
    ranked = loss.masked_fill(~valid, -1.0).flatten().topk(max(int(share * loss.numel()), 1)).values
    count = valid.sum()
    kept = (count.double() * share).floor().clamp_min(1).minimum(count)
    total = torch.where(torch.arange(len(ranked), device=loss.device) < kept, ranked, 0.0).sum()
    return total if reduction == "sum" else quotient(total, kept.to(total.dtype))


def focal(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    weight: Tensor | None = None,
    normalizer: str = "weight",
    reduction: str = "mean",
    **reading: Unpack[Reading],
) -> Tensor:
    r"""Compute the focal loss of upsampled logits, of the softmax or of the sigmoid.

    .. math:: -\alpha_t (1 - p_t)^\gamma \log p_t

    of the class of each pixel (softmax), or of each class against the rest, where :math:`p_t` is p or 1 - p (sigmoid).

    Args:
        logits: as in `cross_entropy`.
        target: as in `cross_entropy`.
        gamma: exponent, at least 0; 0 is the cross-entropy.
        alpha: in [0, 1]: weighs y = 1 by alpha and y = 0 by 1 - alpha (sigmoid), or classes 1, 2, ... by alpha and
            class 0 by 1 - alpha (softmax). None weighs nothing. It is not in the denominator of the mean.
        weight: [C], a weight for each class.
        normalizer: `weight` divides the mean by the sum of the weights, `count` by the number of pixels (and classes,
            with the sigmoid).
        reduction: `mean` or `sum`.
        reading: as in `cross_entropy`.

    Returns:
        A scalar, float32, or float64 for float64 logits; 0 with gradient 0 where all pixels are ignored.

    Gradient: of `logits`, once differentiable. Devices and errors: as `statistics`.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002), equation 5.

    Example:
        >>> logits, target = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(3, (2, 32, 32))
        >>> focal(logits, target, activation="sigmoid", alpha=0.25).backward()
    """
    name = "focal"
    checked_choice(name, "normalizer", normalizer, NORMALIZERS)
    checked_choice(name, "reduction", reduction, ("mean", "sum"))
    if alpha is not None and not 0 <= checked_float(name, "alpha", alpha) <= 1:
        raise ValueError(f"fastseg::{name}: alpha must be in [0, 1], got {alpha}")
    s = read(name, logits, target, gamma=float(gamma), **reading)
    loss, negative = s.focal, s.negative_focal
    assert loss is not None
    if negative is not None:
        loss = loss + negative if alpha is None else alpha * loss + (1 - alpha) * negative
    elif alpha is not None:
        loss = torch.cat([(1 - alpha) * loss[:, :1], alpha * loss[:, 1:]], 1)
    return _reduced(name, s, loss, weight, normalizer, reduction)


def _reduced(
    name: str, s: RegionStatistics, loss: Tensor, weight: Tensor | None, normalizer: str, reduction: str
) -> Tensor:
    """Sums [N, C] -> the weighted sum or mean over pixels, and with the sigmoid over classes."""
    classes = loss.shape[1]
    check_weight(name, weight, classes)
    w = loss.new_ones(classes) if weight is None else weight.to(loss)
    total = (loss * w).sum()
    if reduction == "sum":
        return total
    counts = s.target if s.activation == "softmax" else s.pixels[:, None].expand_as(loss)
    return quotient(total, (counts * w).sum() if normalizer == "weight" else counts.sum())
