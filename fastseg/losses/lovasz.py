"""The Lovász extensions of the Jaccard loss, of logits at any resolution."""

from torch import Tensor

from fastseg import ops
from fastseg.losses.region import quotient
from fastseg.losses.statistics import counted
from fastseg.ops.arguments import (
    checked_maps,
    checked_target,
    wide_dtype,
    without_autocast,
)


def lovasz_softmax(
    logits: Tensor,
    target: Tensor,
    *,
    classes: str = "present",
    per_image: bool = False,
    ignore_index: int | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Compute the Lovász-softmax loss of `fastseg.ops.lovasz_softmax` at the resolution of the target.

    Args:
        logits: [N, C, h, w] at any resolution.
        target: labels [N, H, W].
        classes: mean over the classes that are `present` in the target, or over `all`.
        per_image: the mean of the losses of the images, instead of one loss of all pixels.
        ignore_index: pixels of this label count nowhere; an image without others is no member of the mean.
        align_corners: as in `upsample_bilinear`.

    Returns:
        A scalar, float32, or float64 for float64 logits; 0 with gradient 0 where all pixels are ignored.

    Gradient: of `logits`, once differentiable, one of the subgradients where errors are equal. Memory: logits of full
    size, and what the op says. Devices and errors: as the op.

    Source: Berman et al. 2018, "The Lovász-Softmax loss" (arXiv 1705.08790), equation 11.

    Example:
        >>> loss = lovasz_softmax(torch.randn(1, 3, 8, 8), torch.zeros(1, 32, 32, dtype=torch.uint8))
    """
    name = "lovasz_softmax"
    full = _full(name, logits, target, align_corners)
    loss = ops.lovasz_softmax(full, target, classes=classes, per_image=per_image, ignore_index=ignore_index)
    return _of_images(name, loss, target, ignore_index, logits.shape[1]) if per_image else loss


def lovasz_hinge(
    logits: Tensor,
    target: Tensor,
    *,
    per_image: bool = True,
    ignore_index: int | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Compute the Lovász hinge loss of `fastseg.ops.lovasz_hinge` at the resolution of the target.

    Args:
        logits: [N, 1, h, w] at any resolution.
        target: labels [N, H, W], 0 or 1.
        per_image: the mean of the losses of the images, instead of one loss of all pixels.
        ignore_index: pixels of this label count nowhere; an image without others is no member of the mean.
        align_corners: as in `upsample_bilinear`.

    Result, gradient, memory, devices and errors are those of `lovasz_softmax`.

    Source: Berman et al. 2018 (arXiv 1705.08790), section 2.3; Yu and Blaschko 2015, "Learning submodular losses".

    Example:
        >>> loss = lovasz_hinge(torch.randn(1, 1, 8, 8), torch.zeros(1, 32, 32, dtype=torch.uint8))
    """
    name = "lovasz_hinge"
    full = _full(name, logits, target, align_corners)
    loss = ops.lovasz_hinge(full, target, per_image=per_image, ignore_index=ignore_index)
    return _of_images(name, loss, target, ignore_index, 1) if per_image else loss


def _full(name: str, logits: Tensor, target: Tensor, align_corners: bool) -> Tensor:
    target = checked_target(name, target)
    checked_maps(name, "logits", logits, target.shape[1:])
    wide = logits.to(wide_dtype(logits.dtype))
    if wide.shape[2:] == target.shape[1:]:
        return wide
    with without_autocast(logits):
        return ops.upsample_bilinear(wide, target.shape[1:], align_corners=align_corners)


def _of_images(name: str, loss: Tensor, target: Tensor, ignore_index: int | None, classes: int) -> Tensor:
    """The mean over the images that have pixels, of one over all images."""
    some = counted(name, target, ignore_index, classes).flatten(1).any(1).sum().to(loss.dtype)
    return quotient(loss * len(target), some)
