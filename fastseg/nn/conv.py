"""The one convolution + batch-norm + activation block that every network here is made of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: Callable[..., nn.Module] | None = nn.ReLU,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation; an odd kernel keeps the size at stride 1.

    The state-dict keys are torchvision's: ``0`` is the convolution and ``1`` the batch norm.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel; the zero padding is ``dilation * (kernel_size - 1) / 2`` on every side.
        stride: step of the convolution.
        dilation: distance between the taps.
        groups: groups of the convolution; ``in_channels`` makes it depthwise.
        activation: constructor of the activation, or None for a linear block.
        eps: batch norm's epsilon.
        momentum: weight of the newest batch in batch norm's running statistics.

    Returns:
        A sequence that maps ``[N, in_channels, H, W]`` to ``[N, out_channels, ceil(H / stride), ceil(W / stride)]``.
    """
    padding = dilation * (kernel_size - 1) // 2
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def folded(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The scale and the shift that a batch norm with running statistics is, ``bn(y) = scale * y + shift``: in float32
    at least."""
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    mean, var, weight, bias = (
        v.float() if v is not None and v.dtype.itemsize < 4 else v
        for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    assert mean is not None and var is not None
    scale = torch.rsqrt(var + norm.eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def fuses(norm: nn.Module) -> bool:
    """Whether a batch norm is a scale and a shift: it takes its running statistics."""
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None and unhooked(norm)


def unhooked(module: nn.Module) -> bool:
    """Whether nobody asks to be told when this module, or one below it, runs: what is fused does not run them."""
    return not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in module.modules()
    )
