"""The confusion matrix as a composition of plain PyTorch, and by torchmetrics."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .upsample import upsample_argmax


def _labels(prediction: Tensor, target: Tensor, align_corners: bool) -> Tensor:
    if not prediction.is_floating_point():
        return prediction
    return upsample_argmax(prediction, (target.shape[1], target.shape[2]), align_corners=align_corners)


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, *, ignore_index: int = 255, align_corners: bool = False
) -> Tensor:
    """Labels, then one bincount of target * C + prediction; ignored pixels count in a row that is cut off."""
    labels = _labels(prediction, target, align_corners)
    row = torch.where(target == ignore_index, num_classes, target)
    counts = torch.bincount((row * num_classes + labels).flatten(), minlength=num_classes * (num_classes + 1))
    return counts[: num_classes * num_classes].view(num_classes, num_classes)


def torchmetrics_confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, *, ignore_index: int = 255, align_corners: bool = False
) -> Tensor:
    """`torchmetrics.functional.classification.multiclass_confusion_matrix` of the labels."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    labels = _labels(prediction, target, align_corners)
    return multiclass_confusion_matrix(labels, target, num_classes, ignore_index=ignore_index, validate_args=False)


PLAIN: Mapping[str, Callable[..., Any]] = {"confusion_matrix": confusion_matrix}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "confusion_matrix": {"torchmetrics": torchmetrics_confusion_matrix}
}
