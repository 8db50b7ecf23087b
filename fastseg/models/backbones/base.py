"""What a feature extractor says about itself."""

from torch import nn


class Backbone(nn.Module):
    """Maps ``[N, 3, H, W]`` to (stride-4 features, features at ``output_stride``), as many channels as it says."""

    low_level_channels: int
    out_channels: int
    output_stride: int
