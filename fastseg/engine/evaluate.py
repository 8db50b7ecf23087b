"""Score a model on a data set, one photo at a time."""

import torch
from rich.progress import track

from fastseg.engine.train import Samples
from fastseg.metrics import ConfusionMatrix
from fastseg.models.segmentation import SegmentationModel


def evaluate(model: SegmentationModel, dataset: Samples, num_classes: int, *, progress: bool = True) -> ConfusionMatrix:
    """Predict every photo at its own size and count the confusion matrix.

    Args:
        model: its ``predict`` is used; it is put in evaluation mode.
        dataset: gives (photo uint8 ``[H, W, 3]``, labels ``[H, W]`` with 255 ignored).
        num_classes: number of classes.
        progress: show a progress bar.

    Returns:
        The filled metric.
    """
    model.eval()
    metric = ConfusionMatrix(num_classes)
    for index in track(range(len(dataset)), "evaluating", disable=not progress, transient=True):
        image, labels = dataset[index]
        prediction = model.predict(torch.tensor(image))
        metric.update(prediction[None], torch.tensor(labels)[None])
    return metric
