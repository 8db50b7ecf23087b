"""Kernel-sharing atrous convolution (Huang et al. 2019, arXiv 1908.09443, algorithm 1) in plain PyTorch.

Half-precision inputs are computed in float32; `ksac_conv2d` rounds once, at the end, `ksac_responses` not at all.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from .conv import ACTIVATIONS, widened
from .upsample import memory_format

# The gradient of an activation at z.
_DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda grad, z: grad,
    "relu": lambda grad, z: torch.ops.aten.threshold_backward(grad, z, 0.0),
    "relu6": lambda grad, z: torch.ops.aten.hardtanh_backward(grad, z, 0.0, 6.0),
    "silu": lambda grad, z: grad * z.sigmoid() * (1 + z * (1 - z.sigmoid())),  # silu_backward has no derivative
}


def ksac_conv2d(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    scale: Tensor | None,
    shift: Tensor | None,
    concat: bool,
    activation: str,
) -> Tensor:
    """x [N, Cin, H, W], weight [Cout, Cin, 3, 3], scale and shift [R, Cout] -> [N, Cout or R * Cout, H, W]."""
    out = ksac_fuse(ksac_responses(x, weight, rates), scale, shift, len(rates), concat, activation)
    return out.to(x.dtype)


def ksac_responses(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """The T_r of all rates r, one behind the other: [N, R * Cout, H, W] in the dtype that is computed in."""
    terms = [F.conv2d(widened(x), widened(weight), padding=r, dilation=r) for r in rates]
    return torch.cat(terms, 1).contiguous(memory_format=memory_format(x))


def _like(x: Tensor, maps: Tensor) -> Tensor:
    return x.contiguous(memory_format=memory_format(maps))


def _affine(terms: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if scale is not None:
        terms = terms * scale.to(terms.dtype).reshape(-1, 1, 1)
    if shift is not None:
        terms = terms + shift.to(terms.dtype).reshape(-1, 1, 1)
    return terms


def ksac_fuse(
    terms: Tensor, scale: Tensor | None, shift: Tensor | None, count: int, concat: bool, activation: str
) -> Tensor:
    """What follows the terms T_r [N, R * Cout, H, W] of `count` rates: activation(scale * T_r + shift), their sum."""
    y = ACTIVATIONS[activation](_affine(terms, scale, shift))
    out = y if concat else y.unflatten(1, (count, -1)).sum(1)
    return out.clone(memory_format=memory_format(terms)) if out is terms else _like(out, terms)


def ksac_fuse_backward(
    grad: Tensor,
    terms: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    count: int,
    concat: bool,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Its gradients of the terms, and of scale and shift [R, Cout]."""
    upstream = grad if concat else grad.repeat(1, count, 1, 1)
    inner = _DERIVATIVES[activation](upstream, _affine(terms, scale, shift))
    of_terms = inner if scale is None else inner * scale.to(terms.dtype).reshape(-1, 1, 1)
    if of_terms is grad:
        of_terms = grad.clone()
    of_scale, of_shift = ((inner * terms).sum((0, 2, 3)), inner.sum((0, 2, 3)))
    return _like(of_terms, terms), of_scale.view(count, -1), of_shift.view(count, -1)


def ksac_responses_input(grad: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """Its gradient of x: grad [N, R * Cout, H, W] -> [N, Cin, H, W] in the dtype of weight."""
    wide = widened(weight)
    parts = zip(rates, grad.chunk(len(rates), 1), strict=True)
    out = sum(F.conv_transpose2d(g, wide, padding=r, dilation=r) for r, g in parts)
    assert isinstance(out, Tensor)
    return out.to(weight.dtype).contiguous(memory_format=memory_format(grad))


def ksac_responses_weight(grad: Tensor, x: Tensor, rates: Sequence[int]) -> Tensor:
    """Its gradient of weight: grad [N, R * Cout, H, W] -> [Cout, Cin, 3, 3] in the dtype of x."""
    wide = widened(x)
    shape = (grad.shape[1] // len(rates), x.shape[1], 3, 3)
    out = wide.new_zeros(shape)
    for r, g in zip(rates, grad.chunk(len(rates), 1), strict=True) if grad.numel() else ():
        out = out + conv2d_weight(wide, shape, g.contiguous(), padding=r, dilation=r)
    return out.to(x.dtype).contiguous()
