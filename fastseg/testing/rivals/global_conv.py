"""GCN's large separable kernel as a composition of plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def global_conv2d(
    x: Tensor,
    column_weight: Tensor,
    row_weight: Tensor,
    row_weight2: Tensor,
    column_weight2: Tensor,
    column_bias: Tensor | None = None,
    row_bias: Tensor | None = None,
    row_bias2: Tensor | None = None,
    column_bias2: Tensor | None = None,
) -> Tensor:
    """Four convolutions and a sum."""
    p = column_weight.shape[2] // 2
    first = F.conv2d(F.conv2d(x, column_weight, column_bias, padding=(p, 0)), row_weight2, row_bias2, padding=(0, p))
    second = F.conv2d(F.conv2d(x, row_weight, row_bias, padding=(0, p)), column_weight2, column_bias2, padding=(p, 0))
    return first + second


PLAIN: Mapping[str, Callable[..., Any]] = {"global_conv2d": global_conv2d}
WEIGHTS: Mapping[str, tuple[int | str, ...]] = {
    "global_conv2d": (1, 2, 3, 4, "column_bias", "row_bias", "row_bias2", "column_bias2")
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
