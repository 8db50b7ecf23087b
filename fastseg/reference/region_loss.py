"""Sums over pixels that region losses are made of, and the Lovász extension of the Jaccard loss, in plain PyTorch.

Half-precision inputs are computed in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .upsample import _resized, check_labels, memory_format, upsample_bilinear_backward


def _truth(target: Tensor, first: int, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Of target [N, H, W] which pixels count [N, 1, H, W], and which are of each class from `first` on [N, C, H, W]."""
    index = target.long()[:, None]
    valid = index != ignore_index
    return valid, valid & (index == torch.arange(first, first + classes, device=target.device)[:, None, None])


def _first(classes: int, sigmoid: bool) -> int:
    """The label of the first class: a single one under sigmoid is that of label 1."""
    return int(sigmoid and classes == 1)


def _logarithms(full: Tensor, sigmoid: bool) -> tuple[Tensor, Tensor]:
    """log p, and log(1 - p) where that is cheap."""
    return (F.logsigmoid(full), F.logsigmoid(-full)) if sigmoid else (full.log_softmax(1), full)


def _power(x: Tensor, gamma: float) -> Tensor:
    """x^gamma; 0 at 0, where its slope may be infinite, as is what this is multiplied by."""
    return torch.where(x > 0, torch.where(x > 0, x, 1) ** gamma, 0)


def region_statistics(
    logits: Tensor, target: Tensor, sigmoid: bool, gamma: float | None, ignore_index: int, align_corners: bool
) -> Tensor:
    """-> [N, C, 6], or [N, C, 8] with sigmoid."""
    classes = logits.shape[1]
    check_labels("region_statistics", target, classes + _first(classes, sigmoid), ignore_index)
    full = _resized(logits, target.shape[-2], target.shape[-1], align_corners)
    valid, true = _truth(target, _first(classes, sigmoid), classes, ignore_index)
    yes, no = _logarithms(full, sigmoid)
    p, q = (yes.exp(), no.exp()) if sigmoid else (yes.exp(), -torch.expm1(yes))

    def total(x: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, x, 0).sum((2, 3))

    def focal(log: Tensor, other: Tensor, where: Tensor) -> Tensor:
        return total(torch.zeros_like(log) if gamma is None else -log * _power(other, gamma), where)

    false = valid & ~true
    sums = [total(p, true), total(p, valid), total(p * p, valid), true.sum((2, 3)).to(p.dtype)]
    sums += [total(-yes, true), focal(yes, q, true)]
    if sigmoid:
        sums += [total(-no, false), focal(no, p, false)]
    return torch.stack(sums, -1)


def region_statistics_backward(
    grad: Tensor,
    logits: Tensor,
    target: Tensor,
    sigmoid: bool,
    gamma: float | None,
    ignore_index: int,
    align_corners: bool,
) -> Tensor:
    """Gradient of the sums with respect to logits [N, C, h, w]."""
    full = _resized(logits, target.shape[-2], target.shape[-1], align_corners)
    valid, true = _truth(target, _first(logits.shape[1], sigmoid), logits.shape[1], ignore_index)
    yes, no = _logarithms(full, sigmoid)
    p, q = (yes.exp(), no.exp()) if sigmoid else (yes.exp(), -torch.expm1(yes))
    g = grad.to(full.dtype)[..., None, None].unbind(2)

    def of_logarithm(log: Tensor, own: Tensor, other: Tensor, plain: Tensor, focal: Tensor) -> Tensor:
        """Gradient of the cross-entropy and the focal sum with respect to log p, whose slope in 1 - p is -p."""
        if gamma is None:
            return -plain
        slope = torch.where(other > 0, _power(other, gamma - 1) * log, 0) * own * gamma - _power(other, gamma)
        return focal * slope - plain

    region = torch.where(valid, g[1] + 2 * g[2] * p + torch.where(true, g[0], 0), 0) * p
    positive = region + torch.where(true, of_logarithm(yes, p, q, g[4], g[5]), 0)
    if sigmoid:
        negative = torch.where(valid & ~true, of_logarithm(no, q, p, g[6], g[7]), 0)
        out = positive * q - negative * p
    else:
        out = positive - p * positive.sum(1, keepdim=True)
    out = upsample_bilinear_backward(out, logits.shape[2], logits.shape[3], align_corners)
    return out.to(logits.dtype).contiguous(memory_format=memory_format(logits))


