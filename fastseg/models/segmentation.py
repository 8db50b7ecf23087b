"""What every image model here is: logits below the input's resolution, and labels at the image's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastseg import ops
from fastseg.models.preprocess import Preprocess
from fastseg.models.refine import refined_labels


class SegmentationModel(nn.Module):
    """Base of the image models: a backbone, how images are prepared, and how labels come out.

    Args:
        backbone: feature extractor, kept under this name so that it can be loaded and trained apart.
        preprocess: what :meth:`predict` does to a raw image.
        classes: names of the classes, or empty.
        align_corners: how features and logits are resized.
    """

    def __init__(
        self, backbone: nn.Module, preprocess: Preprocess, classes: Sequence[str] = (), align_corners: bool = False
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.align_corners = align_corners
        self.recipe: dict[str, Any] = {}
        """Name of the constructor and its arguments, stored with the weights."""
        self.backbone = backbone

    @torch.inference_mode()
    def predict(self, image: Tensor | np.ndarray, crf: Mapping[str, Any] | None = None) -> Tensor:
        """Segment raw or prepared images; the dtype says which they are.

        Args:
            image: either raw RGB, uint8, ``[H, W, 3]`` or ``[N, H, W, 3]`` (tensor or array), to which
                :attr:`preprocess` is applied, or already normalised floats ``[3, H, W]`` or ``[N, 3, H, W]``, which are
                used as they are.
            crf: arguments of :func:`fastseg.ops.dense_crf`, which then refines the labels of raw images along their
                edges; :func:`fastseg.ops.dense_crf_presets.dense_crf_preset` has some.

        Returns:
            Class indices of the input's size, uint8 ``[H, W]`` or ``[N, H, W]``. The model should be in evaluation
            mode.
        """
        image = torch.as_tensor(image, device=next(self.parameters()).device)
        raw = image.dtype == torch.uint8
        channels_last = raw and image.ndim in (3, 4) and image.shape[-1] == 3
        channels_first = image.is_floating_point() and image.ndim in (3, 4) and image.shape[-3] == 3
        if not (channels_last or channels_first):
            raise ValueError(
                "fastseg::predict: image must be uint8 [H, W, 3] or [N, H, W, 3], "
                "or floating [3, H, W] or [N, 3, H, W], "
                f"got {image.dtype} {list(image.shape)}"
            )
        batch = image if image.ndim == 4 else image[None]
        height, width = batch.shape[1:3] if raw else batch.shape[2:4]
        logits = self(self.preprocess(batch) if raw else batch)
        if crf is not None:
            if not raw:
                raise ValueError("fastseg::predict: crf must be None for images without their colours, got one")
            refined = refined_labels(logits, batch, crf, align_corners=self.align_corners)
            return refined if image.ndim == 4 else refined[0]
        labels = ops.upsample_argmax(logits, (height, width), align_corners=self.align_corners)
        assert isinstance(labels, Tensor)  # a pair only where the confidence is asked for
        return labels if image.ndim == 4 else labels[0]
