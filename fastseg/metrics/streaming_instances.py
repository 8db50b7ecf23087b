"""Streaming metrics of rankings, instances and segments."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastseg.metrics.average_precision import CONVENTIONS, Convention, average_precision, checked_ranking
from fastseg.metrics.averages import Average
from fastseg.metrics.cityscapes import InstanceCounts, instance_counts, instance_iou
from fastseg.metrics.instances import (
    THRESHOLDS,
    InstanceScores,
    checked_thresholds,
    instance_average_precision,
    mask_iou,
    match_instances,
)
from fastseg.metrics.metric import Device, Metric
from fastseg.metrics.panoptic import PanopticCounts, PanopticQuality, panoptic_counts, panoptic_quality
from fastseg.ops.arguments import checked_choice


class AveragePrecision(Metric):
    """`average_precision` of everything ranked, whose scores are all kept: 16 bytes for each.

    Args:
        num_classes: rankings C; None for a single one.
        convention, average, absent, ignore_index: as in `average_precision`.
        device: where the scores are kept.
        sync_on_compute: as in `Metric`.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        convention: Convention = "step",
        average: Average = "none",
        absent: Any = "skip",
        ignore_index: int | None = None,
        device: Device = None,
        sync_on_compute: bool = False,
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.rule: dict[str, Any] = {"convention": convention, "average": average, "absent": absent}
        self.add_rows("ranked", 2 * (1 if num_classes is None else num_classes), device)
        self.value()

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Rank more: scores and target [N], or [C, N] of several rankings."""
        if scores.shape[:-1] != (() if self.num_classes is None else (self.num_classes,)):
            number = "[N]" if self.num_classes is None else f"[{self.num_classes}, N]"
            raise ValueError(f"fastseg::AveragePrecision: scores must be {number}, got {list(scores.shape)}")
        hits, valid = checked_ranking("AveragePrecision", scores, target, self.ignore_index)
        columns = scores.double().masked_fill(~valid, 0.0), hits.double().masked_fill(~valid, -1.0)
        self.append("ranked", torch.cat([x if x.dim() == 2 else x[None] for x in columns]).T)

    def value(self) -> Tensor:
        scores, marks = self.rows("ranked").T.chunk(2)
        if self.num_classes is None:
            scores, marks = scores[0], marks[0]
        return average_precision(scores, marks.long(), ignore_index=-1, **self.rule)


class InstanceAveragePrecision(Metric):
    """Average precision of instances over thresholds of IoU, as COCO's.

    Args:
        num_classes: number of classes C.
        thresholds, max_detections: as in `match_instances`.
        convention: as in `average_precision`.
        sync_on_compute: as in `Metric`.
    """

    matches: Tensor
    instances: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        thresholds: Sequence[float] = THRESHOLDS,
        max_detections: int = 100,
        convention: Convention = "coco_101",
        sync_on_compute: bool = False,
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes, self.max_detections = num_classes, max_detections
        self.thresholds = checked_thresholds("InstanceAveragePrecision", thresholds).tolist()
        self.convention: Any = checked_choice("InstanceAveragePrecision", "convention", convention, CONVENTIONS)
        self.add_rows("matches", 2 + len(self.thresholds), None)
        self.add_sums("instances", torch.zeros(num_classes, dtype=torch.int64))

    def update(
        self,
        prediction: Tensor,
        scores: Tensor,
        prediction_classes: Tensor,
        target: Tensor,
        target_classes: Tensor,
        *,
        crowd: Tensor | None = None,
    ) -> None:
        """Match the instances of one image.

        Args:
            prediction, target: masks [D, H, W] and [G, H, W].
            scores: [D], of the predictions.
            prediction_classes, target_classes: integers [D] and [G], below C.
            crowd: boolean [G], true instances that stand for many.
        """
        self.update_iou(mask_iou(prediction, target, crowd), scores, prediction_classes, target_classes, crowd=crowd)

    def update_iou(
        self,
        iou: Tensor,
        scores: Tensor,
        prediction_classes: Tensor,
        target_classes: Tensor,
        *,
        crowd: Tensor | None = None,
    ) -> None:
        """Match the instances of one image by their IoU [D, G], of boxes for example."""
        for argument, classes in (("prediction_classes", prediction_classes), ("target_classes", target_classes)):
            if bool(((classes < 0) | (classes >= self.num_classes)).any()):
                raise ValueError(f"fastseg::InstanceAveragePrecision: {argument} must be below {self.num_classes}, "
                                 f"got {classes.tolist()}")  # fmt: skip
        state = match_instances(iou, scores, prediction_classes, target_classes, thresholds=self.thresholds,
                                crowd=crowd, max_detections=self.max_detections)  # fmt: skip
        rows = [scores.double()[:, None], prediction_classes.double()[:, None], state.to(scores.device).double()]
        self.append("matches", torch.cat(rows, 1).to(self.matches.device))
        own = target_classes if crowd is None else target_classes[~crowd]
        self.instances += own.long().bincount(minlength=self.num_classes).to(self.instances.device)

    def value(self) -> InstanceScores:
        rows = self.rows("matches")
        return instance_average_precision(
            rows[:, 0], rows[:, 1].long(), rows[:, 2:].long(), self.instances, convention=self.convention
        )


class _Sums(Metric):
    """A metric whose states are the sums of a tuple of counts."""

    counts: Any

    def __init__(self, num_classes: int, *, device: Device = None, sync_on_compute: bool = False) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes = num_classes
        for name in self.counts._fields:
            dtype = torch.float64 if name == self.counts._fields[0] else torch.int64
            self.add_sums(name, torch.zeros(num_classes, dtype=dtype, device=device))

    def add(self, counts: Any) -> None:
        for name, count in counts._asdict().items():
            getattr(self, name).add_(count)

    def total(self) -> Any:
        return self.counts(*(getattr(self, name) for name in self.counts._fields))


class PanopticMetric(_Sums):
    """`panoptic_quality` of the images counted.

    Args:
        num_classes, void, stuff: as in `panoptic_counts`.
        device: where the sums live.
        sync_on_compute: as in `Metric`.
    """

    counts = PanopticCounts

    def __init__(self, num_classes: int, *, void: int = 255, stuff: Sequence[int] = (), **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.void, self.stuff = void, tuple(stuff)

    def update(
        self, prediction: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], *, crowd: Tensor | None = None
    ) -> None:
        """Match the segments of a batch; args as `panoptic_counts`."""
        self.add(panoptic_counts(prediction, target, self.num_classes, void=self.void, stuff=self.stuff, crowd=crowd))

    def value(self) -> PanopticQuality:
        return panoptic_quality(self.total())


class InstanceIoU(_Sums):
    """`instance_iou` of the images counted: iIoU of Cityscapes.

    Args:
        num_classes, ignore_index: as in `instance_counts`.
        sizes: as in `instance_iou`.
        device: where the sums live.
        sync_on_compute: as in `Metric`.
    """

    counts = InstanceCounts

    def __init__(
        self,
        num_classes: int,
        *,
        sizes: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.sizes, self.ignore_index = sizes, ignore_index

    def update(self, prediction: Tensor, target: Tensor, instances: Tensor) -> None:
        """Count a batch; args as `instance_counts`."""
        self.add(instance_counts(prediction, target, instances, self.num_classes, ignore_index=self.ignore_index))

    def value(self) -> Tensor:
        return instance_iou(self.total(), self.sizes)
