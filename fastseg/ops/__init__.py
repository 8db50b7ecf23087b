"""Segmentation ops. Each works on any device through its reference, and fast where a kernel is compiled."""

from .confusion import confusion_matrix
from .upsample import upsample_argmax, upsample_bilinear, upsample_softmax, upsample_threshold
from .upsample_loss import upsample_cross_entropy

__all__ = [
    "confusion_matrix",
    "upsample_argmax",
    "upsample_bilinear",
    "upsample_cross_entropy",
    "upsample_softmax",
    "upsample_threshold",
]
