"""Metrics of segmentation: functions, and classes that stream: update, compute, reset, all-reduce."""

from typing import TYPE_CHECKING, Any

from fastseg.metrics.average_precision import average_precision
from fastseg.metrics.boundary import BoundaryScores, boundary_f1, boundary_iou
from fastseg.metrics.cityscapes import CITYSCAPES_SIZES, InstanceCounts, instance_counts, instance_iou
from fastseg.metrics.confusion import (
    SegmentationScores,
    dice,
    foreground,
    frequency_weighted_iou,
    iou,
    mean_accuracy,
    mean_dice,
    mean_iou,
    mean_precision,
    merge_classes,
    per_image_mean_iou,
    pixel_accuracy,
    precision,
    recall,
    scores,
)
from fastseg.metrics.instances import InstanceScores, instance_average_precision, mask_iou, match_instances
from fastseg.metrics.panoptic import PanopticCounts, PanopticQuality, panoptic_counts, panoptic_quality

if TYPE_CHECKING:
    from fastseg.metrics.metric import Metric
    from fastseg.metrics.streaming import (
        ConfusionMatrix,
        FrequencyWeightedIoU,
        MeanAccuracy,
        MeanDice,
        MeanIoU,
        MeanPrecision,
        PixelAccuracy,
    )
    from fastseg.metrics.streaming_images import (
        ASSD,
        HD95,
        BoundaryF1,
        BoundaryIoU,
        ImageMetric,
        ImageScores,
        PerImageMeanIoU,
        SurfaceDice,
        SurfaceMetric,
    )
    from fastseg.metrics.streaming_instances import (
        AveragePrecision,
        InstanceAveragePrecision,
        InstanceIoU,
        PanopticMetric,
    )

__all__ = [
    "ASSD",
    "CITYSCAPES_SIZES",
    "HD95",
    "AveragePrecision",
    "BoundaryF1",
    "BoundaryIoU",
    "BoundaryScores",
    "ConfusionMatrix",
    "FrequencyWeightedIoU",
    "ImageMetric",
    "ImageScores",
    "InstanceAveragePrecision",
    "InstanceCounts",
    "InstanceIoU",
    "InstanceScores",
    "MeanAccuracy",
    "MeanDice",
    "MeanIoU",
    "MeanPrecision",
    "Metric",
    "PanopticCounts",
    "PanopticMetric",
    "PanopticQuality",
    "PerImageMeanIoU",
    "PixelAccuracy",
    "SegmentationScores",
    "SurfaceDice",
    "SurfaceMetric",
    "average_precision",
    "boundary_f1",
    "boundary_iou",
    "dice",
    "foreground",
    "frequency_weighted_iou",
    "instance_average_precision",
    "instance_counts",
    "instance_iou",
    "iou",
    "mask_iou",
    "match_instances",
    "mean_accuracy",
    "mean_dice",
    "mean_iou",
    "mean_precision",
    "merge_classes",
    "panoptic_counts",
    "panoptic_quality",
    "per_image_mean_iou",
    "pixel_accuracy",
    "precision",
    "recall",
    "scores",
]


def __getattr__(name: str) -> Any:
    # Classes are made when they are asked for: torchmetrics, if it is there, takes seconds to import.
    if name in __all__:
        from fastseg.metrics import metric, streaming, streaming_images, streaming_instances

        modules = (metric, streaming, streaming_images, streaming_instances)
        return next(vars(module)[name] for module in modules if name in vars(module))
    raise AttributeError(f"module 'fastseg.metrics' has no attribute {name!r}")
