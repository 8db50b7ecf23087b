"""The blocks of GCN: a large separable kernel, and the refinement of its scores."""

from torch import Tensor, nn

from fastseg import ops


class GlobalConv2d(nn.Module):
    """Large kernel of columns and rows of taps, in both orders, summed; no batch norm and no activation.

    ``y = row2(column(x)) + column2(row(x))`` with ``kernel_size`` taps each and zeros beyond the map: every output sees
    a square of the input for ``2 k C (C_in + C)`` multiplications per pixel in place of ``k^2 C_in C``, and fewer where
    `fastseg.ops.global_conv2d` multiplies by frequencies.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        out_channels: channels of the output ``[N, out_channels, H, W]``, the classes in GCN.
        kernel_size: odd number of taps; 15 is the paper's best.
        bias: whether each of the four convolutions has one.

    Source: Peng et al. 2017, "Large Kernel Matters" (arXiv 1703.02719), section 3.2.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 15, bias: bool = True) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"fastseg::GlobalConv2d: kernel_size must be odd, got {kernel_size!r}")
        pad = kernel_size // 2
        self.column = nn.Conv2d(in_channels, out_channels, (kernel_size, 1), padding=(pad, 0), bias=bias)
        self.row = nn.Conv2d(in_channels, out_channels, (1, kernel_size), padding=(0, pad), bias=bias)
        self.row2 = nn.Conv2d(out_channels, out_channels, (1, kernel_size), padding=(0, pad), bias=bias)
        self.column2 = nn.Conv2d(out_channels, out_channels, (kernel_size, 1), padding=(pad, 0), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        stages = (self.column, self.row, self.row2, self.column2)
        return ops.global_conv2d(x, *(stage.weight for stage in stages), *(stage.bias for stage in stages))


class BoundaryRefinement(nn.Module):
    """Residual correction of score maps: ``y = x + conv2(relu(conv1(x)))``, both 3x3 with padding 1.

    Args:
        channels: channels of the input and of the output ``[N, channels, H, W]``.

    Source: Peng et al. 2017 (arXiv 1703.02719), section 3.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, channels, H, W]`` to the same shape."""
        corrected = ops.atrous_conv2d(x, self.conv1.weight, self.conv1.bias, activation="relu")
        return ops.atrous_conv2d(corrected, self.conv2.weight, self.conv2.bias, residual=x)
