"""Atrous convolution with a fused epilogue; `separable_atrous_conv` has the depthwise-separable one."""

from typing import Any

from torch import Tensor

from .._registry import FLOATS, call, declare
from ..reference import atrous_conv as reference
from ..reference.conv import ACTIVATIONS
from .arguments import (
    brief,
    check_devices,
    check_map,
    check_vectors,
    check_weight,
    checked_choice,
    checked_pair,
    empty_images,
    is_differentiated,
    is_whole,
    under_autocast,
)
from .atrous_conv_algorithms import ALGORITHMS, check_packed, check_tiled, check_trainable
from .atrous_conv_gradients import STEPS, convolution_flops, gradients

Steps = int | tuple[int, int]


def atrous_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Steps = 1,
    padding: Steps | str = "same",
    dilation: Steps = 1,
    groups: int = 1,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
    algorithm: str = "auto",
    packed: Tensor | None = None,
) -> Tensor:
    r"""Convolve at an atrous rate, with what follows a convolution in one pass.

    .. math:: y = \mathrm{activation}(s \, (w *_r x + b) + t + z), \qquad
        (w *_r x)_{nk}(o) = \sum_{c, t} w_{kct} \; x_{nc}(o \cdot stride - padding + t \cdot r)

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, NCHW or channels_last; zero outside of the map.
        weight: [K, C / groups, kh, kw] in the dtype of x.
        bias: b [K].
        stride: a whole number, or (y, x).
        dilation: the rate r, likewise.
        padding: pixels on each side, or `same`: dilation * (k - 1) / 2 at any stride, for odd kernels.
        groups: divides C and K; C makes the convolution depthwise.
        scale: s [K], of a batch norm in eval mode, say; in any floating dtype.
        shift: t [K].
        activation: `none`, `relu`, `relu6` or `silu`.
        residual: z, in the shape of the result.
        algorithm: `auto` takes the fastest by a model of the machine; `direct` leaves the sum to ATen, without taps
            that never meet the map; `winograd2`, `winograd3`, `winograd4`, and `toeplitz2` where the map is at most
            twice the rate a side, transform tiles of the sub-grids (3x3, stride 1, groups 1, float32, no gradient),
            with a relative error of at most 1e-4. A GPU has `auto` and `direct`, which are the same there.
        packed: `prepack_atrous_weight(weight, ...)`, which spares a Winograd algorithm that work in each call.

    Returns:
        [N, K, H', W'] in the dtype and the memory format of x; half precision is computed in float32 and rounded once.

    Memory: Winograd takes 48 MiB at most beside the maps and the packed weight. Gradient: in every floating argument,
    and again; `auto` is `direct` then. Devices: CPU compiled, CUDA in Triton (float32 in TF32 where
    `torch.backends.cudnn` allows it to convolutions), others through the reference.

    Raises:
        ValueError: an argument does not fit, or an algorithm that was asked for cannot run.

    Source: Chen et al. 2018, "DeepLab" (arXiv 1606.00915), equation 1; Lavin and Gray 2015, "Fast Algorithms for
    Convolutional Neural Networks" (arXiv 1509.09308).

    Example:
        >>> x, weight = torch.randn(1, 256, 33, 33), torch.randn(64, 256, 3, 3)
        >>> atrous_conv2d(x, weight, dilation=6, activation="relu").shape
        torch.Size([1, 64, 33, 33])
    """
    op = "atrous_conv2d"
    check_map(op, "x", x)
    if not is_whole(groups) or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"fastseg::{op}: groups must divide the {x.shape[1]} channels of x, got {groups!r}")
    check_weight(op, "weight", weight, x, (None, x.shape[1] // groups, None, None))
    if weight.shape[0] % groups:
        raise ValueError(f"fastseg::{op}: groups must divide the outputs of weight, got {groups} for {brief(weight)}")
    check_vectors(op, weight.shape[0], bias=bias, scale=scale, shift=shift)
    strides, rates = checked_pair(op, "stride", stride, 1), checked_pair(op, "dilation", dilation, 1)
    pads = same_padding(op, weight, rates) if padding == "same" else checked_pair(op, "padding", padding, 0)
    checked_choice(op, "activation", activation, ACTIVATIONS)
    checked_choice(op, "algorithm", algorithm, ALGORITHMS)
    size = sizes_after(op, x.shape, weight.shape, strides, pads, rates)
    check_residual(op, residual, (x.shape[0], weight.shape[0], *size))
    check_packed(op, packed, weight, algorithm)
    check_devices(op, x, weight=weight, bias=bias, scale=scale, shift=shift, residual=residual, packed=packed)
    if algorithm not in ("auto", "direct"):
        check_tiled(op, algorithm, x, weight, size, (strides, pads, rates, groups))
    if is_differentiated(x, weight, bias, scale, shift, residual):
        check_trainable(op, algorithm)
        algorithm, packed = "direct", None
    if under_autocast(x):
        packed = None
    return call(
        op, x, weight, bias, scale, shift, residual, packed, strides, pads, rates, groups, activation, algorithm
    )


def same_padding(op: str, weight: Tensor, rates: tuple[int, int], argument: str = "weight") -> tuple[int, int]:
    """Zeros on each side that keep the size at stride 1."""
    height, width = weight.shape[2:]
    if height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"fastseg::{op}: {argument} must have an odd kernel for padding 'same', got {height}x{width}")
    padding = rates[0] * (height // 2), rates[1] * (width // 2)
    if max(padding) >= 2**30:
        raise ValueError(
            f"fastseg::{op}: dilation must keep padding 'same' below 2^30, got {rates} for {height}x{width}"
        )
    return padding


def sizes_after(op: str, x: Any, weight: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, int]:
    """Height and width of a convolution's result from the shapes of its arguments."""
    sizes = []
    for axis in (0, 1):
        span = x[2 + axis] + 2 * padding[axis] - dilation[axis] * (weight[2 + axis] - 1) - 1
        if span < 0 and x[2 + axis] > 0:
            raise ValueError(f"fastseg::{op}: padding must let the kernel fit into the map, got {tuple(padding)} "
                             f"around {tuple(x[2:])} for {tuple(weight[2:])} taps at rate {dilation}")  # fmt: skip
        sizes.append(span // stride[axis] + 1 if x[2 + axis] > 0 else 0)
    return sizes[0], sizes[1]


def check_residual(op: str, residual: Tensor | None, shape: tuple[int, ...]) -> None:
    fits = isinstance(residual, Tensor) and residual.dtype in FLOATS and residual.shape == shape
    if residual is not None and not fits:
        raise ValueError(f"fastseg::{op}: residual must be floating {list(shape)}, got {brief(residual)}")


def _fake(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    names = ("bias", "scale", "shift", "residual", "packed")
    check_devices("atrous_conv2d", x, weight=weight, **dict(zip(names, rest, strict=False)))
    size = sizes_after("atrous_conv2d", x.shape, weight.shape, *rest[5:8])
    return empty_images(x, (x.shape[0], weight.shape[0], *size), x.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    if any(ctx.needs_input_grad[:6]):
        check_trainable("atrous_conv2d", inputs[12])
    ctx.steps, ctx.activation = inputs[7:11], inputs[11]
    # What is not saved may be changed in place.
    ctx.save_for_backward(*inputs[:6], None if ctx.activation == "none" else output)


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = gradients(ops, grad, ctx.saved_tensors, ctx.steps, ctx.activation, ctx.needs_input_grad)
    return *found, *(None,) * 7


declare(
    "atrous_conv2d(Tensor x, Tensor weight, Tensor? bias, Tensor? scale, Tensor? shift, Tensor? residual,"
    f" Tensor? packed, {STEPS}, str activation, str algorithm) -> Tensor",
    reference=reference.atrous_conv2d,
    fake=_fake,
    setup_context=_save,
    backward=_backward,
    autocast="lower",
    per_sample=("x", "residual"),
    flops=convolution_flops,
    triton="atrous_conv",
)
