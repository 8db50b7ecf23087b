"""Segment image files."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn


def predict(model: nn.Module, paths: Iterable[str | Path]) -> Iterator[tuple[Path, Tensor]]:
    """Segment image files one by one.

    Args:
        model: has ``predict``, which maps uint8 RGB ``[H, W, 3]`` to labels ``[H, W]``; it is put in evaluation mode.
        paths: image files.

    Yields:
        The path and its labels, uint8 ``[H, W]`` at the image's size.
    """
    from fastseg.data.formats.images import read_image

    model.eval()
    for path in map(Path, paths):
        yield path, model.predict(torch.tensor(read_image(path)))
