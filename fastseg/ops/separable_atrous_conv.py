"""Depthwise-separable atrous convolution in one op."""

from typing import Any

from torch import Tensor

from .._registry import call, declare
from ..reference import atrous_conv as reference
from ..reference.conv import ACTIVATIONS, widened
from .arguments import (
    check_devices,
    check_map,
    check_vectors,
    check_weight,
    checked_choice,
    checked_pair,
    empty_images,
)
from .atrous_conv import Steps, same_padding, sizes_after
from .atrous_conv_gradients import gradients


def separable_atrous_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    *,
    stride: Steps = 1,
    dilation: Steps = 1,
    depthwise_scale: Tensor | None = None,
    depthwise_shift: Tensor | None = None,
    depthwise_activation: str = "none",
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
) -> Tensor:
    r"""Convolve each channel at an atrous rate, then mix the channels, each with its epilogue.

    .. math:: y = \mathrm{activation}(s \, (p * m) + t), \qquad
        m = \mathrm{depthwise\_activation}(s_d \, (d *_r x) + t_d)

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, NCHW or channels_last; zero outside of the map.
        depthwise_weight: d [C, 1, kh, kw] in the dtype of x, kh and kw odd.
        pointwise_weight: p [K, C, 1, 1] in the dtype of x.
        stride: of the depthwise half, a whole number or (y, x).
        dilation: its rate r, likewise; the padding is `same`.
        depthwise_scale: s_d [C], of a batch norm in eval mode, say; in any floating dtype.
        depthwise_shift: t_d [C].
        depthwise_activation: `none`, `relu`, `relu6` or `silu`.
        scale: s [K].
        shift: t [K].
        activation: as `depthwise_activation`.

    Returns:
        [N, K, H', W'] in the dtype and the memory format of x; half precision is computed in float32 and rounded once.

    Memory: the map between the halves is held in bands of rows of 4 MiB; on CUDA whole, in float32 at least. Gradient:
    in every floating argument, and again; the backward computes the map between the halves once more. Devices: CPU
    compiled, CUDA in Triton (float32 as for `atrous_conv2d`), others through the reference.

    Raises:
        ValueError: an argument does not fit.

    Source: Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution" (arXiv 1802.02611), section 3.1.

    Example:
        >>> x, d, p = torch.randn(1, 256, 33, 33), torch.randn(256, 1, 3, 3), torch.randn(64, 256, 1, 1)
        >>> separable_atrous_conv2d(x, d, p, dilation=6, activation="relu").shape
        torch.Size([1, 64, 33, 33])
    """
    op = "separable_atrous_conv2d"
    check_map(op, "x", x)
    channels = x.shape[1]
    check_weight(op, "depthwise_weight", depthwise_weight, x, (channels, 1, None, None))
    check_weight(op, "pointwise_weight", pointwise_weight, x, (None, channels, 1, 1))
    outputs = pointwise_weight.shape[0]
    check_vectors(op, channels, depthwise_scale=depthwise_scale, depthwise_shift=depthwise_shift)
    check_vectors(op, outputs, scale=scale, shift=shift)
    strides, rates = checked_pair(op, "stride", stride, 1), checked_pair(op, "dilation", dilation, 1)
    same_padding(op, depthwise_weight, rates, "depthwise_weight")
    checked_choice(op, "depthwise_activation", depthwise_activation, ACTIVATIONS)
    checked_choice(op, "activation", activation, ACTIVATIONS)
    vectors = {"depthwise_scale": depthwise_scale, "depthwise_shift": depthwise_shift, "scale": scale, "shift": shift}
    check_devices(op, x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight, **vectors)
    return call(
        op, x, depthwise_weight, pointwise_weight, *vectors.values(), strides, rates, depthwise_activation, activation
    )


def _size(x: Any, weight: Any, stride: Any, dilation: Any) -> tuple[int, int]:
    padding = [d * (k // 2) for d, k in zip(dilation, weight[2:], strict=True)]
    return sizes_after("separable_atrous_conv2d", x, weight, stride, padding, dilation)


def _fake(x: Tensor, depthwise: Tensor, pointwise: Tensor, *rest: Any) -> Tensor:
    size = _size(x.shape, depthwise.shape, *rest[4:6])
    return empty_images(x, (x.shape[0], pointwise.shape[0], *size), x.dtype)


def _flops(x: Any, depthwise: Any, pointwise: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    pixels = out_shape[0] * out_shape[2] * out_shape[3]
    return int(2 * pixels * x[1] * (depthwise[2] * depthwise[3] + pointwise[0]))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7], output)
    x, weight, stride, dilation = inputs[0], inputs[1], inputs[7], inputs[8]
    padding = [d * (k // 2) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    ctx.depthwise, ctx.pointwise = (stride, padding, dilation, x.shape[1]), ((1, 1), (0, 0), (1, 1), 1)
    ctx.activations = inputs[9:]


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    narrow, (depthwise_scale, depthwise_shift, scale, shift, output) = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
    x, depthwise, pointwise = map(widened, narrow)
    needs = ctx.needs_input_grad
    before, after = (None, depthwise_scale, depthwise_shift, None), (None, scale, shift, None)
    middle = ops.atrous_conv2d(x, depthwise, *before, None, *ctx.depthwise, ctx.activations[0], "direct")
    wanted = (any((*needs[:2], *needs[3:5])), needs[2], False, *needs[5:7], False)
    saved = (middle, pointwise, *after, output)
    of_middle, *rest = gradients(ops, grad, saved, ctx.pointwise, ctx.activations[1], wanted)
    of_pointwise, _, of_scale, of_shift, _ = rest
    found: tuple[Any, ...] = (None,) * 6
    if of_middle is not None:
        wanted = (*needs[:2], False, *needs[3:5], False)
        saved = (x, depthwise, *before, middle)
        found = gradients(ops, of_middle, saved, ctx.depthwise, ctx.activations[0], wanted)
    of_maps = (found[0], found[1], of_pointwise)
    typed = (None if g is None else g.to(t.dtype) for g, t in zip(of_maps, narrow, strict=True))
    return *typed, found[3], found[4], of_scale, of_shift, *(None,) * 4


declare(
    "separable_atrous_conv2d(Tensor x, Tensor depthwise_weight, Tensor pointwise_weight, Tensor? depthwise_scale,"
    " Tensor? depthwise_shift, Tensor? scale, Tensor? shift, SymInt[] stride, SymInt[] dilation,"
    " str depthwise_activation, str activation) -> Tensor",
    reference=reference.separable_atrous_conv2d,
    fake=_fake,
    setup_context=_save,
    backward=_backward,
    autocast="lower",
    per_sample=("x",),
    flops=_flops,
    triton="atrous_conv",
)
