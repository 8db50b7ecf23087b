"""The upsample family as compositions of plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def upsample_bilinear(x: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """`torch.nn.functional.interpolate`."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def upsample_argmax(logits: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Interpolate, then argmax; the labels stay int64, which spares the rival a conversion."""
    return upsample_bilinear(logits, size, align_corners=align_corners).argmax(1)


def upsample_softmax(logits: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Interpolate, then softmax."""
    return upsample_bilinear(logits, size, align_corners=align_corners).softmax(1)


def upsample_threshold(
    mask_logits: Tensor, size: Size, threshold: float = 0.0, *, align_corners: bool = False
) -> Tensor:
    """Interpolate, then compare."""
    return upsample_bilinear(mask_logits, size, align_corners=align_corners) > threshold


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    align_corners: bool = False,
) -> Tensor:
    """Interpolate, then cross-entropy with an int64 target."""
    full = upsample_bilinear(logits, (target.shape[1], target.shape[2]), align_corners=align_corners)
    return F.cross_entropy(full, target, weight, None, ignore_index, None, reduction, label_smoothing)


PLAIN: Mapping[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (upsample_bilinear, upsample_argmax, upsample_softmax, upsample_threshold, upsample_cross_entropy)
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
