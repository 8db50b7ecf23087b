"""Streaming metrics that score one image at a time."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastseg import ops
from fastseg.metrics import confusion
from fastseg.metrics.averages import ABSENT, Absent, mean
from fastseg.metrics.boundary import Empty, boundary_f1, boundary_iou
from fastseg.metrics.labels import is_label
from fastseg.metrics.metric import Device, Metric
from fastseg.ops.arguments import checked_choice
from fastseg.ops.distance_lists import Empty as AnyEmpty
from fastseg.ops.distance_lists import EmptyCounts
from fastseg.ops.distance_metrics import Convention


class ImageScores(NamedTuple):
    """Scores of images, averaged.

    Args:
        mean: over images of the mean over classes; what is nan is left out of both.
        of_class: float64 [C], means over images.
        images: int64 [C], how many images each of these is the mean of.
        empty: how many pairs of objects the policy on empty ones decided: both sides, one side without pixels.
    """

    mean: Tensor
    of_class: Tensor
    images: Tensor
    empty: EmptyCounts


class ImageMetric(Metric):
    """A metric of one image and class at a time, averaged. A class has `scores`.

    Args:
        num_classes: number of classes C.
        ignore_index: label in the target whose pixels count for nothing; 255 unless that is a class.
        device: where the sums live.
        sync_on_compute: as in `Metric`.
    """

    sums: Tensor
    counted: Tensor
    empty: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = None,
        device: Device = None,
        sync_on_compute: bool = False,
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.num_classes = num_classes
        self.ignore_index = 255 if ignore_index is None and num_classes <= 255 else ignore_index
        for name, size, dtype in (
            ("sums", num_classes + 1, torch.float64),  # the last is that of the images' means
            ("counted", num_classes + 1, torch.int64),
            ("empty", 3, torch.int64),
        ):
            self.add_sums(name, torch.zeros(size, dtype=dtype, device=device))

    def scores(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, EmptyCounts]:
        """Labels [N, H, W] -> float64 [N, C], nan where left out; and how many of them are of empty objects."""
        raise NotImplementedError

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Score a batch of label maps, integers [N, H, W]."""
        self._check(prediction, target)
        values, empty = self.scores(prediction, target)
        values = torch.cat([values, mean(values)[:, None]], 1)
        self.sums += values.nansum(0)
        self.counted += (~values.isnan()).sum(0)
        self.empty += self.empty.new_tensor(empty)

    def _check(self, prediction: Tensor, target: Tensor) -> None:
        """The errors of `confusion_matrix`: shapes, dtypes, and labels that are no class where the target counts."""
        confusion.counts(
            type(self).__name__,
            ops.confusion_matrix(prediction, target, self.num_classes, ignore_index=self.ignore_index),
        )

    def value(self) -> ImageScores:
        means = self.sums / self.counted
        return ImageScores(means[-1], means[:-1], self.counted[:-1], EmptyCounts(*self.empty.tolist()))


class PerImageMeanIoU(ImageMetric):
    """`per_image_mean_iou` of the images counted. Args as `ImageMetric`, and `absent` as in `iou`."""

    def __init__(self, num_classes: int, *, absent: Absent = "skip", **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.absent = checked_choice("PerImageMeanIoU", "absent", absent, ABSENT)

    def _check(self, prediction: Tensor, target: Tensor) -> None:
        pass  # `scores` counts the same

    def scores(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, EmptyCounts]:
        matrices = self.counted.new_zeros((len(target), self.num_classes, self.num_classes))
        for one, truth, out in zip(prediction, target, matrices, strict=True):
            ops.confusion_matrix(one[None], truth[None], self.num_classes, ignore_index=self.ignore_index, out=out)
        found, present = matrices.sum(1) > 0, matrices.sum(2) > 0
        empty = EmptyCounts(*(int(x.sum()) for x in (~found & ~present, ~found & present, found & ~present)))
        return confusion.iou(matrices, absent=self.absent), empty  # type: ignore[arg-type]


class BoundaryIoU(ImageMetric):
    """`boundary_iou` of each image and class, averaged. Args as `ImageMetric`, and `distance`, `share`, `empty`."""

    def __init__(
        self,
        num_classes: int,
        *,
        distance: int | None = None,
        share: float = 0.02,
        empty: Empty = "default",
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.rule: dict[str, Any] = {"distance": distance, "share": share, "empty": empty}

    def scores(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, EmptyCounts]:
        return boundary_iou(
            prediction, target, classes=range(self.num_classes), ignore_index=self.ignore_index, **self.rule
        )


class BoundaryF1(ImageMetric):
    """`boundary_f1` of each image and class, averaged. Args as `ImageMetric`, and `distance`, `share`, `empty`."""

    def __init__(
        self,
        num_classes: int,
        *,
        distance: float | None = None,
        share: float = 0.008,
        empty: Empty = "default",
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.rule: dict[str, Any] = {"distance": distance, "share": share, "empty": empty}

    def scores(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, EmptyCounts]:
        return boundary_f1(
            prediction, target, classes=range(self.num_classes), ignore_index=self.ignore_index, **self.rule
        )


class SurfaceMetric(ImageMetric):
    """One of the `surface_metrics` of each image and class, averaged; a missed object makes its mean infinite, unless
    `empty` says otherwise.

    Args:
        num_classes, options: as `ImageMetric`.
        spacing, boundary, convention, tolerance, empty: as in `surface_metrics`, as far as the metric has them.
    """

    metric = ""

    def __init__(
        self,
        num_classes: int,
        *,
        spacing: Sequence[float] = (1.0, 1.0),
        boundary: Literal["inner", "dual"] = "inner",
        convention: Convention = "max_of_directed",
        tolerance: float | None = None,
        empty: AnyEmpty = "default",
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.rule: dict[str, Any] = {"spacing": spacing, "boundary": boundary, "convention": convention,
                                     "tolerance": tolerance, "empty": empty}  # fmt: skip

    def scores(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, EmptyCounts]:
        if self.ignore_index is not None:  # of no object in the prediction either
            prediction = torch.where(is_label(target, self.ignore_index), target, prediction)
        found = ops.surface_metrics(prediction, target, [self.metric], classes=range(self.num_classes), **self.rule)
        return found.values[self.metric], found.empty


class HD95(SurfaceMetric):
    """The 95th percentile of the Hausdorff distance. Args as `SurfaceMetric`."""

    metric = "hd95"


class ASSD(SurfaceMetric):
    """The average symmetric surface distance. Args as `SurfaceMetric`."""

    metric = "assd"


class SurfaceDice(SurfaceMetric):
    """The share of both boundaries within `tolerance`, one pixel unless given. Args as `SurfaceMetric`."""

    metric = "surface_dice"

    def __init__(self, num_classes: int, *, tolerance: float = 1.0, **options: Any) -> None:
        super().__init__(num_classes, tolerance=tolerance, **options)
