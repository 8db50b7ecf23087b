"""GCN's large separable kernel: two branches of a column and a row of taps, summed."""

from typing import Any

from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import global_conv as reference
from .arguments import brief, check_devices, check_map, check_vectors, check_weight, empty_images, wide_dtype


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
    r"""Convolve with a large kernel made of columns and rows of taps, in both orders, and add the two up.

    .. math:: y = R_2 * (A * x + a) + a_2 \; + \; A_2 * (R * x + r) + r_2

    with columns :math:`A, A_2` and rows :math:`R, R_2` of k taps, biases :math:`a, a_2, r, r_2`, and zeros beyond the
    map: before each of the four convolutions, so after a bias between two of them.

    Args:
        x: [N, C', H, W], float32, float64, bfloat16 or float16, in any strides.
        column_weight: [C, C', k, 1] in the dtype of `x`, k odd: first stage of the first branch.
        row_weight: [C, C', 1, k], first stage of the second branch.
        row_weight2: [C, C, 1, k], second stage of the first branch, behind `column_weight`.
        column_weight2: [C, C, k, 1], second stage of the second branch, behind `row_weight`.
        column_bias: [C], floating, of `column_weight`, or None.
        row_bias: [C] of `row_weight`, or None.
        row_bias2: [C] of `row_weight2`, or None.
        column_bias2: [C] of `column_weight2`, or None.

    Returns:
        [N, C, H, W] in the dtype and memory format of `x`. Half precision is computed in float32 and rounded once.

    Memory: on the CPU spectra of a slice of `x`, about 4 MB, and those of the weights; on a GPU 64 MB and 2 C maps in
    float32. Rounding: on the CPU first stages go by frequencies, off by 1e-6 of the largest sum within 128 samples of a
    line, not of each sum. Gradient: of all arguments, once differentiable. Devices: CPU compiled, GPU in Triton.
    Errors: `ValueError` naming the argument for a wrong rank, dtype, shape or device. Source: Peng et al. 2017 (arXiv
    1703.02719), 3.2.

    Example:
        >>> x, column, row = torch.randn(1, 64, 32, 32), torch.randn(21, 64, 7, 1), torch.randn(21, 64, 1, 7)
        >>> global_conv2d(x, column, row, torch.randn(21, 21, 1, 7), torch.randn(21, 21, 7, 1)).shape
        torch.Size([1, 21, 32, 32])
    """
    op = "global_conv2d"
    check_map(op, "x", x)
    check_weight(op, "column_weight", column_weight, x, (None, x.shape[1], None, 1))
    channels, _, taps, _ = column_weight.shape
    if taps % 2 == 0:
        raise ValueError(f"fastseg::{op}: column_weight must have an odd number of taps, got {brief(column_weight)}")
    check_weight(op, "row_weight", row_weight, x, (channels, x.shape[1], 1, taps))
    check_weight(op, "row_weight2", row_weight2, x, (channels, channels, 1, taps))
    check_weight(op, "column_weight2", column_weight2, x, (channels, channels, taps, 1))
    weights = {"column_weight": column_weight, "row_weight": row_weight, "row_weight2": row_weight2,
               "column_weight2": column_weight2}  # fmt: skip
    biases = {"column_bias": column_bias, "row_bias": row_bias, "row_bias2": row_bias2, "column_bias2": column_bias2}
    check_vectors(op, channels, **biases)
    check_devices(op, x, **weights, **biases)
    return call(op, x, *weights.values(), *biases.values())


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.bias_dtypes = [None if bias is None else bias.dtype for bias in inputs[5:]]


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    of = ops.global_conv2d_backward(grad, *ctx.saved_tensors, ctx.needs_input_grad[0])
    of_biases = (*of[5:], of[7])
    vectors = (None if dtype is None else v.to(dtype) for v, dtype in zip(of_biases, ctx.bias_dtypes, strict=True))
    return of[0] if ctx.needs_input_grad[0] else None, *of[1:5], *vectors


def _fake_backward(grad: Tensor, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    *weights, _, _, of_x = args
    vectors = [x.new_empty(weights[0].shape[0], dtype=wide_dtype(x.dtype)) for _ in range(3)]
    of_input = empty_images(x, tuple(x.shape), x.dtype) if of_x else x.new_empty(0)
    return of_input, *(w.new_empty(w.shape) for w in weights), *vectors


def _flops(x: Any, column_weight: Any, *_: Any, **__: Any) -> int:
    """Of the definition: two first stages and two second stages, whatever the kernels save."""
    n, in_channels, h, w = x
    channels, _, taps, _ = column_weight
    return int(4 * n * h * w * taps * channels * (in_channels + channels))


declare(
    "global_conv2d(Tensor x, Tensor column_weight, Tensor row_weight, Tensor row_weight2, Tensor column_weight2,"
    " Tensor? column_bias, Tensor? row_bias, Tensor? row_bias2, Tensor? column_bias2) -> Tensor",
    reference=reference.global_conv2d,
    fake=lambda x, column, *_: empty_images(x, (x.shape[0], column.shape[0], *x.shape[2:]), x.dtype),
    setup_context=_save,
    backward=_backward,
    autocast="lower",
    per_sample=("x",),
    flops=_flops,
    triton="global_conv",
)
declare(
    "global_conv2d_backward(Tensor grad, Tensor x, Tensor column_weight, Tensor row_weight, Tensor row_weight2,"
    " Tensor column_weight2, Tensor? column_bias, Tensor? row_bias, bool of_x)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference.global_conv2d_backward,
    fake=_fake_backward,
    flops=lambda grad, x, *args, **__: 2 * _flops(x, *args),
    triton="global_conv",
    **not_differentiable("global_conv2d_backward"),
)
