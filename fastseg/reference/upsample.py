"""Bilinear upsampling and what segmentation does right after it, in plain PyTorch.

Half-precision inputs are computed in float32 and rounded once, at the end. Outputs keep the memory format of the
input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last where `x` [N, C, H, W] is stored so and not also NCHW, else contiguous."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _resized(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    if 0 in (*wide.shape[:2], height, width):  # interpolate takes no empty sizes
        return wide.new_zeros((*wide.shape[:2], height, width)) + 0 * wide.sum()
    return F.interpolate(wide, size=(height, width), mode="bilinear", align_corners=align_corners)


def upsample_bilinear(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """x [N, C, h, w] -> [N, C, H, W]."""
    return _resized(x, height, width, align_corners).to(x.dtype).contiguous(memory_format=memory_format(x))


def upsample_bilinear_backward(grad: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """The adjoint: grad [N, C, H, W] -> [N, C, h, w]."""
    wide = grad.float() if grad.dtype in (torch.bfloat16, torch.float16) else grad
    shape = (*grad.shape[:2], height, width)
    if grad.numel() == 0:
        return grad.new_zeros(shape).contiguous(memory_format=memory_format(grad))
    out = torch.ops.aten.upsample_bilinear2d_backward(wide, grad.shape[2:], shape, align_corners)
    return out.to(grad.dtype).contiguous(memory_format=memory_format(grad))


def upsample_argmax(logits: Tensor, height: int, width: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    """logits [N, C, h, w] -> labels [N, H, W]."""
    return _resized(logits, height, width, align_corners).argmax(1).to(dtype)


def upsample_argmax_confidence(
    logits: Tensor, height: int, width: int, align_corners: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """logits [N, C, h, w] -> labels [N, H, W] and the softmax probability of each label [N, H, W]."""
    full = _resized(logits, height, width, align_corners)
    return full.argmax(1).to(dtype), full.softmax(1).amax(1).contiguous()


def upsample_softmax(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """logits [N, C, h, w] -> probabilities [N, C, H, W]."""
    full = _resized(logits, height, width, align_corners)
    return full.softmax(1).to(logits.dtype).contiguous(memory_format=memory_format(logits))


def upsample_softmax_backward(grad: Tensor, output: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """grad, output [N, C, H, W] -> [N, C, h, w]: the adjoint of upsampling, of p * (g - sum_c g_c p_c)."""
    low = grad.dtype in (torch.bfloat16, torch.float16)
    g, p = (grad.float(), output.float()) if low else (grad, output)
    full = p * (g - (g * p).sum(1, keepdim=True))
    out = upsample_bilinear_backward(full, height, width, align_corners)
    return out.to(grad.dtype).contiguous(memory_format=memory_format(output))


def upsample_threshold(mask_logits: Tensor, height: int, width: int, threshold: float, align_corners: bool) -> Tensor:
    """mask_logits [N, C, h, w] -> bool [N, C, H, W]."""
    full = _resized(mask_logits, height, width, align_corners)
    return (full > threshold).contiguous(memory_format=memory_format(mask_logits))


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: int,
    align_corners: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """-> loss ([N, H, W] or scalar), log-sum-exp [N, H, W], and the sum of the weights of the valid pixels."""
    check_labels("upsample_cross_entropy", target, logits.shape[1], ignore_index)
    full = _resized(logits, target.shape[-2], target.shape[-1], align_corners)
    classes = full.shape[1]
    class_weight = full.new_ones(classes) if weight is None else weight.to(full.dtype)
    index = target.long()
    valid = index != ignore_index
    index = index.masked_fill(~valid, 0)
    pixel = class_weight[index] if pixel_weight is None else class_weight[index] * pixel_weight.to(full.dtype)
    pixel = pixel.masked_fill(~valid, 0)

    # Not torch.logsumexp, which is inf for a class at +inf where F.cross_entropy is NaN.
    most = full.detach().amax(1)
    lse = most + (full - most[:, None]).exp().sum(1).log()
    loss = (lse - full.gather(1, index[:, None])[:, 0]).masked_fill(~valid, 0) * pixel * (1 - label_smoothing)
    if label_smoothing:
        uniform = ((lse[:, None] - full) * class_weight[:, None, None]).sum(1).masked_fill(~valid, 0)
        extra = uniform if pixel_weight is None else uniform * pixel_weight.to(full.dtype)
        loss = loss + extra * (label_smoothing / classes)
    total = pixel.sum()
    if REDUCTIONS[reduction] == "mean":
        loss = loss.sum() / total
    elif REDUCTIONS[reduction] == "sum":
        loss = loss.sum()
    return loss.to(logits.dtype), lse, total


def upsample_cross_entropy_backward(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    lse: Tensor,
    total: Tensor,
    ignore_index: int,
    label_smoothing: float,
    reduction: int,
    align_corners: bool,
) -> Tensor:
    """Gradient of the loss with respect to logits [N, C, h, w]."""
    full = _resized(logits, target.shape[-2], target.shape[-1], align_corners)
    classes = full.shape[1]
    class_weight = full.new_ones(classes) if weight is None else weight.to(full.dtype)
    index = target.long()
    valid = index != ignore_index
    index = index.masked_fill(~valid, 0)
    scale = grad.to(full.dtype) / total if REDUCTIONS[reduction] == "mean" else grad.to(full.dtype)
    scale = scale.expand(target.shape) if pixel_weight is None else scale * pixel_weight.to(full.dtype)
    scale = scale.masked_fill(~valid, 0)
    hard = scale * class_weight[index] * (1 - label_smoothing)
    soft = (scale * (label_smoothing / classes))[:, None]
    probability = (full - lse[:, None]).exp()
    out = probability * (hard[:, None] + soft * class_weight.sum()) - soft * class_weight[:, None, None]
    out = out.scatter_add(1, index[:, None], -hard[:, None])
    out = upsample_bilinear_backward(out, logits.shape[2], logits.shape[3], align_corners)
    return out.to(logits.dtype).contiguous(memory_format=memory_format(logits))


def check_labels(op: str, labels: Tensor, classes: int, ignore_index: int | None, argument: str = "target") -> None:
    """Raise with the first label that is neither a class nor `ignore_index`, and its place."""
    wide = labels.long()  # a scalar beyond the dtype would wrap in the comparison
    bad = (wide < 0) | (wide >= classes)
    if ignore_index is not None:
        bad &= wide != ignore_index
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        raise RuntimeError(
            f"fastseg::{op}: {argument} must be in [0, {classes}) or ignore_index, got {int(labels[place])} at "
            f"{list(place)}"
        )
