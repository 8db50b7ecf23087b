"""ResNet-50 and ResNet-101 as dilated feature extractors, with torchvision's state-dict keys."""

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.models.backbones.base import Backbone
from fastseg.models.backbones.dilation import stride_to_dilation


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided or dilated), 1x1 to four times the width, and a skip."""

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, downsample: bool) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
            if downsample
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C_in, H, W]`` to ``[N, 4 width, H / stride, W / stride]``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(Backbone):
    """Bottleneck ResNet (v1.5: the stride is in the 3x3) without its classifier, at output stride 32, 16 or 8.

    Args:
        depths: number of blocks in each of the four stages.
        output_stride: ratio of the input's size to the last feature map's; the strides beyond it become dilation the
            way torchvision's ``replace_stride_with_dilation`` does (no multi-grid): 3x3 rates 1, 2, 2 in the last stage
            at 16.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), table 1.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(self, depths: tuple[int, int, int, int], output_stride: int = 16) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        schedule = stride_to_dilation([4, 1, 2, 2, 2], output_stride)[1:]
        channels, stages = 64, []
        for width, depth, (stride, first, rest) in zip((64, 128, 256, 512), depths, schedule, strict=True):
            blocks = [Bottleneck(channels, width, stride, first, downsample=True)]
            blocks += [Bottleneck(4 * width, width, 1, rest, downsample=False) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = 4 * width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features.

        Args:
            x: normalised images ``[N, 3, H, W]``.

        Returns:
            The stride-4 features ``[N, 256, H/4, W/4]`` (output of ``layer1``, after its ReLU; the TensorFlow release
            taps its last residual before the addition) and the last ones ``[N, 2048, H/output_stride,
            W/output_stride]``.
        """
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        low_level = self.layer1(F.max_pool2d(x, 3, 2, padding=1))
        return low_level, self.layer4(self.layer3(self.layer2(low_level)))


def resnet50(output_stride: int = 16) -> ResNet:
    """ResNet-50; see :class:`ResNet`."""
    return ResNet((3, 4, 6, 3), output_stride)


def resnet101(output_stride: int = 16) -> ResNet:
    """ResNet-101; see :class:`ResNet`."""
    return ResNet((3, 4, 23, 3), output_stride)
