"""Metrics of label maps by name: what `fastseg eval --metrics` offers."""

from collections.abc import Callable, Sequence

from torch import Tensor

from fastseg.metrics import confusion


def person_iou(matrix: Tensor) -> Tensor:
    """IoU of everything but class 0."""
    return confusion.iou(confusion.foreground(matrix))[1]


# Of one confusion matrix over the data set: a number, or one for each class.
OF_MATRIX: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel_accuracy": confusion.pixel_accuracy,
    "mean_accuracy": confusion.mean_accuracy,
    "mean_iou": confusion.mean_iou,
    "person_iou": person_iou,
    "frequency_weighted_iou": confusion.frequency_weighted_iou,
    "mean_dice": confusion.mean_dice,
    "mean_precision": confusion.mean_precision,
    "iou": confusion.iou,
    "dice": confusion.dice,
    "precision": confusion.precision,
    "recall": confusion.recall,
}
# Of one image at a time: classes of `fastseg.metrics`, each an `ImageMetric`.
OF_IMAGES = {
    "per_image_mean_iou": "PerImageMeanIoU",
    "boundary_iou": "BoundaryIoU",
    "boundary_f1": "BoundaryF1",
    "hd95": "HD95",
    "assd": "ASSD",
    "surface_dice": "SurfaceDice",
}
DEFAULT = ("pixel_accuracy", "mean_accuracy", "mean_iou", "person_iou", "iou")


def checked_names(op: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names, stripped and without repetitions, or an error that lists what there is."""
    names = [name.strip() for name in names]
    known = [*OF_MATRIX, *OF_IMAGES]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"fastseg::{op}: metrics must be among {', '.join(known)}, got {', '.join(unknown) or 'none'}")
    return tuple(dict.fromkeys(names))
