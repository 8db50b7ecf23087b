"""Labels refined along the edges of the image that they are of."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastseg import ops

SIDE = 1024  # Deviations of a CRF are in pixels of images of about this size, and its time grows with the pixels.


def refined_labels(logits: Tensor, image: Tensor, crf: Mapping[str, Any], *, align_corners: bool = False) -> Tensor:
    """Labels of an image from a network's logits, by a dense CRF.

    Args:
        logits: ``[N, C, h, w]``, below the image's resolution or at it.
        image: RGB from 0 to 255, ``[N, H, W, 3]``. The CRF sees it with a longer side of at most 1024 pixels.
        crf: arguments of :func:`fastseg.ops.dense_crf`, of :mod:`fastseg.ops.dense_crf_presets` say.
        align_corners: how logits are resized.

    Returns:
        uint8 ``[N, H, W]`` (int16 where there are more than 256 classes).
    """
    height, width = image.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    probabilities = ops.upsample_softmax(logits.float(), size, align_corners=align_corners)
    unary = -probabilities.clamp(min=1e-5).log()
    picture = image.permute(0, 3, 1, 2).float()
    if size != (height, width):
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    refined = ops.dense_crf(unary, picture, **{**crf, "output": "logits"})
    labels = ops.upsample_argmax(refined, (height, width))
    assert isinstance(labels, Tensor)
    return labels
