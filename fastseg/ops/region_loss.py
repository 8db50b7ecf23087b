"""Sums over pixels that region losses are made of."""

from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import region_loss as reference
from .arguments import (
    brief,
    check_devices,
    checked_choice,
    checked_float,
    checked_ignore_index,
    checked_maps,
    checked_target,
    empty_images,
    pixels,
    wide_dtype,
)

ACTIVATIONS = ("softmax", "sigmoid")


def region_statistics(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str = "softmax",
    gamma: float | None = None,
    ignore_index: int | None = None,
    align_corners: bool = False,
) -> Tensor:
    r"""Sums of each image and class at full resolution that Dice, Jaccard, Tversky, focal loss and cross-entropy are
    functions of, from logits at source resolution, without the full-size logits.

    .. math:: \Big[\sum y p,\; \sum p,\; \sum p^2,\; \sum y,\; -\sum y \log p,\; -\sum y (1 - p)^\gamma \log p \Big]
        \quad \Big[ -\sum (1 - y) \log (1 - p),\; -\sum (1 - y) p^\gamma \log (1 - p) \Big]

    over the pixels that are not ignored, with p the probabilities of the upsampled logits, and y the truth: 1 where the
    pixel is of the class. The last two are for ``sigmoid`` alone. Soft Dice of a class is
    :math:`2 \sum y p / (\sum p + \sum y)`, say, and the cross-entropy with class weights w the sum of
    :math:`-w_c \sum y_c \log p_c` over that of :math:`w_c \sum y_c`.

    Args:
        logits: [N, C, h, w], float32, float64, bfloat16 or float16, NCHW or channels_last.
        target: [N, H, W] of uint8, int8, int16, int32 or int64 (of uint16 or uint32 by a wider copy), at the resolution
            of the sums; the index of a class. Of one class under ``sigmoid``: 0 or 1.
        activation: `softmax`, or `sigmoid` for each class against the rest.
        gamma: of the focal sums, at least 0; None leaves them 0.
        ignore_index: pixels of this label count for nothing. None is 255, unless that is a class: then it has to be
            given.
        align_corners: as in `upsample_bilinear`.

    Returns:
        [N, C, 6], with ``sigmoid`` [N, C, 8], float32 (float64 of float64). With all pixels ignored, zeros.

    Memory: forward and backward hold nothing of full size but the target. Gradient: of `logits`, once differentiable,
    gathered at source resolution and bitwise repeatable; where 1 - p is 0 that of the focal sum is 0, its limit, though
    the slope of :math:`(1 - p)^\gamma` is infinite for gamma below 1. Devices: CPU compiled, others through the
    reference. Errors: a label out of range raises with the first one and its place. Source: Lin et al. 2017, eq. 4;
    Milletari et al. 2016, eq. 1; Salehi et al. 2017, eq. 3.

    Example:
        >>> sums = region_statistics(torch.randn(2, 19, 32, 64, requires_grad=True),
        ...                          torch.zeros(2, 256, 512, dtype=torch.uint8))
        >>> overlap, predicted, _, true = sums.sum(0).unbind(1)[:4]
        >>> (1 - 2 * overlap / (predicted + true)).mean().backward()
    """
    name = "region_statistics"
    target = checked_target(name, target)
    checked_maps(name, "logits", logits, target.shape[1:])
    if target.shape[0] != logits.shape[0] or logits.shape[1] == 0:
        raise ValueError(
            f"fastseg::{name}: logits must have the batch of target and at least one class, got {brief(logits)}"
        )
    sigmoid = checked_choice(name, "activation", activation, ACTIVATIONS) == "sigmoid"
    power = None if gamma is None else checked_float(name, "gamma", gamma)
    if power is not None and not 0.0 <= power < float("inf"):
        raise ValueError(f"fastseg::{name}: gamma must be at least 0 and finite, got {gamma}")
    ignored = checked_ignore_index(name, ignore_index, logits.shape[1])
    check_devices(name, logits, target=target)
    out: Tensor = call(name, logits, target, sigmoid, power, ignored, align_corners)
    return out


def _context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.region_statistics_backward(grad, *ctx.saved_tensors, *ctx.options), *(None,) * 5


_OPTIONS = "bool sigmoid, float? gamma, SymInt ignore_index, bool align_corners)"
declare(
    f"region_statistics(Tensor logits, Tensor target, {_OPTIONS} -> Tensor",
    reference=reference.region_statistics,
    fake=lambda x, target, sigmoid, *_: x.new_empty((*x.shape[:2], 6 + 2 * sigmoid), dtype=wide_dtype(x.dtype)),
    setup_context=_context,
    backward=_backward,
    autocast=torch.float32,
    per_sample=True,
    flops=lambda shape, target, sigmoid, *_, **__: (40 if sigmoid else 20) * pixels(shape, *target[1:]),
)
declare(
    f"region_statistics_backward(Tensor grad, Tensor logits, Tensor target, {_OPTIONS} -> Tensor",
    reference=reference.region_statistics_backward,
    fake=lambda grad, logits, *_: empty_images(logits, tuple(logits.shape), logits.dtype),
    per_sample=True,
    flops=lambda grad, shape, target, sigmoid, *_, **__: (50 if sigmoid else 30) * pixels(shape, *target[1:]),
    **not_differentiable("region_statistics_backward"),
)
