"""Confusion matrices, in plain PyTorch."""

import torch
from torch import Tensor

from .upsample import check_labels, upsample_argmax


def confusion_matrix(prediction: Tensor, target: Tensor, out: Tensor, ignore_index: int) -> None:
    """Add the pairs of prediction and target [N, H, W] to out [C, C]; rows are the target."""
    classes = out.shape[0]
    check_labels("confusion_matrix", target, classes, ignore_index)
    valid = target.long() != ignore_index
    check_labels("confusion_matrix", prediction.masked_fill(~valid, 0), classes, None, "prediction")
    pairs = target[valid].long() * classes + prediction[valid].long()
    out += torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def upsample_confusion_matrix(
    logits: Tensor, target: Tensor, out: Tensor, ignore_index: int, align_corners: bool
) -> None:
    """The same, with the argmax of logits [N, C, h, w] upsampled to the size of the target as the prediction."""
    labels = upsample_argmax(logits, target.shape[-2], target.shape[-1], align_corners, torch.int64)
    confusion_matrix(labels, target, out, ignore_index)
