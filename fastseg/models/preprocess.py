"""What a model expects of an image, kept as data beside its weights."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """Resize and normalise: ``x = (resize(image) - mean) / std`` on the 0..255 scale.

    Args:
        mean: per-channel mean, RGB.
        std: per-channel scale, RGB.
        longer_side: the image is resized so that its longer side has this many pixels; None keeps its size.
        multiple: where the image is resized, both sides are rounded to multiples of this. A multiple of the output
            stride keeps feature maps of every stride in step, at the price of a slightly changed aspect ratio.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    longer_side: int | None = None
    multiple: int = 16

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Give the size (height, width) at which an image of this size is shown to the model."""
        if self.longer_side is None:
            return height, width
        scale = self.longer_side / max(height, width) / self.multiple
        return max(1, round(height * scale)) * self.multiple, max(1, round(width * scale)) * self.multiple

    def normalise(self, images: Tensor) -> Tensor:
        """Map RGB of 0..255 ``[N, 3, H, W]`` to the model's range, without resizing."""
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std)
        )
        return (images.float() - mean) / std

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 RGB images ``[N, H, W, 3]`` to normalised float32 ``[N, 3, h, w]``.

        On a CPU an image of more than four times the pixels shown is resized in uint8, at a small part of the time and
        memory: each value is then within 1 of the float32 result on the 0..255 scale, 0.3 on average.
        """
        height, width = images.shape[1:3]
        planes = images.permute(0, 3, 1, 2)
        size = self.size(height, width)
        if size != (height, width):
            if images.device.type != "cpu" or height * width <= 4 * size[0] * size[1]:
                planes = planes.float()
            planes = F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.normalise(planes)


IMAGENET = Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
LITE = Preprocess(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
