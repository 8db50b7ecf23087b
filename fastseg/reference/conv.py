"""What comes before and after a convolution, in plain PyTorch."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "relu6": F.relu6, "silu": F.silu}


def widened(x: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """[C] as [C, 1, 1], in the dtype of `like`."""
    return vector.to(like.dtype)[:, None, None]


def with_rows(x: Tensor, kernel_height: int, padding: Sequence[int], dilation: int = 1) -> tuple[Tensor, list[int]]:
    """The map and the padding of a convolution; rows are padded here for an undilated kernel that spans them.

    oneDNN's gradient of such a weight writes past its buffers (AVX-512, torch 2.13).
    """
    rows, columns = padding
    if rows and dilation == 1 and kernel_height >= x.shape[2] + rows:
        return F.pad(x, (0, 0, rows, rows)), [0, columns]
    return x, [rows, columns]


def finished(
    y: Tensor,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """activation(scale * (y + bias) + shift + residual): y [N, C, H, W] in a wide dtype; vectors [C]; residual as y."""
    if bias is not None:
        y = y + per_channel(bias, y)
    if scale is not None:
        y = y * per_channel(scale, y)
    if shift is not None:
        y = y + per_channel(shift, y)
    if residual is not None:
        y = y + residual.to(y.dtype)
    return ACTIVATIONS[activation](y)
