"""Kernel-sharing atrous convolution, in Triton around a library's GEMM.

Source: docs/ops/ksac.md; Huang et al. 2019 (arXiv 1908.09443), algorithm 1. By linearity the convolution of rate r is

    T_r(p) = sum_d Y_d(p + r d),     Y_d = W_d x,     d in {-1, 0, 1}^2,

so one GEMM (pixels by Cin, times Cin by 9 Cout) gives the responses Y of all rates, and

    gather:  y(p) = sum_r a(s_r T_r(p) + t_r), or the terms one behind the other     8 R + 1 loads, one store
    spread:  dY_d(q) = sum_r g_r(q - r d), of which one GEMM each makes dx and dW     R loads, one store

Per output value of `gather`: 9 R additions and 4 R FLOPs of what follows; the GEMM takes 18 Cin. Bytes through device
memory in float32, with P pixels: the responses 36 Cout P, written and read once (rates read them again from the L2
cache), x once for each slice of channels, the result once. Taps that no rate reads are left out of the GEMM.

Where we deviate: the GEMM is a library's. Fused with the gather, every tile would compute a halo of r_max rows and
columns anew, 4.8 times the products for a tile of 40 x 40 at rate 24; instead the responses of a slice of channels stay
in the L2 cache in between. Slices need no halo; rows are divided only where `NARROW` channels pass the workspace.

Why Triton: pointwise work that memory binds. Maps in NCHW are read along rows, at any alignment, in channels_last along
channels, 16 bytes a thread. Rates are constants of the compiler: nothing is copied to the device, no one waits for it.
"""

from collections.abc import Iterator, Sequence
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

NARROW = 16  # channels of a result that are worth a GEMM of their own
WARPS = 4
FEWER = 8  # times as many pixels and channels in a tile of Triton's interpreter, which takes as long for any


