"""MobileNetV2 as a dilated feature extractor, with torchvision's state-dict keys."""

from torch import Tensor, nn

from fastseg.models.backbones.base import Backbone
from fastseg.models.backbones.dilation import stride_to_dilation
from fastseg.nn import conv_bn_act

# expansion, output channels, repeats, stride
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
LOW_LEVEL_BLOCK = 3


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; a skip where the shape allows it."""

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, stride: int, dilation: int, skip: bool
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [conv_bn_act(in_channels, hidden, 1, activation=nn.ReLU6)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_bn_act(hidden, hidden, 3, stride=stride, dilation=dilation, groups=hidden, activation=nn.ReLU6),
            *conv_bn_act(hidden, out_channels, 1, activation=None),
        )
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C_in, H, W]`` to ``[N, C_out, H / stride, W / stride]``."""
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNetV2 (width 1.0) without its last 1x1 convolution to 1280 channels, at output stride 32, 16 or 8.

    Args:
        output_stride: ratio of the input's size to the last feature map's; the strides beyond it become dilation.

    Source: Sandler et al. 2018, "MobileNetV2" (arXiv 1801.04381), table 2.
    """

    low_level_channels = 24
    out_channels = 320

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        self.output_stride = output_stride
        features: list[nn.Module] = [conv_bn_act(3, 32, 3, stride=2, activation=nn.ReLU6)]
        channels = 32
        schedule = stride_to_dilation([2, *(stage[3] for stage in STAGES)], output_stride)[1:]
        for (expansion, width, repeats, _), (stride, first, rest) in zip(STAGES, schedule, strict=True):
            for index in range(repeats):
                block_stride, dilation = (stride, first) if index == 0 else (1, rest)
                features.append(InvertedResidual(channels, width, expansion, block_stride, dilation, skip=index > 0))
                channels = width
        self.features = nn.ModuleList(features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features.

        Args:
            x: normalised images ``[N, 3, H, W]``.

        Returns:
            The stride-4 features ``[N, 24, H/4, W/4]`` (output of the last 24-channel block; the TensorFlow release
            taps the 144-channel depthwise activation inside it) and the last ones ``[N, 320, H/output_stride,
            W/output_stride]``.
        """
        low_level = x
        for index, block in enumerate(self.features):
            x = block(x)
            if index == LOW_LEVEL_BLOCK:
                low_level = x
        return low_level, x
