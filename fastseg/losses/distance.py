"""Losses of distance to the boundary, and the weights that U-Net gives to gaps between instances."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastseg import ops
from fastseg.losses.region import REDUCTIONS, check_weight, mean_of, quotient
from fastseg.losses.statistics import ACTIVATIONS, check_masks, masks, probabilities
from fastseg.ops.arguments import (
    checked_choice,
    checked_float,
    checked_target,
    is_readable,
    is_whole,
    without_autocast,
)


def boundary(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str = "softmax",
    spacing: Sequence[float] | None = None,
    include_background: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    align_corners: bool = False,
) -> Tensor:
    r"""Compute the boundary loss: the mean of probabilities times signed distances to the boundary of the target.

    .. math:: \frac{1}{N} \sum_i p_{ic}\, \phi_{ic}, \qquad \phi = D \text{ outside},\ -(D - 1) \text{ inside}

    with D the distance to the nearest pixel of the other side. It is linear in p and may be negative: it is meant to be
    added to a loss of overlap.

    Args:
        logits: [N, C, h, w] at any resolution.
        target: labels [N, H, W], or masks [N, C, H, W], whose side is the value above 1/2. It sets the full size.
        activation: `softmax` or `sigmoid`.
        spacing: size of a pixel along y and x; 1 and 1 by default.
        include_background: whether class 0 counts.
        weight: [C], a weight for each class, also of the background where that is left out.
        reduction: `mean` over the classes of an image, weighted, then over images; `sum`; or `none`, [N, C] (or
            [N, C - 1]), weighted.
        ignore_index: as in `statistics`; a pixel of this label counts in no mean, and is of no side in the distances.
        align_corners: as in `upsample_bilinear`.

    Returns:
        float32, or float64 for float64 logits. A class without a boundary in an image has loss 0 there, and the loss is
        0 with gradient 0 where all pixels are ignored.

    Memory: maps of full size. Gradient: of `logits`, once differentiable. Devices: CPU and CUDA. Errors: as
    `statistics`.

    Source: Kervadec et al. 2019, "Boundary loss for highly unbalanced segmentation" (arXiv 1812.07032), equation 5.

    Example:
        >>> loss = boundary(torch.randn(1, 2, 8, 8), torch.zeros(1, 16, 16, dtype=torch.uint8))
    """
    name = "boundary"
    p, y, valid = _maps(name, logits, target, activation, ignore_index, align_corners)
    with without_autocast(p):
        inside = y > 0.5
        away = _other_side(inside, valid, spacing, p.dtype)
        signed = torch.where(inside & (away > 0), 1 - away, away)
        # Labels that are no class have made y NaN where they cannot be looked at.
        loss = p * (signed + 0 * y)
        return _reduced(name, loss, valid, include_background, weight, reduction)


def hausdorff_dt(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str = "softmax",
    alpha: float = 2.0,
    one_sided: bool = False,
    spacing: Sequence[float] | None = None,
    include_background: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    align_corners: bool = False,
) -> Tensor:
    r"""Compute the Hausdorff loss by distance transforms: errors, weighted by how far they are from the boundaries.

    .. math:: \frac{1}{N} \sum_i (p_{ic} - y_{ic})^2 \left( D_{y}^\alpha + D_{p}^\alpha \right)_{ic}

    with D the distance to the nearest pixel of the other side, of the target and of the prediction p > 1/2: both have
    no gradient.

    Args:
        logits: as in `boundary`.
        target: as in `boundary`.
        activation: as in `boundary`.
        alpha: exponent of the distances.
        one_sided: leave out the distances of the prediction, which are computed anew in every step.
        spacing: as in `boundary`.
        include_background: as in `boundary`.
        weight: as in `boundary`.
        reduction: as in `boundary`.
        ignore_index: as in `boundary`.
        align_corners: as in `boundary`.

    Result, memory, gradient, devices and errors are those of `boundary`; distances are 0 where a map has one side only.

    Source: Karimi and Salcudean 2019, "Reducing the Hausdorff Distance" (arXiv 1904.10030), equations 8 and 9.

    Example:
        >>> loss = hausdorff_dt(torch.randn(1, 2, 8, 8), torch.zeros(1, 16, 16, dtype=torch.uint8))
    """
    name = "hausdorff_dt"
    if not checked_float(name, "alpha", alpha) > 0:
        raise ValueError(f"fastseg::{name}: alpha must be positive, got {alpha}")
    p, y, valid = _maps(name, logits, target, activation, ignore_index, align_corners)
    with without_autocast(p):
        field = _other_side(y > 0.5, valid, spacing, p.dtype).pow(alpha)
        if not one_sided:
            field = field + _other_side(p.detach() > 0.5, valid, spacing, p.dtype).pow(alpha)
        return _reduced(name, (p - y).square() * field, valid, include_background, weight, reduction)


def hausdorff_erosion(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str = "softmax",
    alpha: float = 2.0,
    erosions: int = 10,
    include_background: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    align_corners: bool = False,
) -> Tensor:
    r"""Compute the Hausdorff loss by erosions: errors count the more, the more erosions they survive.

    .. math:: \frac{1}{N} \sum_i \sum_{k=1}^{K} k^\alpha\, e_k, \qquad
        e_k = \mathrm{norm}\big(\max(B * e_{k-1} - \tfrac12, 0)\big), \qquad e_0 = (p - y)^2

    with B the mean over a pixel and its four neighbours, 0 beyond the image, and norm the map of an image and class
    onto [0, 1] by its minimum and maximum, where these differ. The value has no unit.

    Args:
        logits: as in `boundary`.
        target: as in `boundary`.
        activation: as in `boundary`.
        alpha: exponent of k.
        erosions: K.
        include_background: as in `boundary`.
        weight: as in `boundary`.
        reduction: as in `boundary`.
        ignore_index: as in `boundary`; a pixel of this label is an error of 0 to its neighbours, as one beyond the
            image, and is left out of minimum and maximum.
        align_corners: as in `boundary`.

    Result, memory (and two maps for each erosion), gradient, devices and errors are those of `boundary`.

    Source: Karimi and Salcudean 2019, "Reducing the Hausdorff Distance" (arXiv 1904.10030), equation 11, and the
        normalisation of its implementations, which the paper does not have.

    Example:
        >>> loss = hausdorff_erosion(torch.randn(1, 2, 8, 8), torch.zeros(1, 16, 16, dtype=torch.uint8))
    """
    name = "hausdorff_erosion"
    checked_float(name, "alpha", alpha)
    if not is_whole(erosions) or erosions < 1:
        raise ValueError(f"fastseg::{name}: erosions must be a whole number of at least 1, got {erosions!r}")
    p, y, valid = _maps(name, logits, target, activation, ignore_index, align_corners)
    with without_autocast(p):
        error = (p - y).square()  # 0 where ignored, as both are
        total = torch.zeros_like(error)
        for k in range(1, erosions + 1):
            # What an erosion computes on its way is computed again in the backward, not kept.
            error = checkpoint(_eroded, error, valid, use_reentrant=False, preserve_rng_state=False)
            total = total + error * k**alpha
        return _reduced(name, total, valid, include_background, weight, reduction)


def _eroded(error: Tensor, valid: Tensor) -> Tensor:
    if not error.numel():  # which has no maximum
        return error
    height, width = error.shape[2:]
    wide = F.pad(error, (1, 1, 1, 1))
    cross = error + wide[..., :height, 1:-1] + wide[..., 2:, 1:-1] + wide[..., 1:-1, :width] + wide[..., 1:-1, 2:]
    eroded = (cross / 5 - 0.5).relu().masked_fill(~valid, 0)
    # Errors are at least 0, so that 0 is no maximum but that of nothing.
    most = eroded.amax((2, 3), keepdim=True)
    least = eroded.masked_fill(~valid, math.inf).amin((2, 3), keepdim=True)
    differ = most > least
    least = torch.where(differ, least, 0.0)
    return ((eroded - least) / torch.where(differ, most - least, 1.0)).masked_fill(~valid, 0)


def border_weight_map(
    instances: Tensor, *, w0: float = 10.0, sigma: float = 5.0, ignore_index: int | None = None
) -> Tensor:
    r"""Compute the weights by which U-Net learns the gaps between touching instances.

    .. math:: w_0 \exp\left( -\frac{(d_1 + d_2)^2}{2 \sigma^2} \right)

    with d1 and d2 the distances to the nearest and to the second nearest instance; d1 is 0 within an instance. Added to
    the weights of the classes, or to 1, it is the `pixel_weight` of `cross_entropy`.

    Args:
        instances: [N, H, W] of integers, 0 for the background, any other value for an instance, in pieces or not.
        w0: the weight where two instances touch without a gap, nearly.
        sigma: in pixels.
        ignore_index: pixels of this value are of no instance and have weight 0. None ignores nothing.

    Returns:
        float32 [N, H, W]. With fewer than two instances weights are 0.

    Memory: as `instance_distances`, which measures to all instances in one pass. Gradient: none. Devices: CPU and CUDA.
    Errors: `ValueError` for a wrong dtype, rank, w0 or sigma; on the CPU labels beyond int32 raise.

    Source: Ronneberger et al. 2015, "U-Net" (arXiv 1505.04597), equation 2.

    Example:
        >>> border_weight_map(torch.tensor([[[1, 1, 1, 0, 0, 0, 2, 2, 2]]]))
        tensor([[[4.8675, 6.0653, 7.2615, 7.2615, 7.2615, 7.2615, 7.2615, 6.0653, 4.8675]]])
    """
    name = "border_weight_map"
    labels = checked_target(name, instances)
    for argument, value in (("w0", w0), ("sigma", sigma)):
        if not 0 < checked_float(name, argument, value) < math.inf:
            raise ValueError(f"fastseg::{name}: {argument} must be positive and finite, got {value}")
    ignored = torch.zeros_like(labels, dtype=torch.bool) if ignore_index is None else labels.long() == ignore_index
    labels = labels.masked_fill(ignored, 0)
    first, second = ops.instance_distances(labels, spatial_dims=2)
    weights = w0 * (-(first + second).square() / (2 * sigma**2)).exp()
    return weights.masked_fill(ignored, 0)


def _maps(
    name: str, logits: Tensor, target: Tensor, activation: str, ignore_index: int | None, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, target (0 where ignored) [N, C, H, W], and the valid pixels [N, 1, H, W]."""
    checked_choice(name, "activation", activation, ACTIVATIONS)
    check_masks(name, logits, target)
    y, valid = masks(name, logits, target, activation, ignore_index)
    with without_autocast(logits):
        p = probabilities(logits, target.shape[-2:], activation, align_corners)
    return p.masked_fill(~valid, 0), y, valid


