"""Score a model on a data set, one photo at a time."""

from collections.abc import Iterable

import numpy as np
import torch
from rich.progress import track
from torch import nn

from fastseg.metrics import ConfusionMatrix


def evaluate(
    model: nn.Module, dataset: Iterable[tuple[np.ndarray, np.ndarray]], num_classes: int, *, progress: bool = True
) -> ConfusionMatrix:
    """Predict every photo at its own size and count the confusion matrix.

    Args:
        model: has ``predict``, which maps uint8 RGB ``[H, W, 3]`` to labels ``[H, W]``; it is put in evaluation mode.
        dataset: gives (photo uint8 ``[H, W, 3]``, labels ``[H, W]`` with 255 ignored).
        num_classes: number of classes.
        progress: show a progress bar.

    Returns:
        The filled metric.
    """
    model.eval()
    metric = ConfusionMatrix(num_classes)
    length = len(dataset) if hasattr(dataset, "__len__") else None
    for image, labels in track(dataset, "evaluating", total=length, disable=not progress, transient=True):
        prediction = model.predict(torch.tensor(image))
        metric.update(prediction[None], torch.tensor(labels)[None])
    return metric
