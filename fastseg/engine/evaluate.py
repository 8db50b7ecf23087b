"""Score a model on a data set, one photo at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from rich.progress import track

from fastseg.engine.train import Samples
from fastseg.models.segmentation import SegmentationModel

if TYPE_CHECKING:
    from fastseg.metrics import ConfusionMatrix, ImageMetric


def evaluate(
    model: SegmentationModel,
    dataset: Samples,
    num_classes: int,
    *,
    metrics: "Sequence[ImageMetric]" = (),
    progress: bool = True,
) -> "ConfusionMatrix":
    """Predict every photo at its own size and count the confusion matrix.

    Args:
        model: its ``predict`` is used; it is put in evaluation mode.
        dataset: gives (photo uint8 ``[H, W, 3]``, labels ``[H, W]`` with 255 ignored).
        num_classes: number of classes.
        metrics: more metrics of label maps, which are updated too.
        progress: show a progress bar.

    Returns:
        The filled confusion matrix.
    """
    from fastseg.metrics import ConfusionMatrix  # which imports torchmetrics, and training does without

    model.eval()
    matrix = ConfusionMatrix(num_classes)
    for index in track(range(len(dataset)), "evaluating", disable=not progress, transient=True):
        image, labels = dataset[index]
        prediction, truth = model.predict(torch.tensor(image))[None], torch.tensor(labels)[None]
        for metric in (matrix, *metrics):
            metric.update(prediction, truth)
    return matrix
