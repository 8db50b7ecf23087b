"""Depthwise-separable convolution in the order of the DeepLab v3+ release."""

from torch import Tensor, nn

from fastseg.nn.conv import conv_bn_act


class SeparableConv2d(nn.Module):
    """Depthwise 3x3 at a rate, batch norm, ReLU, then pointwise 1x1, batch norm, ReLU.

    ``y = relu(bn(P * relu(bn(D *_r x))))`` with one 3x3 filter of ``D`` per channel and rate ``r``: ``9 C_in + C_in
    C_out`` multiplications per output pixel in place of ``9 C_in C_out``.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        out_channels: channels of the output ``[N, out_channels, H, W]``.
        dilation: rate of the depthwise convolution.

    Source: Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution" (arXiv 1802.02611), section 3.1; the
    batch norm and ReLU between the two halves follow the TensorFlow release, as does the initialisation.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = conv_bn_act(in_channels, in_channels, 3, dilation=dilation, groups=in_channels)
        self.pointwise = conv_bn_act(in_channels, out_channels, 1)
        for block, std in ((self.depthwise, 0.33), (self.pointwise, 0.06)):
            nn.init.trunc_normal_(block.get_parameter("0.weight"), std=std, a=-2 * std, b=2 * std)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        return self.pointwise(self.depthwise(x))
