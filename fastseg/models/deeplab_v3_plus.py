"""DeepLab v3+: atrous spatial pyramid pooling with a light decoder."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.models.backbones import Backbone, EfficientNetLite0, MobileNetV2, resnet50, resnet101
from fastseg.models.preprocess import IMAGENET, LITE, Preprocess
from fastseg.models.segmentation import SegmentationModel
from fastseg.nn import ASPP, AtrousConv2d, SeparableAtrousConv2d

BACKBONES: dict[str, tuple[Callable[[int], Backbone], Preprocess]] = {
    "efficientnet_lite0": (EfficientNetLite0, LITE),
    "mobilenet_v2": (MobileNetV2, IMAGENET),
    "resnet50": (resnet50, IMAGENET),
    "resnet101": (resnet101, IMAGENET),
}
RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class DeepLabV3Plus(SegmentationModel):
    """Encoder, ASPP and the decoder of DeepLab v3+.

    ``logits = C * D_2 * D_1 * [up(ASPP(f_16)); L f_4]``: the 256-channel ASPP output is resized to stride 4 and stacked
    on the stride-4 features, which a 1x1 convolution ``L`` reduces to 48 channels; two 3x3 blocks of 256 and a 1x1
    classifier follow.

    Args:
        backbone: module that gives (stride-4 features, last features) and has ``low_level_channels`` and
            ``out_channels``.
        num_classes: number of classes.
        rates: dilation of the ASPP branches.
        separable: make the 3x3 convolutions of ASPP and decoder depthwise-separable.
        align_corners: how the ASPP output and the logits are resized; the TensorFlow release uses True with sizes 16 k
            + 1.
        preprocess: what :meth:`predict` does to a uint8 image.
        classes: names of the classes, or empty.

    Source: Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution" (arXiv 1802.02611), figure 2.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        rates: Sequence[int] = (6, 12, 18),
        separable: bool = True,
        align_corners: bool = False,
        preprocess: Preprocess = IMAGENET,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(backbone, preprocess, classes, align_corners)
        self.aspp = ASPP(backbone.out_channels, rates, separable=separable)
        self.low_level = AtrousConv2d(backbone.low_level_channels, 48, 1)

        def block(channels: int) -> nn.Module:
            return SeparableAtrousConv2d(channels, 256) if separable else AtrousConv2d(channels, 256)

        self.decoder = nn.Sequential(block(256 + 48), block(256))
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits at a quarter of the input's size.

        Args:
            x: normalised images ``[N, 3, H, W]``, floating point, any size.

        Returns:
            Logits ``[N, num_classes, ceil(H / 4), ceil(W / 4)]``. Resizing them to the input's size is left to the
            operation that uses them (``upsample_argmax``, ``upsample_cross_entropy``, ``confusion_matrix``), which
            never stores them full-size.
        """
        low_level, features = self.backbone(x)
        low_level = self.low_level(low_level)
        context = F.interpolate(
            self.aspp(features), size=low_level.shape[-2:], mode="bilinear", align_corners=self.align_corners
        )
        return self.classifier(self.decoder(torch.cat([context, low_level], dim=1)))


def deeplab_v3_plus(
    backbone: str = "efficientnet_lite0",
    num_classes: int = 21,
    *,
    output_stride: int = 16,
    separable: bool = True,
    align_corners: bool = False,
    longer_side: int | None = None,
    classes: Sequence[str] = (),
) -> DeepLabV3Plus:
    """Build DeepLab v3+ with random weights.

    Args:
        backbone: ``"efficientnet_lite0"``, ``"mobilenet_v2"``, ``"resnet50"`` or ``"resnet101"``.
        num_classes: number of classes.
        output_stride: 16 (ASPP rates 6, 12, 18) or 8 (twice those), by dilating the backbone.
        separable: make the 3x3 convolutions of ASPP and decoder depthwise-separable.
        align_corners: how features and logits are resized.
        longer_side: size policy of :meth:`DeepLabV3Plus.predict`; None keeps the image's size.
        classes: names of the classes; empty, or ``num_classes`` of them.

    Returns:
        The model, in training mode.

    Source: Chen et al. 2018 (arXiv 1802.02611).
    """
    if backbone not in BACKBONES:
        raise ValueError(f"fastseg::deeplab_v3_plus: backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")
    if output_stride not in RATES:
        raise ValueError(f"fastseg::deeplab_v3_plus: output_stride must be 16 or 8, got {output_stride}")
    if classes and len(classes) != num_classes:
        raise ValueError(
            f"fastseg::deeplab_v3_plus: classes must name all {num_classes} classes or none, got {len(classes)} names"
        )
    constructor, preprocess = BACKBONES[backbone]
    model = DeepLabV3Plus(
        constructor(output_stride),
        num_classes,
        rates=RATES[output_stride],
        separable=separable,
        align_corners=align_corners,
        preprocess=replace(preprocess, longer_side=longer_side),
        classes=classes,
    )
    model.recipe = {
        "model": "deeplab_v3_plus",
        "arguments": {
            "backbone": backbone,
            "num_classes": num_classes,
            "output_stride": output_stride,
            "separable": separable,
            "align_corners": align_corners,
            "longer_side": longer_side,
            "classes": list(classes),
        },
    }
    return model
