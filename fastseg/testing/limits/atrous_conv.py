"""Limits of atrous convolution: maps and weights beyond 2^31 elements, and coordinates at the largest rate. Maps are
zero but at their first and last place, and so is a weight that leads from channels to others."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ..limit import Limit, zeros_but_ends

HALF = torch.float16
SIDE = 32768
MANY = 2**21 + 16  # channels of 1024 pixels: 2^31 values, and more tiles than a gradient is split into
FAR = 2**30 - 1
raw = torch.ops.fastseg
ONE: tuple[Any, ...] = ((1, 1), (0, 0), (1, 1))


def _last(channels: int, height: int, width: int) -> Tensor:
    """Maps [1, C, H, W] in channels_last."""
    flat = zeros_but_ends(1, channels * height * width, dtype=HALF)
    return flat.view(1, height, width, channels).permute(0, 3, 1, 2)


def _weight(outputs: int, channels: int) -> Tensor:
    return zeros_but_ends(1, outputs * channels, dtype=HALF).view(outputs, channels, 1, 1)


def _dense(channels: int, outputs: int, height: int, width: int) -> Callable[[], Tensor]:
    return lambda: ops.atrous_conv2d(_last(channels, height, width), _weight(outputs, channels))


def _rate() -> Tensor:
    x, weight = torch.ones(1, 16, 2, 2), torch.zeros(16, 16, 3, 3)
    weight[:, 0, 1, 1] = 1
    weight[:, :, 0, 0] = 5  # never meets the map
    return ops.atrous_conv2d(x, weight, dilation=FAR)


def _depthwise(last: bool, tall: int) -> Tensor:
    x = _last(64, SIDE, 1025) if last else zeros_but_ends(1, 2 * SIDE * tall, dtype=HALF).view(1, 2, SIDE, tall)
    return ops.atrous_conv2d(x, torch.ones(x.shape[1], 1, 3, 3, dtype=HALF), groups=x.shape[1])


def _depthwise_rate() -> Tensor:
    x, weight = torch.ones(1, 2, 2, 2), torch.full((2, 1, 3, 3), 5.0)
    weight[:, :, 1, 1] = 1
    return ops.atrous_conv2d(x, weight, dilation=FAR, groups=2)


def _input() -> Tensor:
    given: Tensor = raw.atrous_conv2d_grad_input(_last(16, SIDE, 4097), _weight(16, 16), SIDE, 4097, *ONE, 1)
    return given


def _depthwise_input() -> Tensor:
    weight = torch.ones(64, 1, 3, 3, dtype=HALF)
    grad, steps = _last(64, SIDE, 1025), ((1, 1), (1, 1), (1, 1))
    given: Tensor = raw.atrous_conv2d_grad_input(grad, weight, SIDE, 1025, *steps, 64)
    return given


def _of_weight(outputs: int, channels: int, groups: int = 1) -> Callable[[], Tensor]:
    return lambda: raw.atrous_conv2d_grad_weight(_last(outputs, 1, 1024), _last(channels, 1, 1024), 1, 1, *ONE, groups)


def _of_weight_and_images() -> Tensor:
    """Three images, of which one has less than 2^31 values: no stride is wide by itself."""
    maps = zeros_but_ends(1, 3 * 1024 * (MANY // 2), dtype=HALF).view(3, 1, 1024, MANY // 2).permute(0, 3, 1, 2)
    given: Tensor = raw.atrous_conv2d_grad_weight(maps, maps, 1, 1, *ONE, MANY // 2)
    return given


def _separable() -> Tensor:
    return ops.separable_atrous_conv2d(_last(16, SIDE, 513), torch.ones(16, 1, 3, 3, dtype=HALF), _weight(128, 16))


CONV, INPUT, WEIGHT = "atrous_conv2d", "atrous_conv2d_grad_input", "atrous_conv2d_grad_weight"
LIMITS = (
    Limit(CONV, "maps", _dense(16, 16, SIDE, 4097), 1, 1),
    Limit(CONV, "result", _dense(16, 128, SIDE, 513), 1, 1),
    Limit(CONV, "weight", _dense(32, 2**26 + 8, 1, 1), 1, 1),
    Limit(CONV, "rate", _rate, 1, 1),
    Limit(CONV, "depthwise, channels_last", lambda: _depthwise(True, 0), 1, 1),
    Limit(CONV, "depthwise, NCHW", lambda: _depthwise(False, SIDE + 1), 1, 1),
    Limit(CONV, "depthwise, plane", lambda: _depthwise(False, 2 * SIDE + 1), 1, 1),
    Limit(CONV, "depthwise, rate", _depthwise_rate, 1, 1),
    Limit(INPUT, "maps", _input, 1, 1),
    Limit(INPUT, "depthwise", _depthwise_input, 1, 1),
    Limit(WEIGHT, "maps", _of_weight(1, MANY), 1, 1),
    Limit(WEIGHT, "gradient", _of_weight(MANY, 1), 1, 1),
    Limit(WEIGHT, "depthwise", _of_weight(MANY, MANY, MANY), 1, 1),
    Limit(WEIGHT, "depthwise, images", _of_weight_and_images, 1, 1),
    Limit("separable_atrous_conv2d", "result", _separable, 1, 1),
)
