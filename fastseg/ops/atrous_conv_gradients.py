"""Gradients of atrous convolution and its epilogue, for every op that has one inside, and of themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._registry import declare
from ..reference import atrous_conv as reference
from ..reference.conv import finished, per_channel, widened
from .arguments import empty_images

STEPS = "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups"


def convolution_flops(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    return int(2 * out_shape[0] * out_shape[2] * out_shape[3] * weight[0] * weight[1] * weight[2] * weight[3])


def activation_gradient(grad: Tensor, output: Tensor | None, activation: str, before: Any) -> Tensor:
    """grad times the activation's derivative, by its result where that is enough, else by what `before()` computes."""
    if activation == "none":
        return grad
    if activation == "silu":
        x = before()
        sigmoid = x.sigmoid()
        return grad * (sigmoid * (1 + x * (1 - sigmoid)))
    assert output is not None
    off = output <= 0 if activation == "relu" else (output <= 0) | (output >= 6)
    return torch.where(off, 0.0, grad)


def gradients(ops: Any, grad: Tensor, saved: Sequence[Tensor | None], steps: Any, activation: str, needs: Any) -> Any:
    """Gradients of (x, weight, bias, scale, shift, residual), those that are needed.

    `saved` are these and the result; what the forward computed before its epilogue is computed again where an
    activation or a scale needs it.
    """
    x, weight, bias, scale, shift, residual, output = saved
    assert x is not None and weight is not None
    wide_x, wide_weight = widened(x), widened(weight)

    def convolved() -> Tensor:
        y: Tensor = ops.atrous_conv2d(wide_x, wide_weight, bias, *(None,) * 4, *steps, "none", "direct")
        return y

    def before() -> Tensor:
        return finished(convolved(), None, scale, shift, residual)

    g = activation_gradient(widened(grad), output, activation, before)
    of_residual = g.to(residual.dtype) if residual is not None and needs[5] else None
    of_shift = g.sum((0, 2, 3)).to(shift.dtype) if shift is not None and needs[4] else None
    of_scale = (g * convolved()).sum((0, 2, 3)).to(scale.dtype) if scale is not None and needs[3] else None
    g = g if scale is None else g * per_channel(scale, g)
    of_bias = g.sum((0, 2, 3)).to(bias.dtype) if bias is not None and needs[2] else None
    of_weight = ops.atrous_conv2d_grad_weight(g, wide_x, *weight.shape[2:], *steps).to(x.dtype) if needs[1] else None
    of_x = ops.atrous_conv2d_grad_input(g, wide_weight, *x.shape[2:], *steps).to(x.dtype) if needs[0] else None
    return of_x, of_weight, of_bias, of_scale, of_shift, of_residual


def _save_pair(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.steps = inputs[4:]


def _grad_input_again(ops: Any, ctx: Any, again: Tensor) -> tuple[Any, ...]:
    grad, weight = ctx.saved_tensors
    of_grad = ops.atrous_conv2d(again, weight, *(None,) * 5, *ctx.steps, "none", "direct")
    return of_grad, ops.atrous_conv2d_grad_weight(grad, again, *weight.shape[2:], *ctx.steps), *(None,) * 6


def _grad_weight_again(ops: Any, ctx: Any, again: Tensor) -> tuple[Any, ...]:
    grad, x = ctx.saved_tensors
    of_grad = ops.atrous_conv2d(x, again, *(None,) * 5, *ctx.steps, "none", "direct")
    return of_grad, ops.atrous_conv2d_grad_input(grad, again, *x.shape[2:], *ctx.steps), *(None,) * 6


declare(
    f"atrous_conv2d_grad_input(Tensor grad, Tensor weight, SymInt height, SymInt width, {STEPS}) -> Tensor",
    reference=reference.atrous_conv2d_grad_input,
    fake=lambda grad, weight, h, w, *steps: empty_images(
        grad, (grad.shape[0], weight.shape[1] * steps[3], h, w), grad.dtype
    ),
    setup_context=_save_pair,
    backward=_grad_input_again,
    per_sample=("grad",),
    flops=lambda grad, weight, *_, **__: convolution_flops(None, weight, out_shape=grad),
    triton="atrous_conv",
)
declare(
    f"atrous_conv2d_grad_weight(Tensor grad, Tensor x, SymInt kernel_height, SymInt kernel_width, {STEPS}) -> Tensor",
    reference=reference.atrous_conv2d_grad_weight,
    fake=lambda grad, x, kh, kw, *steps: grad.new_empty((grad.shape[1], x.shape[1] // steps[3], kh, kw)),
    setup_context=_save_pair,
    backward=_grad_weight_again,
    flops=lambda grad, x, *_, out_shape=None, **__: convolution_flops(None, out_shape, out_shape=grad),
    triton="atrous_conv",
)
