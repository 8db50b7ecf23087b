"""Atrous spatial pyramid pooling, the head of DeepLab v3 and v3+."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.nn.conv import conv_bn_act
from fastseg.nn.separable import SeparableConv2d


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features.

    ``y = relu(bn(W [b_0(x); b_1(x); ...; pool(x)]))``: a 1x1 branch, one 3x3 branch per rate and the globally averaged
    image, each of ``out_channels``, are stacked and projected by a 1x1 convolution. The stacking order and the
    state-dict keys are torchvision's: ``convs.0`` is the 1x1 branch, ``convs.1..R`` the rates, ``convs.{R+1}.{1,2}``
    the image pool.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        rates: dilation of each 3x3 branch: (6, 12, 18) at output stride 16, twice that at 8.
        out_channels: channels of every branch and of the output.
        separable: make the 3x3 branches depthwise-separable.
        dropout: dropout probability after the projection.

    Source: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation" (arXiv 1706.05587),
        section 3.3.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        out_channels: int = 256,
        *,
        separable: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()

        def branch(rate: int) -> nn.Module:
            if separable:
                return SeparableConv2d(in_channels, out_channels, rate)
            return conv_bn_act(in_channels, out_channels, 3, dilation=rate)

        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_act(in_channels, out_channels, 1))
        self.convs = nn.ModuleList([conv_bn_act(in_channels, out_channels, 1), *(branch(rate) for rate in rates), pool])
        self.project = conv_bn_act((len(rates) + 2) * out_channels, out_channels, 1)
        self.project.append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        *local, pool = self.convs
        # Resizing a 1x1 map gives a constant, so the pooled branch is broadcast rather than interpolated.
        pooled = pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*(branch(x) for branch in local), pooled], dim=1))
