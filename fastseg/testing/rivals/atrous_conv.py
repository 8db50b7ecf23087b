"""Atrous convolution as a composition of plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...reference.conv import ACTIVATIONS


def atrous_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = "same",
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
    algorithm: str = "auto",
    packed: Tensor | None = None,
) -> Tensor:
    """`torch.nn.functional.conv2d` and what follows; the weight needs no packing."""
    rates = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    same = tuple(r * (k // 2) for r, k in zip(rates, weight.shape[2:], strict=True))
    y = F.conv2d(x, weight, bias, stride, same if isinstance(padding, str) else padding, dilation, groups)
    y = y if scale is None else y * scale[:, None, None]
    y = y if shift is None else y + shift[:, None, None]
    y = y if residual is None else y + residual
    return ACTIVATIONS[activation](y)


def separable_atrous_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    *,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    depthwise_scale: Tensor | None = None,
    depthwise_shift: Tensor | None = None,
    depthwise_activation: str = "none",
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    """Two convolutions, each with what follows."""
    y = atrous_conv2d(
        x,
        depthwise_weight,
        stride=stride,
        dilation=dilation,
        groups=x.shape[1],
        scale=depthwise_scale,
        shift=depthwise_shift,
        activation=depthwise_activation,
    )
    return atrous_conv2d(y, pointwise_weight, scale=scale, shift=shift, activation=activation)


PLAIN: Mapping[str, Callable[..., Any]] = {f.__name__: f for f in (atrous_conv2d, separable_atrous_conv2d)}
WEIGHTS: Mapping[str, tuple[int | str, ...]] = {
    "atrous_conv2d": (1, "bias", "scale", "shift"),
    "separable_atrous_conv2d": (1, 2, "depthwise_scale", "depthwise_shift", "scale", "shift"),
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
