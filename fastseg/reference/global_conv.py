"""GCN's large separable kernel, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv import widened, with_rows
from .upsample import memory_format


def _padding(weight: Tensor) -> list[int]:
    return [weight.shape[2] // 2, weight.shape[3] // 2]


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    wide = None if bias is None else bias.to(x.dtype)
    x, padding = with_rows(x, weight.shape[2], _padding(weight))
    return F.conv2d(x, weight.to(x.dtype), wide, padding=padding)


def global_conv2d(
    x: Tensor,
    column_weight: Tensor,
    row_weight: Tensor,
    row_weight2: Tensor,
    column_weight2: Tensor,
    column_bias: Tensor | None,
    row_bias: Tensor | None,
    row_bias2: Tensor | None,
    column_bias2: Tensor | None,
) -> Tensor:
    """x [N, C', H, W], weights [C, C', k, 1], [C, C', 1, k], [C, C, 1, k], [C, C, k, 1], biases [C] -> [N, C, H, W]."""
    if x.numel() == 0:  # convolutions take no empty sizes
        given = (
            x,
            column_weight,
            row_weight,
            row_weight2,
            column_weight2,
            column_bias,
            row_bias,
            row_bias2,
            column_bias2,
        )
        of_all = sum(t.sum().to(x.dtype) for t in given if t is not None)
        empty = x.new_zeros((x.shape[0], column_weight.shape[0], *x.shape[2:])) + 0 * of_all
        return empty.contiguous(memory_format=memory_format(x))
    wide = widened(x)
    first = _convolved(_convolved(wide, column_weight, column_bias), row_weight2, row_bias2)
    second = _convolved(_convolved(wide, row_weight, row_bias), column_weight2, column_bias2)
    return (first + second).to(x.dtype).contiguous(memory_format=memory_format(x))


def global_conv2d_backward(
    grad: Tensor,
    x: Tensor,
    column_weight: Tensor,
    row_weight: Tensor,
    row_weight2: Tensor,
    column_weight2: Tensor,
    column_bias: Tensor | None,
    row_bias: Tensor | None,
    of_x: bool,
) -> tuple[Tensor, ...]:
    """Gradients of x (empty unless `of_x`), of the four weights, of the first stages' biases and of the second's."""
    weights = column_weight, row_weight, row_weight2, column_weight2
    wide, g = widened(x), widened(grad)
    if x.numel() == 0:
        vectors = [wide.new_zeros(column_weight.shape[0]) for _ in range(3)]
        of_input = x.new_zeros(x.shape).contiguous(memory_format=memory_format(x)) if of_x else x.new_empty(0)
        return (of_input, *(w.new_zeros(w.shape) for w in weights), *vectors)

    def adjoint(upstream: Tensor, y: Tensor, weight: Tensor, of_y: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        padded, padding = with_rows(y, weight.shape[2], _padding(weight))
        of_padded, of_weight, of_bias = torch.ops.aten.convolution_backward(
            upstream, padded, weight.to(y.dtype), [weight.shape[0]], [1, 1], padding, [1, 1], False, [0, 0], 1,
            [of_y, True, True],
        )  # fmt: skip
        above = (padded.shape[2] - y.shape[2]) // 2
        return of_padded[:, :, above : above + y.shape[2]] if of_y else of_padded, of_weight, of_bias

    first, of_row2, _ = adjoint(g, _convolved(wide, column_weight, column_bias), row_weight2)
    second, of_column2, of_bias2 = adjoint(g, _convolved(wide, row_weight, row_bias), column_weight2)
    one, of_column, of_column_bias = adjoint(first, wide, column_weight, of_x)
    other, of_row, of_row_bias = adjoint(second, wide, row_weight, of_x)
    of_input = (one + other).to(x.dtype).contiguous(memory_format=memory_format(x)) if of_x else x.new_empty(0)
    of_weights = (of_column, of_row, of_row2, of_column2)
    return (of_input, *(d.to(x.dtype).contiguous() for d in of_weights), of_column_bias, of_row_bias, of_bias2)
