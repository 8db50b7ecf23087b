"""Atrous convolution with its epilogue, and its gradients, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from .conv import finished, widened, with_rows
from .upsample import memory_format

Pair = tuple[int, int] | list[int]


def atrous_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    packed: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str,
    algorithm: str,
) -> Tensor:
    """x [N, C, H, W], weight [K, C / groups, kh, kw] -> [N, K, H', W']; `packed` and `algorithm` change nothing."""
    y = convolved(widened(x), widened(weight), stride, padding, dilation, groups)
    y = finished(y, bias, scale, shift, residual, activation)
    return y.to(x.dtype).contiguous(memory_format=memory_format(x))


def convolved(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """`torch.nn.functional.conv2d`, and an empty result of an empty map."""
    if 0 not in x.shape[2:]:
        x, padding = with_rows(x, weight.shape[2], padding, dilation[0])
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)
    spans = (
        n + 2 * p - d * (k - 1) - 1 for n, p, d, k in zip(x.shape[2:], padding, dilation, weight.shape[2:], strict=True)
    )
    size = [span // s + 1 if n else 0 for span, s, n in zip(spans, stride, x.shape[2:], strict=True)]
    return x.new_zeros(x.shape[0], weight.shape[0], *size) + 0 * (x.sum() + weight.sum())


def separable_atrous_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_scale: Tensor | None,
    depthwise_shift: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    stride: Pair,
    dilation: Pair,
    depthwise_activation: str,
    activation: str,
) -> Tensor:
    """x [N, C, H, W], weights [C, 1, kh, kw] and [K, C, 1, 1] -> [N, K, H', W'], with padding 'same'."""
    padding = [d * (k // 2) for d, k in zip(dilation, depthwise_weight.shape[2:], strict=True)]
    y = convolved(widened(x), widened(depthwise_weight), stride, padding, dilation, x.shape[1])
    y = finished(y, None, depthwise_scale, depthwise_shift, None, depthwise_activation)
    y = convolved(y, widened(pointwise_weight), (1, 1), (0, 0), (1, 1), 1)
    y = finished(y, None, scale, shift, None, activation)
    return y.to(x.dtype).contiguous(memory_format=memory_format(x))


def atrous_conv2d_grad_input(
    grad: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """grad [N, K, H', W'] -> the gradient of x [N, C, height, width]."""
    shape = (grad.shape[0], weight.shape[1] * groups, height, width)
    if grad.numel() == 0:
        return grad.new_zeros(shape).contiguous(memory_format=memory_format(grad))
    of_x = conv2d_input(
        shape, widened(weight).contiguous(), widened(grad).contiguous(), stride, padding, dilation, groups
    )
    return of_x.to(grad.dtype).contiguous(memory_format=memory_format(grad))


def atrous_conv2d_grad_weight(
    grad: Tensor,
    x: Tensor,
    kernel_height: int,
    kernel_width: int,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """grad [N, K, H', W'], x [N, C, H, W] -> the gradient of the weight [K, C / groups, kh, kw]."""
    shape = (grad.shape[1], x.shape[1] // groups, kernel_height, kernel_width)
    if grad.numel() == 0:
        return grad.new_zeros(shape)
    padded, margins = with_rows(widened(x), kernel_height, padding, dilation[0])
    of_weight = conv2d_weight(padded.contiguous(), shape, widened(grad).contiguous(), stride, margins, dilation, groups)
    return of_weight.to(grad.dtype).contiguous()


def prepack_atrous_weight(weight: Tensor, algorithm: str) -> Tensor:
    """weight [K, C, 3, 3] -> G w G' of the algorithm's matrix G [points, 3]: [points^2, C, K]."""
    transform = weight_transform(algorithm).to(weight)
    return torch.einsum("ia,jb,kcab->ijck", transform, transform, weight).flatten(0, 1).contiguous()


POINTS = {
    "winograd2": (0.0, 1.0, -1.0),
    "winograd3": (0.5, -0.5, 1.25, -1.25),
    "winograd4": (0.0, 0.75, -0.75, 1.5, -1.5),
}


def weight_transform(algorithm: str) -> Tensor:
    """G [points, 3] in float64: powers of the finite points over the product of their distances, and infinity."""
    if algorithm == "toeplitz2":
        return torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    points = POINTS[algorithm]
    rows = []
    for p in points:
        others = torch.tensor([p - q for q in points if q != p], dtype=torch.float64).prod()
        rows.append(torch.tensor([1.0, p, p * p], dtype=torch.float64) / others)
    return torch.stack([*rows, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)])