def _other_side(mask: Tensor, valid: Tensor, spacing: Sequence[float] | None, dtype: torch.dtype) -> Tensor:
    """The distance to the nearest valid pixel on the other side of a boundary, 0 where there is none."""
    if is_readable(valid) and valid.all():
        away = ops.distance_transform(mask, spatial_dims=2, spacing=spacing, labels=True, dtype=dtype)
    else:
        inside, outside = mask & valid, ~mask & valid
        to_inside, to_outside = (
            ops.distance_transform(~side, spatial_dims=2, spacing=spacing, dtype=dtype) for side in (inside, outside)
        )
        assert isinstance(to_inside, Tensor) and isinstance(to_outside, Tensor)
        away = torch.where(mask, to_outside, to_inside)
    assert isinstance(away, Tensor)
    return away.masked_fill(away.isinf(), 0)


def _reduced(
    name: str, loss: Tensor, valid: Tensor, include_background: bool, weight: Tensor | None, reduction: str
) -> Tensor:
    """A map [N, C, H, W] -> its mean over the valid pixels, and the reduction over images and classes."""
    checked_choice(name, "reduction", reduction, REDUCTIONS)
    classes = loss.shape[1]
    check_weight(name, weight, classes)
    if not include_background and classes < 2:
        raise ValueError(f"fastseg::{name}: include_background must be True for a single class, got False")
    w = loss.new_ones(classes) if weight is None else weight.to(loss)
    counts = valid.sum((2, 3)).to(loss.dtype)
    each = quotient(loss.masked_fill(~valid, 0).sum((2, 3)), counts) * w
    if not include_background:
        each, w = each[:, 1:], w[1:]
    if reduction == "none":
        return each
    if reduction == "sum":
        return each.sum()
    return mean_of(quotient(each.sum(1), w.sum()), counts[:, 0] > 0)
