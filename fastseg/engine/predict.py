"""Segment image files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor

from fastseg.data.formats.images import read_image
from fastseg.models.segmentation import SegmentationModel


def predict(model: SegmentationModel, paths: Iterable[str | Path]) -> Iterator[tuple[Path, Tensor]]:
    """Segment image files one by one.

    Args:
        model: its ``predict`` is used; it is put in evaluation mode.
        paths: image files.

    Yields:
        The path and its labels, uint8 ``[H, W]`` at the image's size.
    """
    model.eval()
    for path in map(Path, paths):
        yield path, model.predict(read_image(path))
