"""Cross-entropy of upsampled logits."""

from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import upsample as reference
from .arguments import (
    brief,
    check_devices,
    checked_float,
    checked_ignore_index,
    checked_maps,
    checked_target,
    empty_images,
    pixels,
    wide_dtype,
)


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    align_corners: bool = False,
) -> Tensor:
    r"""Cross-entropy at full resolution of logits at source resolution, without the full-size logits.

    .. math:: \ell_i = p_i \left[ (1 - \epsilon)\, w_{t_i} (L_i - z_{i t_i})
        + \tfrac{\epsilon}{C} \sum_c w_c (L_i - z_{ic}) \right], \qquad L_i = \log \sum_c e^{z_{ic}}

    with z the upsampled logits, w the class weights, p the pixel weights and :math:`\epsilon` the label smoothing.
    ``mean`` divides the sum by :math:`\sum_i p_i w_{t_i}` over the pixels that are not ignored, as
    `torch.nn.functional.cross_entropy`; with all pixels ignored it is NaN, as there.

    Args:
        logits: [N, C, h, w], float32, float64, bfloat16 or float16, NCHW or channels_last.
        target: [N, H, W] of uint8, int8, int16, int32 or int64 (of uint16 or uint32 by a wider copy), at the resolution
            of the loss.
        weight: [C], one weight per class.
        pixel_weight: [N, H, W], one weight per pixel (the border weights of U-Net, say).
        ignore_index: pixels of this label count for nothing. None is 255, unless that is a class: then it has to be
            given.
        label_smoothing: in [0, 1].
        reduction: `mean`, `sum` or `none`.
        align_corners: as in `upsample_bilinear`.

    Returns:
        A scalar, or [N, H, W] for `none`, in the dtype of `logits` (float32 under autocast).

    Memory: forward and backward hold one float per pixel (the log of its sum) instead of several per pixel and class.
    Gradient: of `logits`, once differentiable, gathered at source resolution and bitwise repeatable; `weight` and
    `pixel_weight` have none. Devices: CPU and CUDA compiled, others through the reference. Errors: a label out of range
    raises with the first one and its place; on CUDA, which is not waited for, it makes the loss NaN, and raises so
    under `FASTSEG_CHECK=1`, which waits.

    Example:
        >>> loss = upsample_cross_entropy(torch.randn(2, 19, 32, 64, requires_grad=True),
        ...                               torch.zeros(2, 256, 512, dtype=torch.uint8))
        >>> loss.backward()
    """
    loss, _ = cross_entropy_and_weight(
        logits, target, weight, pixel_weight, ignore_index, label_smoothing, reduction, align_corners
    )
    return loss


def cross_entropy_and_weight(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int | None,
    label_smoothing: float,
    reduction: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """`upsample_cross_entropy`, and the sum of the weights that `mean` divides by, whatever the reduction."""
    name = "upsample_cross_entropy"
    target = checked_target(name, target)
    checked_maps(name, "logits", logits, target.shape[1:])
    if target.shape[0] != logits.shape[0] or logits.shape[1] == 0:
        raise ValueError(
            f"fastseg::{name}: logits must have the batch of target and at least one class, got {brief(logits)}"
        )
    for argument, value, shape in (("weight", weight, logits.shape[1:2]), ("pixel_weight", pixel_weight, target.shape)):
        if value is not None and (
            not isinstance(value, Tensor)
            or value.shape != shape
            or not value.is_floating_point()
            or value.requires_grad
        ):
            raise ValueError(f"fastseg::{name}: {argument} must be floating, {list(shape)} and without gradient, "
                             f"got {brief(value)}")  # fmt: skip
    if reduction not in reference.REDUCTIONS:
        raise ValueError(f"fastseg::{name}: reduction must be one of {reference.REDUCTIONS}, got {reduction!r}")
    smoothing = checked_float(name, "label_smoothing", label_smoothing)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"fastseg::{name}: label_smoothing must be in [0, 1], got {label_smoothing}")
    ignored = checked_ignore_index(name, ignore_index, logits.shape[1])
    check_devices(name, logits, target=target, weight=weight, pixel_weight=pixel_weight)
    options = (ignored, smoothing, reference.REDUCTIONS.index(reduction), align_corners)
    loss, _, total = call(name, logits, target, weight, pixel_weight, *options)
    return loss, total


def _fake(logits: Tensor, target: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    wide = wide_dtype(logits.dtype)
    loss = logits.new_empty(target.shape if options[4] == 0 else ())
    return loss, logits.new_empty(target.shape, dtype=wide), logits.new_empty((), dtype=wide)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], *output[1:])
    ctx.options = inputs[4:]
    ctx.mark_non_differentiable(*output[1:])


def _backward(ops: Any, ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    out = ops.upsample_cross_entropy_backward(grad, *ctx.saved_tensors, *ctx.options)
    return out, *(None,) * 7


# `lse` is for the backward of the same side: the reference keeps the log-sum-exp, the kernels that of differences.
_OPTIONS = "SymInt ignore_index, float label_smoothing, int reduction, bool align_corners)"
declare(
    f"upsample_cross_entropy(Tensor logits, Tensor target, Tensor? weight, Tensor? pixel_weight, {_OPTIONS}"
    " -> (Tensor, Tensor, Tensor)",
    reference=reference.upsample_cross_entropy,
    fake=_fake,
    setup_context=_context,
    backward=_backward,
    autocast=torch.float32,
    flops=lambda shape, target, *_, **__: 18 * pixels(shape, *target[1:]),
)
declare(
    "upsample_cross_entropy_backward(Tensor grad, Tensor logits, Tensor target, Tensor? weight, Tensor? pixel_weight,"
    f" Tensor lse, Tensor total, {_OPTIONS} -> Tensor",
    reference=reference.upsample_cross_entropy_backward,
    fake=lambda grad, logits, *_: empty_images(logits, tuple(logits.shape), logits.dtype),
    flops=lambda grad, shape, target, *_, **__: 20 * pixels(shape, *target[1:]),
    **not_differentiable("upsample_cross_entropy_backward"),
)
