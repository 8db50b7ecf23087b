"""GCN's large separable kernel, in Triton around a library's GEMM.

Source: docs/ops/global_conv.md; Peng et al. 2017 (arXiv 1703.02719). With k taps, columns A [C, C', k] and rows R,

    first:    M_0(y, x) = a + sum_t U_t(y + t, x),     M_1(y, x) = r + sum_t V_t(y, x + t),     |t| <= k / 2,
    second:   y(y, x) = b + sum_t R2_t M_0(y, x + t) + sum_t A2_t M_1(y + t, x),

where one GEMM (2 k C by C', times C' by pixels) gives all U_t = A_t x and V_t = R_t x. The gradients are the same sums
the other way round: `second` with turned weights gives G_0, G_1, those of M; `shifted` lays them out once for each tap,
and one GEMM each gives the gradients of x and of the first stages' weights; likewise those of the second stages.

Per output value: 4 k C' FLOPs in the GEMM, 2 k additions in `first`, 4 k C FLOPs in `second`. Bytes through device
memory in float32, with P pixels: x, 8 k C P of U and V written and read, 8 C P of M written and read, the result.
Taps beyond the map are left out, of the GEMM too.

Where we deviate: no FFT, which halves the products of the CPU's kernel but not those that tensor cores do. The second
stages multiply and add in a loop over taps and channels instead of `tl.dot`: with C near 21 a dot pads both dimensions
to 32, and in full float32 it has no tensor cores. On sm_80 the loop takes 1.8 instructions for a multiply-add, or 2.0
for one that counts, the dot 1.6 and 3.7. What is kept in between is float32, and every result is rounded once.

Why Triton: two passes that memory binds, and one bound by multiply-adds whose operands neighbouring threads share.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from .._registry import FLOATS
from ..ops.arguments import empty_images, wide_dtype
from ..reference.upsample import memory_format
from ._launch import Launch, interpreted, needs_int64
from ._products import add_matmul, matmul, pixels, portions, workspace

OUTPUTS = 8  # channels that a program of `second` makes: of 21 three programs leave less idle than one of 32 would
FEWER = 16  # times as many pixels and channels in a tile of Triton's interpreter, which takes as long for any
SMALL = 2**15  # pixels of maps below which tiles are small, so that there are enough of them


@triton.jit
def _pixels(count, rows, width, PIXELS: tl.constexpr, WIDE: tl.constexpr):
    """The pixels of a program, which of them are real, their image, row and column; and what is left of its number."""
    program = tl.program_id(0)
    if WIDE:
        program = tl.cast(program, tl.int64)
    tiles = tl.cdiv(count, PIXELS)
    p = program % tiles * PIXELS + tl.arange(0, PIXELS)
    return p < count, p // (rows * width), p // width % rows, p % width, program // tiles


@triton.jit
def _within(y, x, height, width):
    return (y >= 0) & (y < height) & (x >= 0) & (x < width)


@triton.jit(do_not_specialize=["count", "channels", "height", "width", "first", "rows", "begin", "held"])
def first_stages(
    products,
    bias,
    out,
    count,
    channels,
    height,
    width,
    first,
    rows,
    begin,
    held,
    reach_y,
    reach_x,
    PIXELS: tl.constexpr,
    PLANES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """products [N, taps * channels, held, width] of rows of the map from `begin` on, taps of columns before those of
    rows -> `rows` rows from `first` on of out [N, 2, channels, height, width]; bias [2, channels]."""
    if WIDE:
        width, channels = tl.cast(width, tl.int64), tl.cast(channels, tl.int64)
    real, image, y, x, rest = _pixels(count, rows, width, PIXELS, WIDE)
    y += first
    groups = tl.cdiv(channels, PLANES)
    branch = rest // groups
    c = rest % groups * PLANES + tl.arange(0, PLANES)
    real_c = (c < channels)[:, None]
    plane = branch * channels + c
    reach = reach_y + branch * (reach_x - reach_y)
    step = channels * held * width
    tap = image * (2 * reach_y + 2 * reach_x + 2) + branch * (2 * reach_y + 1)
    start = products + (tap * step)[None, :] + ((c * held - begin) * width)[:, None]
    total = tl.zeros((PLANES, PIXELS), products.dtype.element_ty) + tl.load(bias + plane, c < channels)[:, None]
    for t in range(0, 2 * reach + 1):
        row = y + (1 - branch) * (t - reach)
        column = x + branch * (t - reach)
        live = real & _within(row, column, height, width)
        total += tl.load(start + (row * width + column)[None, :], live[None, :] & real_c, other=0.0)
        start += step
    result = out + (plane * height * width)[:, None] + ((image * 2 * channels * height + y) * width + x)[None, :]
    tl.store(result, total, real[None, :] & real_c)


@triton.jit(do_not_specialize=["count", "channels", "height", "width"])
def second_stages(
    maps,
    weights,
    bias,
    out,
    count,
    channels,
    height,
    width,
    maps_image,
    maps_branch,
    out_image,
    out_branch,
    out_channel,
    out_pixel,
    padded,
    reach_y,
    reach_x,
    SUM: tl.constexpr,
    PIXELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """maps [N, 2, channels, height, width], weights [taps, channels, padded], rows' before columns' -> the sum of both
    branches and bias [padded] in out [N, channels, height, width], or out [N, 2, channels, height, width]."""
    if WIDE:
        width, channels = tl.cast(width, tl.int64), tl.cast(channels, tl.int64)
    real, image, y, x, rest = _pixels(count, height, width, PIXELS, WIDE)
    groups = tl.cdiv(channels, OUTPUTS)
    o = rest % groups * OUTPUTS + tl.arange(0, OUTPUTS)
    only = rest // groups
    total = tl.zeros((OUTPUTS, PIXELS), maps.dtype.element_ty)
    if SUM:
        total += tl.load(bias + o)[:, None]
    plane = height * width
    factors = weights + only * (2 * reach_x + 1) * channels * padded
    for branch in range(0 if SUM else only, 2 if SUM else only + 1):
        reach = reach_x + branch * (reach_y - reach_x)
        start = maps + image * maps_image + branch * maps_branch
        for t in range(0, 2 * reach + 1):
            row = y + branch * (t - reach)
            column = x + (1 - branch) * (t - reach)
            live = real & _within(row, column, height, width)
            at = start + row * width + column
            for _ in range(0, channels):
                value = tl.load(at, live, other=0.0)
                total += tl.load(factors + o)[:, None] * value[None, :]
                at += plane
                factors += padded
    pixel = image * out_image + (y * width + x) * out_pixel
    result = out + pixel[None, :] + (o * out_channel)[:, None] + only * out_branch
    tl.store(result, total.to(out.dtype.element_ty), real[None, :] & (o < channels)[:, None])


@triton.jit(do_not_specialize=["count", "channels", "height", "width", "first", "rows"])
def shifted(
    maps,
    out,
    count,
    channels,
    height,
    width,
    maps_image,
    maps_branch,
    first,
    rows,
    reach,
    other_reach,
    COLUMNS: tl.constexpr,
    PIXELS: tl.constexpr,
    PLANES: tl.constexpr,
    WIDE: tl.constexpr,
):
    """maps [N, 2, channels, height, width] -> out [N, taps * channels, rows, width], rows from `first` on, moved on by
    each tap: those of the first branch along columns with COLUMNS, else along rows, of the second the other way."""
    if WIDE:
        width, channels = tl.cast(width, tl.int64), tl.cast(channels, tl.int64)
    real, image, y, x, group = _pixels(count, rows, width, PIXELS, WIDE)
    planes = (2 * reach + 2 * other_reach + 2) * channels
    plane = group * PLANES + tl.arange(0, PLANES)
    result = (image * planes * rows + y) * width + x
    second = plane >= (2 * reach + 1) * channels
    tap = plane // channels - tl.where(second, 2 * reach + 1 + other_reach, reach)
    along_y = tl.where(second, not COLUMNS, COLUMNS)
    row = (y + first)[None, :] - (tap * along_y)[:, None]
    column = x[None, :] - (tap * (1 - along_y))[:, None]
    inside = real[None, :] & (plane < planes)[:, None]
    source = tl.where(second, maps_branch, 0) + plane % channels * height * width
    at = (image * maps_image)[None, :] + source[:, None] + row * width + column
    value = tl.load(maps + at, inside & _within(row, column, height, width), other=0.0)
    tl.store(out + result[None, :] + (plane * rows * width)[:, None], value, inside)


def _reach(k: int, height: int, width: int) -> tuple[int, int]:
    """Taps on either side along y and along x that meet the map."""
    return min(k // 2, height - 1), min(k // 2, width - 1)


def _alive(weight: Tensor, reach: int) -> Tensor:
    """weight [C, C', k, 1] or [C, C', 1, k] -> its taps within reach, a view [taps, C, C']."""
    taps = weight.flatten(2)
    return taps.narrow(2, taps.shape[2] // 2 - reach, 2 * reach + 1).permute(2, 0, 1)


def _tile(kernel: Any, count: int, most: int) -> tuple[int, int, int]:
    """Pixels of a tile, how many times as many channels or planes it has, and warps."""
    larger = FEWER if interpreted(kernel) else 1
    return (64 if count < SMALL else most) * larger, larger, 2 if count < SMALL else 4


def _launch(kernel: Any, count: int, more: int, warps: int, largest: int, arguments: dict[str, Any]) -> Launch:
    tile = arguments["PIXELS"]
    wide = needs_int64(max(largest, count + tile))
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return Launch(kernel, -(-count // tile) * more, {**arguments, "count": count, "WIDE": wide}, options)


def firsts(products: Tensor, bias: Tensor, out: Tensor, reach: tuple[int, int], y: slice, begin: int) -> Launch:
    """The rows `y` of out [N, 2, C, H, W] from products [N, taps * C, rows from `begin` on, W]."""
    n, _, channels, height, width = out.shape
    count = n * (y.stop - y.start) * width
    pixels_, larger, warps = _tile(first_stages, count, 256)
    planes = min(triton.next_power_of_2(channels), 4 * larger)
    arguments = {
        "products": products,
        "bias": bias,
        "out": out,
        "channels": channels,
        "height": height,
        "width": width,
        "first": y.start,
        "rows": y.stop - y.start,
        "begin": begin,
        "held": products.shape[2],
        "reach_y": reach[0],
        "reach_x": reach[1],
        "PIXELS": pixels_,
        "PLANES": planes,
    }
    return _launch(
        first_stages, count, 2 * -(-channels // planes), warps, max(products.numel(), out.numel()), arguments
    )


def seconds(maps: Tensor, weights: Tensor, bias: Tensor, out: Tensor, reach: tuple[int, int], both: bool) -> Launch:
    """maps [N, 2, C, H, W], or one for both branches -> their sum in out [N, 1, C, H, W] of any format, or both."""
    n, _, channels, height, width = maps.shape
    count = n * height * width
    pixels_, larger, warps = _tile(second_stages, count, 512)
    outputs = min(triton.next_power_of_2(channels), OUTPUTS * larger)
    arguments = {
        "maps": maps,
        "weights": weights,
        "bias": bias,
        "out": out,
        "channels": channels,
        "height": height,
        "width": width,
        "maps_image": maps.stride(0),
        "maps_branch": maps.stride(1) if maps.shape[1] == 2 else 0,
        **dict(zip(("out_image", "out_branch", "out_channel"), out.stride()[:3], strict=True)),
        "out_pixel": out.stride(4),
        "padded": weights.shape[2],
        "reach_y": reach[0],
        "reach_x": reach[1],
        "SUM": both,
        "PIXELS": pixels_,
        "OUTPUTS": outputs,
    }
    groups = -(-channels // outputs) * (1 if both else 2)
    return _launch(second_stages, count, groups, warps, max(maps.numel(), out.numel()), arguments)


def shifts(maps: Tensor, out: Tensor, reach: tuple[int, int], columns: bool, first: int) -> Launch:
    """maps [N, 2, C, H, W], or one for both branches -> out [N, taps * C, rows from `first` on, W]. `reach` is that of
    the first branch, which moves along columns or rows, and that of the second."""
    n, _, channels, height, width = maps.shape
    rows = out.shape[2]
    count = n * rows * width
    pixels_, larger, warps = _tile(shifted, count, 256)
    planes = 4 * larger
    arguments = {
        "maps": maps,
        "out": out,
        "channels": channels,
        "height": height,
        "width": width,
        "maps_image": maps.stride(0),
        "maps_branch": maps.stride(1) if maps.shape[1] == 2 else 0,
        "first": first,
        "rows": rows,
        "reach": reach[0],
        "other_reach": reach[1],
        "COLUMNS": columns,
        "PIXELS": pixels_,
        "PLANES": planes,
    }
    return _launch(shifted, count, -(-out.shape[1] // planes), warps, max(maps.numel(), out.numel()), arguments)


def _packed(row: Tensor, column: Tensor, reach: tuple[int, int], dtype: torch.dtype, adjoint: bool = False) -> Tensor:
    """The second stages' weights as [taps, C, C padded]; of the adjoint turned round."""
    taps = torch.cat([_alive(row, reach[1]), _alive(column, reach[0])]).to(dtype)
    if adjoint:
        taps = torch.cat([_alive(row, reach[1]).flip(0), _alive(column, reach[0]).flip(0)]).to(dtype)
    else:
        taps = taps.transpose(1, 2)
    return torch.nn.functional.pad(taps, (0, -taps.shape[2] % 16)).contiguous()


def _vector(bias: Tensor | None, like: Tensor, channels: int) -> Tensor:
    """Values in the dtype of `like`, zero without any."""
    return like.new_zeros(channels) if bias is None else bias.to(like.dtype)


def _first_weights(column: Tensor, row: Tensor, reach: tuple[int, int]) -> Tensor:
    """[taps * C, C'], columns' before rows'."""
    return torch.cat([_alive(column, reach[0]), _alive(row, reach[1])]).flatten(0, 1)


def _middle(
    x: Tensor, factors: Tensor, biases: tuple[Tensor | None, ...], channels: int, reach: tuple[int, int]
) -> Tensor:
    """M [N, 2, C, H, W] in the dtype that is computed in, a band of rows of a group of images at a time."""
    n, _, height, width = x.shape
    out = x.new_empty((n, 2, channels, height, width), dtype=wide_dtype(x.dtype))
    bias = torch.stack([_vector(b, out, channels) for b in biases])
    row = factors.shape[0] * width * out.itemsize
    band = max(1, workspace() // row - 2 * reach[0]) if row * height > workspace() else height
    for some in portions(n, max(1, workspace() // (row * height))):
        for y in portions(height, band):
            held = slice(max(0, y.start - reach[0]), min(height, y.stop + reach[0]))
            part = x[some, :, held]
            products = out.new_empty((part.shape[0], factors.shape[0], *part.shape[2:]))
            matmul(pixels(part), factors.T, pixels(products))
            firsts(products, bias, out[some], reach, y, held.start).run()
    return out


def _check(op: str, x: Tensor, *weights: Tensor) -> None:
    channels, taps = weights[0].shape[0], weights[0].shape[2]
    shapes = [(channels, x.shape[1], taps, 1), (channels, x.shape[1], 1, taps), (channels, channels, 1, taps)]
    for weight, shape in zip(weights, (*shapes, (channels, channels, taps, 1)), strict=True):
        if weight.shape != shape or weight.dtype != x.dtype or taps % 2 == 0:
            raise ValueError(f"fastseg::{op}: weight must be {x.dtype} {list(shape)}, k odd, got {list(weight.shape)}")


def launch_global_conv2d(
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
    _check("global_conv2d", x, column_weight, row_weight, row_weight2, column_weight2)
    channels, _, k, _ = column_weight.shape
    narrow = wide_dtype(x.dtype) if interpreted(second_stages) and x.dtype == torch.bfloat16 else x.dtype
    out = empty_images(x, (x.shape[0], channels, *x.shape[2:]), narrow)
    if out.numel():
        with torch.cuda.device_of(x):
            reach = _reach(k, *x.shape[2:])
            factors = _first_weights(column_weight, row_weight, reach)
            dense = x.contiguous(memory_format=memory_format(x))
            middle = _middle(dense, factors, (column_bias, row_bias), channels, reach)
            weights = _packed(row_weight2, column_weight2, reach, middle.dtype)
            bias = middle.new_zeros(weights.shape[2])
            bias[:channels] = _vector(row_bias2, middle, channels) + _vector(column_bias2, middle, channels)
            seconds(middle, weights, bias, out[:, None], reach, both=True).run()
    return out.to(x.dtype)


def launch_global_conv2d_backward(
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
    given = column_weight, row_weight, row_weight2, column_weight2
    _check("global_conv2d_backward", x, *given)
    (n, _, height, width), (channels, _, k, _), wide = x.shape, column_weight.shape, wide_dtype(x.dtype)
    if grad.shape != (n, channels, height, width):
        raise ValueError(f"fastseg::global_conv2d_backward: grad must be a result, got {list(grad.shape)}")
    of_weights = [weight.new_zeros(weight.shape, dtype=wide) for weight in given]
    of_input = empty_images(x, tuple(x.shape), wide) if of_x else x.new_empty(0, dtype=wide)
    upstream = grad.to(wide).contiguous()[:, None]
    of_middle = x.new_empty((n, 2, channels, height, width), dtype=wide)
    if x.numel():
        with torch.cuda.device_of(x):
            reach = _reach(k, height, width)
            factors = _first_weights(column_weight, row_weight, reach)
            dense = x.contiguous(memory_format=memory_format(x))
            middle = _middle(dense, factors, (column_bias, row_bias), channels, reach)
            weights = _packed(row_weight2, column_weight2, reach, wide, adjoint=True)
            seconds(upstream, weights, weights, of_middle, reach, both=False).run()
            _differentiate(of_middle, upstream, dense, middle, factors.to(wide), reach, of_weights, of_input)
    of_biases = of_middle.sum((0, 3, 4))
    of_bias2 = upstream.sum((0, 1, 3, 4))
    return (of_input.to(x.dtype), *(of.to(x.dtype) for of in of_weights), *of_biases, of_bias2)


def _differentiate(
    of_middle: Tensor,
    upstream: Tensor,
    x: Tensor,
    middle: Tensor,
    factors: Tensor,
    reach: tuple[int, int],
    of_weights: list[Tensor],
    of_input: Tensor,
) -> None:
    """Fill the gradients of x, if it has room for any, and of the weights, in bands that need no halo."""
    n, _, channels, height, width = middle.shape
    column, row, row2, column2 = of_weights
    totals = [factors.new_zeros(factors.shape), *(factors.new_zeros((2 * r + 1) * channels, channels) for r in reach)]
    line = factors.shape[0] * width * factors.itemsize
    for some in portions(n, max(1, workspace() // (line * height))):
        for y in portions(height, min(height, max(1, workspace() // line))):
            room = factors.new_empty((some.stop - some.start, factors.shape[0], y.stop - y.start, width))
            shifts(of_middle[some], room, reach, True, y.start).run()
            products = pixels(room)
            add_matmul(totals[0], products, pixels(x[some, :, y]))
            if of_input.numel():
                matmul(products, factors, pixels(of_input[some, :, y]))
            shifts(upstream[some], room, reach[::-1], False, y.start).run()
            rows, columns = products.split([(2 * r + 1) * channels for r in reach[::-1]], 2)
            add_matmul(totals[1], columns, pixels(middle[some, 1, :, y]))
            add_matmul(totals[2], rows, pixels(middle[some, 0, :, y]))
    sizes = [2 * r + 1 for r in reach]
    of_first = totals[0].unflatten(0, (-1, channels)).split(sizes)
    for weight, of, r in ((column, of_first[0], reach[0]), (row, of_first[1], reach[1]),
                          (column2, totals[1].unflatten(0, (-1, channels)), reach[0]),
                          (row2, totals[2].unflatten(0, (-1, channels)), reach[1])):  # fmt: skip
        _alive(weight, r).copy_(of)


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched for 15 taps and 21 channels, of large maps and of small ones, and
    beyond int32."""

    def launches(dtype: torch.dtype, size: int, last: bool = False) -> dict[str, Launch]:
        wide, reach = wide_dtype(dtype), (7, 7)
        middle = torch.empty((1, 2, 21, size, size), dtype=wide, device="meta")
        products = middle.new_empty((1, 630, size, size))
        like = torch.empty((1, 2, 2, 2), device="meta")
        like = like.to(memory_format=torch.channels_last) if last else like
        out = empty_images(like, (1, 21, size, size), dtype)[:, None]
        weights, bias = middle.new_empty((30, 21, 32)), middle.new_empty(42)
        return {
            "second": seconds(middle, weights, bias, out, reach, both=True),
            "adjoint": seconds(middle, weights, bias, middle, reach, both=False),
            "first": firsts(products, bias, middle, reach, slice(0, size), 0),
            "shifted": shifts(middle, products, reach, True, 0),
        }

    for dtype in FLOATS:
        name = str(dtype).removeprefix("torch.")
        for part, launch in launches(dtype, 256).items():
            if part == "second" or dtype in FLOATS[:2]:
                yield f"{part}<{name}>", launch.program(), launch.options
    for variant, given in (("small", (16,)), ("channels_last", (256, True)), ("int64", (2**14,))):
        for part, launch in launches(torch.float32, *given).items():
            if part == "second" or variant == "int64":
                yield f"{part}<float32,{variant}>", launch.program(), launch.options
