"""The Lovász extension of the Jaccard loss."""

from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import region_loss as reference
from .arguments import (
    brief,
    check_devices,
    check_map,
    checked_choice,
    checked_ignore_index,
    checked_target,
    empty_images,
    wide_dtype,
)

CLASSES = ("present", "all")
MOST_PIXELS = 2**31 - 1  # of a segment: the kernels keep the place of a pixel in 31 bits


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: str = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
) -> Tensor:
    r"""The Lovász extension of the Jaccard loss of softmax probabilities.

    .. math:: \frac{1}{|C|} \sum_{c \in C} \sum_i e_{\pi_i} \left( J_i - J_{i-1} \right), \qquad
        e_i = |y_{ic} - p_{ic}|, \qquad J_i = 1 - \frac{G - F_i}{G + B_i}

    with :math:`\pi` the pixels in the order of falling errors e, :math:`F_i` of the first i inside the class, and
    :math:`B_i` outside of it, of G pixels inside in all.

    Args:
        logits: [N, C, H, W], float32, float64, bfloat16 or float16, NCHW or channels_last.
        target: [N, H, W] of uint8, int8, int16, int32 or int64 (of uint16 or uint32 by a wider copy).
        classes: `present`: the mean is over the classes that the target has; `all`: over all.
        per_image: the mean over images of the loss of each, instead of one loss of all pixels.
        ignore_index: pixels of this label count for nothing. None is 255, unless that is a class: then it has to be
            given.

    Returns:
        A scalar in the dtype of `logits` (float32 under autocast). With all pixels ignored, 0; an image without any
        counts as 0 in the mean.

    Memory: one map [N, C, H, W], kept for the backward, and two numbers per pixel and thread for the sort. Gradient: of
    `logits`, once differentiable; of equal errors the first pixel has the first step. Devices: CPU compiled, others
    through the reference. Errors: a label out of range raises with the first one and its place. Source: Berman et al.
    2018 (arXiv 1705.08790), alg. 1, eq. 9.

    Example:
        >>> loss = lovasz_softmax(torch.randn(2, 19, 64, 128, requires_grad=True),
        ...                       torch.zeros(2, 64, 128, dtype=torch.uint8))
        >>> loss.backward()
    """
    name = "lovasz_softmax"
    target, ignored = _checked(name, logits, target, ignore_index)
    present = checked_choice(name, "classes", classes, CLASSES) == "present"
    loss, _ = call(name, logits, target, ignored, present, per_image)
    return loss


def lovasz_hinge(logits: Tensor, target: Tensor, *, per_image: bool = True, ignore_index: int | None = None) -> Tensor:
    r"""The Lovász extension of the Jaccard loss of a foreground, by hinge errors.

    .. math:: \sum_i \max(0, e_{\pi_i}) \left( J_i - J_{i-1} \right), \qquad e_i = 1 - z_i (2 y_i - 1)

    with :math:`\pi` and J as in `lovasz_softmax`.

    Args:
        logits: [N, 1, H, W], float32, float64, bfloat16 or float16.
        target: [N, H, W], 0 or 1, of uint8, int8, int16, int32 or int64 (of uint16 or uint32 by a wider copy).
        per_image: the mean over images of the loss of each, instead of one loss of all pixels.
        ignore_index: pixels of this label count for nothing; None is 255.

    Returns:
        A scalar in the dtype of `logits` (float32 under autocast). With all pixels ignored, 0; an image without any
        counts as 0 in the mean.

    Memory: one map [N, 1, H, W], kept for the backward, and two numbers per pixel and thread for the sort. Gradient: of
    `logits`; of equal errors the first pixel has the first step. Devices: CPU compiled, others through the reference.
    Errors: a label out of range raises with the first one and its place. Source: Berman et al. 2018 (arXiv 1705.08790),
    alg. 1, sec. 2.3; Yu and Blaschko 2015.

    Example:
        >>> loss = lovasz_hinge(torch.randn(2, 1, 64, 128, requires_grad=True),
        ...                     torch.ones(2, 64, 128, dtype=torch.uint8))
        >>> loss.backward()
    """
    name = "lovasz_hinge"
    target, ignored = _checked(name, logits, target, ignore_index)
    if logits.shape[1] != 1:
        raise ValueError(f"fastseg::{name}: logits must be [N, 1, H, W], got {brief(logits)}")
    loss, _ = call(name, logits, target, ignored, per_image)
    return loss


def _checked(op: str, logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, int]:
    """The target and the label to ignore."""
    target = checked_target(op, target)
    check_map(op, "logits", logits)
    if target.shape != (logits.shape[0], *logits.shape[2:]) or logits.shape[1] == 0:
        raise ValueError(f"fastseg::{op}: logits must have the shape of target and at least one class, "
                         f"got {brief(logits)} for {list(target.shape)}")  # fmt: skip
    if target.numel() > MOST_PIXELS:
        raise ValueError(f"fastseg::{op}: target must have less than 2^31 pixels, got {list(target.shape)}")
    check_devices(op, logits, target=target)
    return target, checked_ignore_index(op, ignore_index, logits.shape[1])


def _fake(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(()), logits.new_empty(logits.shape, dtype=wide_dtype(logits.dtype))


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])


def _softmax_backward(ops: Any, ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    return ops.lovasz_softmax_backward(grad, *ctx.saved_tensors), *(None,) * 4


def _hinge_backward(ops: Any, ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    logits, slope = ctx.saved_tensors
    return (grad * slope).to(logits.dtype), *(None,) * 3


# The sort: of each pixel and class three passes of about 10 operations, beside 10 of the softmax.
declare(
    "lovasz_softmax(Tensor logits, Tensor target, SymInt ignore_index, bool present, bool per_image)"
    " -> (Tensor, Tensor)",
    reference=reference.lovasz_softmax,
    fake=_fake,
    setup_context=_context,
    backward=_softmax_backward,
    autocast=torch.float32,
    flops=lambda shape, *_, **__: 40 * shape.numel(),
)
declare(
    "lovasz_softmax_backward(Tensor grad, Tensor logits, Tensor slope) -> Tensor",
    reference=reference.lovasz_softmax_backward,
    fake=lambda grad, logits, _: empty_images(logits, tuple(logits.shape), logits.dtype),
    flops=lambda grad, shape, _, **__: 16 * shape.numel(),
    **not_differentiable("lovasz_softmax_backward"),
)
declare(
    "lovasz_hinge(Tensor logits, Tensor target, SymInt ignore_index, bool per_image) -> (Tensor, Tensor)",
    reference=reference.lovasz_hinge,
    fake=_fake,
    setup_context=_context,
    backward=_hinge_backward,
    autocast=torch.float32,
    flops=lambda shape, *_, **__: 40 * shape.numel(),
)
