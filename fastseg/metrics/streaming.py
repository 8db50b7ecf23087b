"""Streaming metrics of a confusion matrix: thin classes over the functions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastseg import ops
from fastseg.metrics import confusion
from fastseg.metrics.averages import Absent, Average
from fastseg.metrics.metric import Device, Metric


class ConfusionMatrix(Metric):
    """Confusion matrix that is filled batch by batch, exactly (int64).

    Args:
        num_classes: number of classes C.
        ignore_index: label in the truth whose pixels count for nothing; None as in `confusion_matrix`.
        device: where the matrix lives.
        sync_on_compute: as in `Metric`.
    """

    matrix: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = None,
        device: Device = None,
        sync_on_compute: bool = False,
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.add_sums("matrix", matrix)

    def update(self, prediction: Tensor, target: Tensor, *, size: tuple[int, int] | None = None) -> None:
        """Count a batch.

        Args:
            prediction: labels ``[N, H, W]``, or logits ``[N, C, h, w]`` of any resolution.
            target: labels ``[N, H, W]`` of any integer type.
            size: size that logits are resized to; the target's by default.
        """
        ops.confusion_matrix(
            prediction, target, self.num_classes, ignore_index=self.ignore_index, size=size, out=self.matrix
        )

    def value(self) -> Any:
        """All scores (`SegmentationScores`), or ValueError after a bad label on a GPU."""
        return confusion.scores(self.matrix)


class PixelAccuracy(ConfusionMatrix):
    """`pixel_accuracy` of everything counted, as a scalar."""

    def value(self) -> Tensor:
        return confusion.pixel_accuracy(self.matrix)


class FrequencyWeightedIoU(ConfusionMatrix):
    """`frequency_weighted_iou` of everything counted, as a scalar."""

    def value(self) -> Tensor:
        return confusion.frequency_weighted_iou(self.matrix)


class _ClassScore(ConfusionMatrix):
    """A score of each class; args as `ConfusionMatrix`, and `average`, `absent`, `class_weights` as in `iou`."""

    score: Any

    def __init__(
        self,
        num_classes: int,
        *,
        average: Average = "macro",
        absent: Absent = "skip",
        class_weights: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        device: Device = None,
        sync_on_compute: bool = False,
    ) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, device=device, sync_on_compute=sync_on_compute)
        self.rule: dict[str, Any] = {"average": average, "absent": absent, "class_weights": class_weights}
        self.value()  # a mistake in the rule is found now, and not after the data set

    def value(self) -> Tensor:
        return type(self).score(self.matrix, **self.rule)


class MeanIoU(_ClassScore):
    """`iou` of everything counted, averaged over classes. Args as `ConfusionMatrix`, and the rules of `iou`."""

    score = staticmethod(confusion.iou)


class MeanDice(_ClassScore):
    """`dice` of everything counted, averaged over classes. Args as `MeanIoU`."""

    score = staticmethod(confusion.dice)


class MeanPrecision(_ClassScore):
    """`precision` of everything counted, averaged over classes. Args as `MeanIoU`."""

    score = staticmethod(confusion.precision)


class MeanAccuracy(_ClassScore):
    """`recall` of everything counted, averaged over classes. Args as `MeanIoU`."""

    score = staticmethod(confusion.recall)