@triton.jit
def activated(z, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu" or ACTIVATION == "relu6":
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if ACTIVATION == "relu6":
        z = tl.minimum(z, 6.0, propagate_nan=tl.PropagateNan.ALL)
    if ACTIVATION == "silu":
        z = z / (1 + tl.exp(-z))
    return z


@triton.jit
def affine(z, scale, shift, at, real, SCALED: tl.constexpr, SHIFTED: tl.constexpr):
    if SCALED:
        z *= tl.load(scale + at, real).to(z.dtype)[None, :]
    if SHIFTED:
        z += tl.load(shift + at, real).to(z.dtype)[None, :]
    return z


@triton.jit
def tile_of(count, channels, WIDE: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """The pixels and channels of a program, and which of them are real; and what is left of its number."""
    program = tl.program_id(0)
    groups = tl.cdiv(channels, CHANNELS)
    tiles = tl.cdiv(count, PIXELS)
    if WIDE:
        program = tl.cast(program, tl.int64)
    p = program // groups % tiles * PIXELS + tl.arange(0, PIXELS)
    c = program % groups * CHANNELS + tl.arange(0, CHANNELS)
    return p, p < count, c, c < channels, program // groups // tiles


@triton.jit
def _rate(k, RATES: tl.constexpr):
    """The rate of number k: selected, so that a loop over rates stays one, and its registers few."""
    rate = RATES[0]
    for m in tl.static_range(1, len(RATES)):
        rate += (k == m) * (RATES[m] - RATES[0])
    return rate


@triton.jit(do_not_specialize=["count", "height", "width", "first", "rows", "begin"])
def gather(
    responses,
    out,
    scale,
    shift,
    y_image,
    y_tap,
    y_channel,
    y_pixel,
    out_image,
    out_rate,
    out_channel,
    out_pixel,
    channels,
    count,
    height,
    width,
    first,
    rows,
    begin,
    RATES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    SUM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """responses [N, ROWS * COLUMNS, channels, rows of the map from `begin` on, width] -> out [N, (R,) channels, rows].

    `count` pixels of `rows` rows of every image, from row `first` of the map on. ROWS and COLUMNS of taps are 3, or 1
    where no rate reads another.
    """
    if WIDE:
        width, y_tap, out_rate = tl.cast(width, tl.int64), tl.cast(y_tap, tl.int64), tl.cast(out_rate, tl.int64)
    p, real, c, real_c, _ = tile_of(count, channels, WIDE, PIXELS, CHANNELS)
    image = p // (rows * width)
    y = p // width % rows
    x = p % width
    inside = real[:, None] & real_c[None, :]
    start = responses + (image * y_image)[:, None] + (c * y_channel)[None, :]
    result = out + (image * out_image + (y * width + x) * out_pixel)[:, None] + (c * out_channel)[None, :]
    y += first
    at = ((y - begin) * width + x) * y_pixel
    centre = tl.load(start + at[:, None] + (ROWS * COLUMNS // 2) * y_tap, inside, other=0.0)
    total = tl.zeros_like(centre)
    for k in range(0, len(RATES)):
        rate = _rate(k, RATES)
        z = centre
        for i in tl.static_range(ROWS):
            row = y + (i - ROWS // 2) * rate
            live = real & (row >= 0) & (row < height)
            for j in tl.static_range(COLUMNS):
                if i != ROWS // 2 or j != COLUMNS // 2:
                    column = x + (j - COLUMNS // 2) * rate
                    lives = (live & (column >= 0) & (column < width))[:, None] & real_c[None, :]
                    at = ((row - begin) * width + column) * y_pixel + (i * COLUMNS + j) * y_tap
                    z += tl.load(start + at[:, None], lives, other=0.0)
        z = activated(affine(z, scale, shift, k * channels + c, real_c, SCALED, SHIFTED), ACTIVATION)
        if SUM:
            total += z
        else:
            tl.store(result + k * out_rate, z.to(out.dtype.element_ty), inside)
    if SUM:
        tl.store(result, total.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["count", "height", "width", "first", "rows"])
def spread(
    grad,
    responses,
    grad_image,
    grad_rate,
    grad_channel,
    grad_y,
    grad_x,
    y_image,
    y_tap,
    y_channel,
    y_pixel,
    channels,
    count,
    height,
    width,
    first,
    rows,
    RATES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """grad [N, R, channels, height, width] in any strides -> responses [N, ROWS * COLUMNS, channels, rows, width], the
    gradients of those in `rows` rows of the map from `first` on."""
    if WIDE:
        width, grad_rate = tl.cast(width, tl.int64), tl.cast(grad_rate, tl.int64)
    p, real, c, real_c, tap = tile_of(count, channels, WIDE, PIXELS, CHANNELS)
    image = p // (rows * width)
    y = p // width % rows
    x = p % width
    result = responses + (image * y_image + (y * width + x) * y_pixel)[:, None] + (c * y_channel + tap * y_tap)[None, :]
    start = grad + (image * grad_image)[:, None] + (c * grad_channel)[None, :]
    y += first
    total = tl.zeros((PIXELS, CHANNELS), responses.dtype.element_ty)
    for k in range(0, len(RATES)):
        rate = _rate(k, RATES)
        row = y - (tap // COLUMNS - ROWS // 2) * rate
        column = x - (tap % COLUMNS - COLUMNS // 2) * rate
        live = real & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = row * grad_y + column * grad_x + k * grad_rate
        total += tl.load(start + at[:, None], live[:, None] & real_c[None, :], other=0.0)
    tl.store(result, total, real[:, None] & real_c[None, :])


def _live(rates: Sequence[int], height: int, width: int) -> tuple[tuple[int, ...], int, int]:
    """The rates, none beyond the map, where all are the same; how many rows and columns of taps any of them reads."""
    rows, columns = (3 if min(rates) < extent else 1 for extent in (height, width))
    return tuple(min(rate, max(height, width)) for rate in rates), rows, columns


def _taps(weight: Tensor, rows: int, columns: int) -> Tensor:
    """weight [Cout, Cin, 3, 3] -> its middle rows and columns, a view [Cout, Cin, rows, columns]."""
    return weight.narrow(2, (3 - rows) // 2, rows).narrow(3, (3 - columns) // 2, columns)


def _factors(taps: Tensor) -> Tensor:
    """taps [Cout, Cin, rows, columns] -> [rows * columns * Cout, Cin]."""
    return taps.permute(2, 3, 0, 1).reshape(-1, taps.shape[1])


def dense(x: Tensor, like: Tensor) -> Tensor:
    return x.contiguous(memory_format=memory_format(like))


def sliced(n: int, channels: int, height: int, width: int, taps: int, reach: int, itemsize: int) -> tuple[int, ...]:
    """How many images, channels and rows of a result are made at a time."""
    pixel = taps * itemsize
    narrow = min(channels, NARROW)
    fit = max(workspace() // (height * width * pixel), narrow)
    together = channels if fit >= channels else fit // narrow * narrow
    if together * height * width * pixel <= workspace():
        return max(1, min(n, workspace() // (together * height * width * pixel))), together, height
    return 1, together, max(1, workspace() // (together * width * pixel) - 2 * reach)


def vectors(scale: Tensor | None, shift: Tensor | None, like: Tensor) -> dict[str, Any]:
    """What no kernel reads where it is None."""
    given = {"scale": scale, "shift": shift}
    dense = {name: like if v is None else v.contiguous() for name, v in given.items()}
    return {**dense, "SCALED": scale is not None, "SHIFTED": shift is not None}


def launch_of(
    kernel: Any, count: int, channels: int, more: int, last: bool, itemsize: int, reach: int, arguments: Any
) -> Launch:
    """A tile has few channels where pixels are neighbours, few pixels where channels are: 16 bytes a thread, or 32
    where loads are wide."""
    together, share = (32 if last else 4), (32 if last and channels % 16 == 0 and itemsize == 4 else 16)
    larger = FEWER if interpreted(kernel) else 1
    together = min(triton.next_power_of_2(channels), together * larger)
    tile = 32 * WARPS * share * larger**2 // itemsize // together
    programs = -(-count // tile) * -(-channels // together)
    wide = needs_int64(max(reach, count + tile))
    constants = {"channels": channels, "count": count, "WIDE": wide, "PIXELS": tile, "CHANNELS": together}
    options = {"num_warps": WARPS, "enable_fp_fusion": True}
    return Launch(kernel, programs * more, {**arguments, **constants}, options)


def _reach(*tensors: Tensor) -> int:
    return max(sum((n - 1) * abs(s) for n, s in zip(x.shape, x.stride(), strict=True)) for x in tensors)


def gathered(
    responses: Tensor,
    out: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    rates: tuple[int, ...],
    taps: tuple[int, int],
    height: int,
    first: int,
    begin: int,
    concat: bool,
    activation: str,
) -> Launch:
    """responses [N, taps, channels, rows from `begin` on, W] -> out [N, R or 1, channels, rows from `first` on, W]."""
    n, _, channels, rows, width = out.shape
    arguments = {
        "responses": responses,
        "out": out,
        **vectors(scale, shift, responses),
        **dict(zip(("y_image", "y_tap", "y_channel", "y_pixel"), _steps(responses), strict=True)),
        **dict(zip(("out_image", "out_rate", "out_channel", "out_pixel"), _steps(out), strict=True)),
        "height": height,
        "width": width,
        "first": first,
        "rows": rows,
        "begin": begin,
        "RATES": rates,
        "ROWS": taps[0],
        "COLUMNS": taps[1],
        "SUM": not concat,
        "ACTIVATION": activation,
    }
    reach = max(_reach(responses, out), 2 * max(height, width))
    return launch_of(
        gather, n * rows * width, channels, 1, responses.stride(2) == 1, responses.itemsize, reach, arguments
    )


def _steps(x: Tensor) -> tuple[int, ...]:
    """Of maps [N, K, C, rows, W] whose rows follow one another."""
    return (*x.stride()[:3], x.stride(4))


def spreaded(
    grad: Tensor,
    responses: Tensor,
    rates: tuple[int, ...],
    taps: tuple[int, int],
    first: int,
) -> Launch:
    """grad [N, R, channels, H, W] -> responses [N, taps, channels, rows from `first` on, W]."""
    n, count, channels, rows, width = responses.shape
    arguments = {
        "grad": grad,
        "responses": responses,
        **dict(zip(("grad_image", "grad_rate", "grad_channel", "grad_y", "grad_x"), grad.stride(), strict=True)),
        **dict(zip(("y_image", "y_tap", "y_channel", "y_pixel"), _steps(responses), strict=True)),
        "height": grad.shape[3],
        "width": width,
        "first": first,
        "rows": rows,
        "RATES": rates,
        "ROWS": taps[0],
        "COLUMNS": taps[1],
    }
    reach = max(_reach(grad, responses), 2 * max(grad.shape[3:]))
    return launch_of(
        spread, n * rows * width, channels, count, responses.stride(2) == 1, responses.itemsize, reach, arguments
    )


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched for four rates and 256 channels, in both memory formats; of an odd
    number of channels, and beyond int32, for one dtype."""

    def maps(shape: tuple[int, ...], last: bool, dtype: torch.dtype) -> Tensor:
        like = torch.empty((1, 2, 2, 2), device="meta")
        return empty_images(like.to(memory_format=torch.channels_last) if last else like, shape, dtype)

    def gather_(dtype: torch.dtype, last: bool, concat: bool = False, outputs: int = 256, size: int = 33) -> Launch:
        count, wide = (4 if concat else 1), wide_dtype(dtype)
        responses = maps((1, 9 * outputs, size, size), last, wide).unflatten(1, (9, outputs))
        out = maps((1, count * outputs, size, size), last, dtype).unflatten(1, (count, outputs))
        vector = None if concat else torch.empty((4, outputs), device="meta")
        activation = "none" if concat else "silu" if dtype == torch.float64 else "relu"
        return gathered(responses, out, vector, vector, (6, 12, 18, 24), (3, 3), size, 0, 0, concat, activation)

    def spread_(dtype: torch.dtype, last: bool) -> Launch:
        grad = maps((1, 4 * 256, 33, 33), last, dtype).unflatten(1, (4, 256))
        responses = maps((1, 9 * 256, 33, 33), last, dtype).unflatten(1, (9, 256))
        return spreaded(grad, responses, (6, 12, 18, 24), (3, 3), 0)

    launched: dict[str, Launch] = {}
    for last, format in ((True, "channels_last"), (False, "nchw")):
        for dtype in FLOATS:
            launched[f"gather<{str(dtype).removeprefix('torch.')},{format}>"] = gather_(dtype, last)
        launched[f"gather<float32,{format},concat>"] = gather_(torch.float32, last, concat=True)
        for dtype in FLOATS[:2]:
            variant = f"<{str(dtype).removeprefix('torch.')},{format}>"
            launched[f"spread{variant}"] = spread_(dtype, last)
    launched["gather<float32,channels_last,odd>"] = gather_(torch.float32, True, outputs=21)
    launched["gather<float32,channels_last,int64>"] = gather_(torch.float32, True, size=2**12)
    for name, launch in launched.items():
        yield name, launch.program(), launch.options


def _narrowed(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """What a kernel stores for a result of this dtype. Triton's interpreter would cut the lower bits off."""
    return wide_dtype(dtype) if interpreted(gather) and dtype == torch.bfloat16 else dtype


def _check(op: str, weight: Tensor, rates: Sequence[int], channels: int, grad: Tensor | None = None) -> None:
    if grad is not None and (grad.shape[1], grad.dtype) != (weight.shape[0] * len(rates), wide_dtype(weight.dtype)):
        raise ValueError(f"fastseg::{op}: grad must have Cout channels for each rate, got {list(grad.shape)}")
    if weight.dim() != 4 or weight.shape[1:] != (channels, 3, 3):
        raise ValueError(f"fastseg::{op}: weight must be [Cout, {channels}, 3, 3], got {list(weight.shape)}")
    if not rates or not all(1 <= rate < 2**30 for rate in rates):
        raise ValueError(f"fastseg::{op}: rates must be from 1 to 2^30 - 1, got {list(rates)}")


def _convolved(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    scale: Tensor | None,
    shift: Tensor | None,
    concat: bool,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    n, _, height, width = x.shape
    outputs, wide = weight.shape[0], wide_dtype(x.dtype)
    out = empty_images(x, (n, outputs * (len(rates) if concat else 1), height, width), _narrowed(x, dtype))
    near, rows, columns = _live(rates, height, width)
    count, reach = rows * columns, max((rate for rate in near if rate < height), default=0)
    images, channels, band = sliced(n, outputs, height, width, count, reach, wide.itemsize)
    maps, taps = dense(x, x), _taps(weight, rows, columns)
    results = out.unflatten(1, (len(rates) if concat else 1, outputs))
    for c in portions(outputs, channels):
        factors = _factors(taps[c]).T
        scales, shifts = (None if v is None else v[:, c] for v in (scale, shift))
        for some in portions(n, images):
            for y in portions(height, band):
                held = slice(max(0, y.start - reach), min(height, y.stop + reach))
                part = maps[some, :, held]
                shape = (part.shape[0], count * (c.stop - c.start), *part.shape[2:])
                responses = empty_images(x, shape, wide)
                matmul(pixels(part), factors, pixels(responses))
                gathered(
                    responses.unflatten(1, (count, -1)),
                    results[some, :, c, y],
                    scales,
                    shifts,
                    near,
                    (rows, columns),
                    height,
                    y.start,
                    held.start,
                    concat,
                    activation,
                ).run()
    return out.to(dtype)


def launch_ksac_conv2d(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    scale: Tensor | None,
    shift: Tensor | None,
    concat: bool,
    activation: str,
) -> Tensor:
    """x [N, Cin, H, W], weight [Cout, Cin, 3, 3], scale and shift [R, Cout] -> [N, Cout or R * Cout, H, W]."""
    _check("ksac_conv2d", weight, rates, x.shape[1])
    with torch.cuda.device_of(x):
        return _convolved(x, weight, rates, scale, shift, concat, activation, x.dtype)


def launch_ksac_responses(x: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """x, weight -> the T_r [N, R * Cout, H, W] in the dtype that is computed in."""
    _check("ksac_responses", weight, rates, x.shape[1])
    with torch.cuda.device_of(x):
        return _convolved(x, weight, rates, None, None, True, "none", wide_dtype(x.dtype))


def _gradients(grad: Tensor, rates: Sequence[int], channels: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Images, rows, and the gradients of their responses as matrices [N, pixels, taps * channels]; of all channels, for
    a band needs no halo here."""
    n, _, height, width = grad.shape
    near, rows, columns = _live(rates, height, width)
    of_rates = grad.unflatten(1, (len(rates), channels))
    row = rows * columns * channels * width * grad.element_size()
    band = min(height, max(1, workspace() // row))
    for some in portions(n, max(1, workspace() // (row * height))):
        for y in portions(height, band):
            shape = (some.stop - some.start, rows * columns * channels, y.stop - y.start, width)
            responses = empty_images(grad, shape, grad.dtype)
            spreaded(of_rates[some], responses.unflatten(1, (-1, channels)), near, (rows, columns), y.start).run()
            yield some, y, pixels(responses)


def launch_ksac_responses_input(grad: Tensor, weight: Tensor, rates: Sequence[int]) -> Tensor:
    """grad [N, R * Cout, H, W] -> [N, Cin, H, W] in the dtype of weight."""
    _check("ksac_responses_input", weight, rates, weight.shape[1], grad)
    n, _, height, width = grad.shape
    out = empty_images(grad, (n, weight.shape[1], height, width), grad.dtype)
    factors = _factors(_taps(weight, *_live(rates, height, width)[1:])).to(grad.dtype)
    with torch.cuda.device_of(grad):
        for some, y, responses in _gradients(grad, rates, weight.shape[0]):
            matmul(responses, factors, pixels(out[some, :, y]))
    return out.to(weight.dtype)


def launch_ksac_responses_weight(grad: Tensor, x: Tensor, rates: Sequence[int]) -> Tensor:
    """grad [N, R * Cout, H, W] -> [Cout, Cin, 3, 3] in the dtype of x."""
    outputs, inputs = grad.shape[1] // max(1, len(rates)), x.shape[1]
    out = x.new_zeros((outputs, inputs, 3, 3), dtype=grad.dtype)
    _check("ksac_responses_weight", out.to(x.dtype), rates, inputs, grad)
    if x.shape[::2] != grad.shape[::2] or x.shape[3] != grad.shape[3]:
        raise ValueError(f"fastseg::ksac_responses_weight: grad must have the pixels of x, got {list(grad.shape)}")
    _, rows, columns = _live(rates, *x.shape[2:])
    total, maps = grad.new_zeros((rows * columns * outputs, inputs)), dense(x, x)
    with torch.cuda.device_of(grad):
        for some, y, responses in _gradients(grad, rates, outputs):
            add_matmul(total, responses, pixels(maps[some, :, y]))
    _taps(out, rows, columns).copy_(total.view(rows, columns, outputs, inputs).permute(2, 3, 0, 1))
    return out.to(x.dtype)