def _lovasz(errors: Tensor, true: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """errors [S, C, P], none below 0 -> their loss [S, C] and its slope [S, C, P] in each: the steps of the Jaccard
    loss, in the order of falling errors."""
    order = errors.detach().masked_fill(~valid, -1).sort(dim=-1, descending=True, stable=True).indices
    hit = true.gather(-1, order)
    total = hit.sum(-1, keepdim=True)
    inside = total - hit.cumsum(-1)
    union = total + (~hit).cumsum(-1)
    # jaccard[i] - jaccard[i - 1], without the difference of numbers near 1
    step = torch.where(hit, 1 / union.double(), inside / (union * (union - 1)).clamp(min=1).double())
    first = torch.arange(hit.shape[-1], device=hit.device) == 0
    step = torch.where(total == 0, first.double(), step).to(errors.dtype)
    slope = torch.zeros_like(step).scatter(-1, order, step).masked_fill(~valid, 0)
    return (torch.where(valid, errors, 0) * slope).sum(-1), slope


def _segments(x: Tensor, per_image: bool) -> Tensor:
    """[N, C, H, W] -> [N, C, pixels], or [1, C, pixels] of the batch as one image."""
    return x.flatten(2) if per_image else x.transpose(0, 1).flatten(1)[None]


def _images(x: Tensor, shape: torch.Size) -> Tensor:
    """`_segments`, undone."""
    n, c, h, w = shape
    return x.view(shape) if x.shape[0] == n else x.view(c, n, h, w).transpose(0, 1).contiguous()


def _mean_lovasz(errors: Tensor, true: Tensor, valid: Tensor, present: bool, per_image: bool) -> tuple[Tensor, Tensor]:
    """-> the mean over segments of the mean over classes, and its slope [N, C, H, W] in the errors."""
    if errors.numel() == 0:
        return errors.sum(), torch.zeros_like(errors)
    rows = [_segments(x, per_image) for x in (errors, true, valid.expand_as(true))]
    losses, slope = _lovasz(*rows)
    counted = (rows[1] if present else rows[2]).any(-1)
    share = counted.to(losses.dtype) / (counted.sum(1, keepdim=True).clamp(min=1) * losses.shape[0])
    return (losses * share).sum(), _images(slope * share[..., None], errors.shape)


def lovasz_softmax(
    logits: Tensor, target: Tensor, ignore_index: int, present: bool, per_image: bool
) -> tuple[Tensor, Tensor]:
    """-> the loss, and its slope [N, C, H, W] in the probabilities."""
    check_labels("lovasz_softmax", target, logits.shape[1], ignore_index)
    valid, true = _truth(target, 0, logits.shape[1], ignore_index)
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    p = wide.softmax(1)
    loss, slope = _mean_lovasz(torch.where(true, 1 - p, p), true, valid, present, per_image)
    return loss.to(logits.dtype), torch.where(true, -slope, slope).detach().contiguous()


def lovasz_softmax_backward(grad: Tensor, logits: Tensor, slope: Tensor) -> Tensor:
    """Gradient of the loss with respect to logits [N, C, H, W]."""
    p = logits.to(slope.dtype).softmax(1)
    out = grad.to(slope.dtype) * p * (slope - (p * slope).sum(1, keepdim=True))
    return out.to(logits.dtype).contiguous(memory_format=memory_format(logits))


def lovasz_hinge(logits: Tensor, target: Tensor, ignore_index: int, per_image: bool) -> tuple[Tensor, Tensor]:
    """-> the loss, and its slope [N, 1, H, W] in the logits."""
    check_labels("lovasz_hinge", target, 2, ignore_index)
    valid, true = _truth(target, 1, 1, ignore_index)
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    sign = torch.where(true, 1, -1).to(wide.dtype)
    errors = (1 - wide * sign).relu()
    loss, slope = _mean_lovasz(errors, true, valid, False, per_image)
    return loss.to(logits.dtype), torch.where(errors > 0, -slope * sign, 0).detach().contiguous()
