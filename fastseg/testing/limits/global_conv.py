"""Limits of GCN's kernel: products and maps between the stages that pass 2^31 elements, of one tap. Of the maps only
the first one's beginning and the last one's end are computed."""

import torch
from torch import Tensor

from ..limit import Limit, zeros_but_ends

C, H, W = 1, 32769, 32768  # twice a map of 2^30 pixels and some
raw = torch.ops.fastseg


def _weights() -> list[Tensor]:
    first = torch.ones(C, 1, 1, 1)
    second = torch.eye(C).view(C, C, 1, 1)
    return [first, first, second, second]


def _convolved() -> Tensor:
    result: Tensor = raw.global_conv2d(zeros_but_ends(1, 1, 1, H, W), *_weights(), None, None, None, None)
    return result


def _differentiated() -> Tensor:
    """Of the second rows in the first channel, and of the second columns in the last."""
    x, grad = zeros_but_ends(1, 1, 1, H, W), zeros_but_ends(1, 1, C, H, W)
    grad[0, 0, 0, 0] = 1
    result = raw.global_conv2d_backward(grad, x, *_weights(), None, None, False)
    return torch.stack([result[3][0, 0], result[4][-1, -1]])


LIMITS = (
    Limit("global_conv2d", "maps between", _convolved, 1, 1),
    Limit("global_conv2d_backward", "maps between", _differentiated, 1, 1),
)
