"""Bilinear upsampling, alone and fused with argmax, softmax and threshold; `upsample_loss` has the cross-entropy."""

from typing import Any

import torch
from torch import Tensor

from .._registry import INTEGERS, call, declare, not_differentiable
from ..reference import upsample as reference
from .arguments import Size, checked_float, checked_maps, empty_images, pixels, wide_dtype


def upsample_bilinear(x: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    r"""Resize a batch of maps bilinearly to any size.

    .. math:: y_{ncYX} = \sum_{ab} w^y_{Ya} \, w^x_{Xb} \, x_{ncab}, \qquad
        w_{Pa} = \max(0, 1 - |s(P) - a|)

    with :math:`s(P) = (P + 1/2)\,in/out - 1/2`, clamped to the map, or :math:`P\,(in - 1)/(out - 1)` with
    ``align_corners``: `torch.nn.functional.interpolate(mode="bilinear")` without antialiasing.

    Args:
        x: [N, C, h, w], float32, float64, bfloat16 or float16, NCHW or channels_last.
        size: output height and width in pixels, or one number for both.
        align_corners: whether the centres of the corner pixels coincide.

    Returns:
        [N, C, H, W] in the dtype and memory format of `x`. Half precision is computed in float32.

    Gradient: exact and differentiable again; gathered per source pixel, so bitwise repeatable. Devices: CPU compiled,
    CUDA by Triton (its gradient compiled), others through the reference. Errors: `RuntimeError` / `ValueError` naming
    the argument for a wrong rank, dtype or size.

    Example:
        >>> upsample_bilinear(torch.randn(1, 19, 128, 256), (1024, 2048)).shape
        torch.Size([1, 19, 1024, 2048])
    """
    return call("upsample_bilinear", x, *checked_maps("upsample_bilinear", "x", x, size), align_corners)


def upsample_argmax(
    logits: Tensor,
    size: Size,
    *,
    align_corners: bool = False,
    dtype: torch.dtype = torch.uint8,
    return_confidence: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Label map of upsampled logits, without the full-size logits.

    .. math:: l_{nYX} = \arg\max_c \; \mathrm{upsample}(x)_{ncYX}

    Between four source pixels bilinear interpolation is a convex combination, so where one class wins at all four it
    wins in the whole cell: the argmax is computed once at source resolution, and in full only in the other cells.

    Args:
        logits: [N, C, h, w] with C >= 1, float32, float64, bfloat16 or float16, NCHW or channels_last.
        size: as in `upsample_bilinear`.
        align_corners: as in `upsample_bilinear`.
        dtype: of the labels: uint8, int8, int16, int32 or int64; C must fit.
        return_confidence: also return the softmax probability of each label [N, H, W].

    Returns:
        Labels [N, H, W]; the lowest index wins a tie, and NaN wins over all (as `torch.argmax`). With
        `return_confidence`, also the probabilities (float64 for float64 logits, float32 otherwise).

    Memory: the labels and a bounded scratch; the unfused form needs 4 * C bytes per pixel more. Gradient: none; the
    confidence is detached, as the labels are. Devices: CPU and CUDA compiled, others through the reference.

    Example:
        >>> upsample_argmax(torch.randn(1, 21, 65, 65), (513, 513)).dtype
        torch.uint8
    """
    name = "upsample_argmax_confidence" if return_confidence else "upsample_argmax"
    height, width = checked_maps(name, "logits", logits, size)
    classes = logits.shape[1]
    if dtype not in INTEGERS:
        raise ValueError(f"fastseg::{name}: dtype must be one of {INTEGERS}, got {dtype}")
    if not 1 <= classes <= torch.iinfo(dtype).max + 1:
        raise ValueError(f"fastseg::{name}: logits must have 1 to {torch.iinfo(dtype).max + 1} classes for {dtype}, "
                         f"got {classes}")  # fmt: skip
    return call(name, logits, height, width, align_corners, dtype)


def upsample_softmax(logits: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    r"""Class probabilities of upsampled logits, written once.

    .. math:: p_{ncYX} = \exp(z_{ncYX}) / \sum_k \exp(z_{nkYX}), \qquad z = \mathrm{upsample}(x)

    Args:
        logits: [N, C, h, w], float32, float64, bfloat16 or float16, NCHW or channels_last.
        size: as in `upsample_bilinear`.
        align_corners: as in `upsample_bilinear`.

    Returns:
        [N, C, H, W] in the dtype and memory format of `logits` (float32 under autocast).

    Memory: the output alone; the unfused form holds the full-size logits beside it. Gradient: exact, once
    differentiable. Devices: CPU and CUDA compiled, others through the reference.

    Example:
        >>> upsample_softmax(torch.randn(1, 21, 65, 65), (513, 513)).sum(1).mean()
        tensor(1.)
    """
    height, width = checked_maps("upsample_softmax", "logits", logits, size)
    return call("upsample_softmax", logits, height, width, align_corners)


def upsample_threshold(
    mask_logits: Tensor, size: Size, threshold: float = 0.0, *, align_corners: bool = False
) -> Tensor:
    r"""Binary masks of upsampled mask logits, one bool per pixel.

    .. math:: m_{ncYX} = [\, \mathrm{upsample}(x)_{ncYX} > \tau \,]

    Args:
        mask_logits: [N, C, h, w], float32, float64, bfloat16 or float16, NCHW or channels_last.
        size: as in `upsample_bilinear`.
        threshold: in logits; a value equal to it, or NaN, is False.
        align_corners: as in `upsample_bilinear`.

    Returns:
        bool [N, C, H, W] in the memory format of `mask_logits`.

    Memory: one byte per pixel and mask; the unfused form needs four more. Gradient: none. Devices: CPU compiled, CUDA
    by Triton, others through the reference.

    Example:
        >>> upsample_threshold(torch.randn(1, 100, 160, 160), (640, 640)).dtype
        torch.bool
    """
    height, width = checked_maps("upsample_threshold", "mask_logits", mask_logits, size)
    level = checked_float("upsample_threshold", "threshold", threshold)
    return call("upsample_threshold", mask_logits, height, width, level, align_corners)


def _save_size(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.size, ctx.align_corners = inputs[0].shape[2:], inputs[3]


def _bilinear_backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.upsample_bilinear_backward(grad, *ctx.size, ctx.align_corners), None, None, None


def _bilinear_again(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.upsample_bilinear(grad, *ctx.size, ctx.align_corners), None, None, None


def _save_output(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _save_size(ctx, inputs, output)
    ctx.save_for_backward(output)


def _softmax_backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    size = *ctx.size, ctx.align_corners
    return ops.upsample_softmax_backward(grad, *ctx.saved_tensors, *size), None, None, None


def _detached(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output)


declare(
    "upsample_bilinear(Tensor x, SymInt height, SymInt width, bool align_corners) -> Tensor",
    reference=reference.upsample_bilinear,
    triton="upsample",
    fake=lambda x, h, w, align: empty_images(x, (*x.shape[:2], h, w), x.dtype),
    setup_context=_save_size,
    backward=_bilinear_backward,
    per_sample=True,
    flops=lambda shape, h, w, *_, **__: 6 * pixels(shape, h, w),
)
declare(
    "upsample_bilinear_backward(Tensor grad, SymInt height, SymInt width, bool align_corners) -> Tensor",
    reference=reference.upsample_bilinear_backward,
    fake=lambda grad, h, w, align: empty_images(grad, (*grad.shape[:2], h, w), grad.dtype),
    setup_context=_save_size,
    backward=_bilinear_again,
    per_sample=True,
    flops=lambda shape, *_, **__: 6 * pixels(shape, *shape[2:]),
)
declare(
    "upsample_argmax(Tensor logits, SymInt height, SymInt width, bool align_corners, ScalarType dtype) -> Tensor",
    reference=reference.upsample_argmax,
    fake=lambda x, h, w, align, dtype: x.new_empty((x.shape[0], h, w), dtype=dtype),
    per_sample=True,
    flops=lambda shape, h, w, *_, **__: 7 * pixels(shape, h, w),
)
declare(
    "upsample_argmax_confidence(Tensor logits, SymInt height, SymInt width, bool align_corners, ScalarType dtype)"
    " -> (Tensor, Tensor)",
    reference=reference.upsample_argmax_confidence,
    fake=lambda x, h, w, align, dtype: (
        x.new_empty((x.shape[0], h, w), dtype=dtype),
        x.new_empty((x.shape[0], h, w), dtype=wide_dtype(x.dtype)),
    ),
    per_sample=True,
    flops=lambda shape, h, w, *_, **__: 17 * pixels(shape, h, w),
    setup_context=_detached,
    backward=lambda *_: (None,) * 5,
)
declare(
    "upsample_softmax(Tensor logits, SymInt height, SymInt width, bool align_corners) -> Tensor",
    reference=reference.upsample_softmax,
    fake=lambda x, h, w, align: empty_images(x, (*x.shape[:2], h, w), x.dtype),
    setup_context=_save_output,
    backward=_softmax_backward,
    autocast=torch.float32,
    per_sample=True,
    flops=lambda shape, h, w, *_, **__: 18 * pixels(shape, h, w),
)
declare(
    "upsample_softmax_backward(Tensor grad, Tensor output, SymInt height, SymInt width, bool align_corners) -> Tensor",
    reference=reference.upsample_softmax_backward,
    fake=lambda grad, output, h, w, align: empty_images(output, (*output.shape[:2], h, w), output.dtype),
    per_sample=True,
    flops=lambda shape, *_, **__: 10 * pixels(shape, *shape[2:]),
    **not_differentiable("upsample_softmax_backward"),
)
declare(
    "upsample_threshold(Tensor mask_logits, SymInt height, SymInt width, float threshold, bool align_corners)"
    " -> Tensor",
    reference=reference.upsample_threshold,
    triton="upsample",
    fake=lambda x, h, w, threshold, align: empty_images(x, (*x.shape[:2], h, w), torch.bool),
    per_sample=True,
    flops=lambda shape, h, w, *_, **__: 7 * pixels(shape, h, w),
)
