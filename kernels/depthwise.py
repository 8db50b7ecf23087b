"""Depthwise convolution of [N, C, H, W] maps and the gradient of its weight, in Triton; the parts that a dense one has
in common with it.

Source: Chen et al. 2018 (arXiv 1802.02611), section 3.1; docs/ops/atrous_conv.md, "On the GPU".

    y(c, o) = activation(s_c (sum_t w(c, t) x(c, o stride - padding + t r) + b_c) + t_c + z(c, o))

Forward: a program owns BLOCK_P outputs of BLOCK_C channels: 32 of 64 with lanes over channels in channels_last, 1024
of one channel with lanes over columns in NCHW. Per output 2 kh kw FLOPs, one store, and kh kw loads, of which device
memory sees one: programs that run together read the same lines. Bytes in device memory are the floor, each map once.

Gradient of the weight: a program owns the taps of BLOCK_C channels over one chunk of the outputs. It walks the chunk
once for each tap, keeps a sum for each place of its tile, and adds these up at the end. The sums of the chunks are
added in their order: no atomics, the same bits in each run.

The gradient of the input, at stride 1, is the forward with the taps in reverse.

Why Triton: no sum is shared between threads, and memory binds: CUDA C++ would issue the same loads.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from .._registry import FLOATS
from ..ops.arguments import wide_dtype
from ..reference.upsample import memory_format
from ._launch import Launch, grids, interpreted, needs_int64
from .upsample import _rounded_to_bfloat16

PROGRAMS = 512  # that the gradient of a weight is split for
LEAST = 128  # outputs of a chunk
SCRATCH = 2**24  # values of all chunks together
TILES = {True: (32, 64), False: (1024, 1)}  # pixels and channels: channels_last, NCHW
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


@triton.jit
def _finished(y, bias, scale, shift, residual, c, c_inside, at, inside, ACTIVATION: tl.constexpr):
    """activation(scale * (y + bias) + shift + residual) of a tile; vectors at c, the residual at `at`."""
    if bias is not None:
        y += tl.load(bias + c, c_inside).to(y.dtype)[None, :]
    if scale is not None:
        y *= tl.load(scale + c, c_inside).to(y.dtype)[None, :]
    if shift is not None:
        y += tl.load(shift + c, c_inside).to(y.dtype)[None, :]
    if residual is not None:
        y += tl.load(residual + at, inside).to(y.dtype)
    if ACTIVATION == "silu":
        y *= tl.sigmoid(y)
    elif ACTIVATION != "none":  # NaN stays
        y = tl.where(y < 0, 0.0, y)
        if ACTIVATION == "relu6":
            y = tl.where(y > 6, 6.0, y)
    return y


@triton.jit
def _store(out, at, y, inside, UPCAST: tl.constexpr):
    if UPCAST:
        tl.store(out + at, _rounded_to_bfloat16(y).to(tl.bfloat16), inside)
    else:
        tl.store(out + at, y.to(out.dtype.element_ty), inside)


@triton.jit(
    do_not_specialize=[
        *("first_plane", "height", "width", "out_width", "taps_y", "taps_x"),
        *("stride_y", "stride_x", "padding_y", "padding_x", "dilation_y", "dilation_x"),
    ]
)
def depthwise(
    x,
    weight,
    bias,
    scale,
    shift,
    residual,
    out,
    x_n,
    x_c,
    x_y,
    x_x,
    w_c,
    w_t,
    out_p,
    out_c,
    channels,
    pixels,
    first_plane,
    height,
    width,
    out_width,
    taps_y,
    taps_x,
    stride_y,
    stride_x,
    padding_y,
    padding_x,
    dilation_y,
    dilation_x,
    FLIP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UPCAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """x: any strides, weight [C, taps] -> out and residual: dense, `pixels` of an image `out_p` apart.

    A plane is a block of channels of an image.
    """
    compute: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    if WIDE:
        program = tl.cast(program, tl.int64)
        x_c, x_y, x_x = tl.cast(x_c, tl.int64), tl.cast(x_y, tl.int64), tl.cast(x_x, tl.int64)
        out_p, out_c = tl.cast(out_p, tl.int64), tl.cast(out_c, tl.int64)
        dilation_y, dilation_x = tl.cast(dilation_y, tl.int64), tl.cast(dilation_x, tl.int64)
    tiles, blocks = tl.cdiv(pixels, BLOCK_P), tl.cdiv(channels, BLOCK_C)
    plane = tl.cast(first_plane, tl.int64) + program // tiles
    p = program % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    c = (plane % blocks).to(tl.int32) * BLOCK_C + tl.arange(0, BLOCK_C)
    image = plane // blocks
    p_inside, c_inside = p < pixels, c < channels
    first_y = p // out_width * stride_y - padding_y
    first_x = p % out_width * stride_x - padding_x
    source = x + image * x_n
    y = tl.zeros((BLOCK_P, BLOCK_C), compute)
    for tap in range(0, taps_y * taps_x):
        row = first_y + tap // taps_x * dilation_y
        column = first_x + tap % taps_x * dilation_x
        live = p_inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = (row * x_y + column * x_x)[:, None] + (c * x_c)[None, :]
        value = tl.load(source + at, live[:, None] & c_inside[None, :], other=0).to(compute)
        place = taps_y * taps_x - 1 - tap if FLIP else tap
        y += value * tl.load(weight + place * w_t + c * w_c, c_inside).to(compute)[None, :]
    inside = p_inside[:, None] & c_inside[None, :]
    start = image * channels * pixels
    at = p[:, None] * out_p + (c * out_c)[None, :]
    kept = residual if residual is None else residual + start
    y = _finished(y, bias, scale, shift, kept, c, c_inside, at, inside, ACTIVATION)
    _store(out + start, at, y, inside, UPCAST)


@triton.jit(
    do_not_specialize=[
        *("chunk", "images", "height", "width", "out_height", "out_width", "taps_y", "taps_x"),
        *("stride_y", "stride_x", "padding_y", "padding_x", "dilation_y", "dilation_x"),
    ]
)
def weight_gradient(
    grad,
    x,
    partial,
    g_n,
    g_c,
    g_y,
    g_x,
    x_n,
    x_c,
    x_y,
    x_x,
    channels,
    chunk,
    images,
    height,
    width,
    out_height,
    out_width,
    taps_y,
    taps_x,
    stride_y,
    stride_x,
    padding_y,
    padding_x,
    dilation_y,
    dilation_x,
    WIDE: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """grad, x: any strides -> partial [chunks, C, taps]."""
    compute: tl.constexpr = partial.dtype.element_ty
    program = tl.program_id(0)
    if WIDE:
        program = tl.cast(program, tl.int64)
        g_n, g_c = tl.cast(g_n, tl.int64), tl.cast(g_c, tl.int64)
        g_y, g_x = tl.cast(g_y, tl.int64), tl.cast(g_x, tl.int64)
        x_n, x_c = tl.cast(x_n, tl.int64), tl.cast(x_c, tl.int64)
        x_y, x_x = tl.cast(x_y, tl.int64), tl.cast(x_x, tl.int64)
        dilation_y, dilation_x = tl.cast(dilation_y, tl.int64), tl.cast(dilation_x, tl.int64)
        images, out_height = tl.cast(images, tl.int64), tl.cast(out_height, tl.int64)
    blocks = tl.cdiv(channels, BLOCK_C)
    part = program // blocks
    c = program % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    c_inside = c < channels
    pixels = out_height * out_width
    end = tl.minimum(images * pixels, (part + 1) * chunk)
    for tap in range(0, taps_y * taps_x):
        offset_y = tap // taps_x * dilation_y - padding_y
        offset_x = tap % taps_x * dilation_x - padding_x
        sums = tl.zeros((BLOCK_P, BLOCK_C), compute)
        for begin in range(part * chunk, end, BLOCK_P):
            p = begin + tl.arange(0, BLOCK_P)
            image, row, column = p // pixels, p % pixels // out_width, p % out_width
            y, z = row * stride_y + offset_y, column * stride_x + offset_x
            live = (p < end) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
            inside = live[:, None] & c_inside[None, :]
            of_grad = (image * g_n + row * g_y + column * g_x)[:, None] + (c * g_c)[None, :]
            of_x = (image * x_n + y * x_y + z * x_x)[:, None] + (c * x_c)[None, :]
            value = tl.load(grad + of_grad, inside, other=0).to(compute)
            sums += value * tl.load(x + of_x, inside, other=0).to(compute)
        at = (part * channels + c) * (taps_y * taps_x) + tap
        tl.store(partial + at, tl.sum(sums, 0), c_inside)


def steps_of(stride: Any, padding: Any, dilation: Any) -> dict[str, int]:
    """The steps of a convolution as arguments of a kernel."""
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    return {f"{name}_{axis}": int(n) for name, pair in pairs.items() for axis, n in zip("yx", pair, strict=True)}


def reversed_steps(steps: dict[str, int], taps: Any) -> dict[str, int]:
    """Those of the convolution that is the input's gradient at stride 1, with the taps in reverse."""
    spans = {axis: (k - 1) * steps[f"dilation_{axis}"] for axis, k in zip("yx", taps, strict=True)}
    return {**steps, **{f"padding_{axis}": span - steps[f"padding_{axis}"] for axis, span in spans.items()}}


def sizes_of(x: Tensor, out: Tensor, taps: Any) -> dict[str, int]:
    """Sizes of a convolution as arguments of a kernel."""
    sizes = {"height": x.shape[2], "width": x.shape[3], "out_width": out.shape[3]}
    return {**sizes, "taps_y": taps[0], "taps_x": taps[1]}


def farthest(x: Tensor, taps: Any, steps: dict[str, int]) -> int:
    """What the coordinates that a kernel forms stay below."""
    return max(
        n + 2 * abs(steps[f"padding_{axis}"]) + k * steps[f"dilation_{axis}"] + steps[f"stride_{axis}"]
        for axis, n, k in zip("yx", x.shape[2:], taps, strict=True)
    )


def reach(x: Tensor) -> int:
    """What offsets into a tensor stay below."""
    return 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))


def chunks_of(outputs: int, programs: int, values: int) -> tuple[int, int]:
    """How many chunks so many outputs are split into, where each takes so many programs and values; and their size."""
    most = max(1, min(-(-PROGRAMS // programs), outputs // LEAST, SCRATCH // values))
    chunk = -(-outputs // most)
    return -(-outputs // chunk), chunk


def strided(prefix: str, x: Tensor) -> dict[str, int]:
    """The strides of maps as arguments of a kernel."""
    return dict(zip((f"{prefix}_n", f"{prefix}_c", f"{prefix}_y", f"{prefix}_x"), x.stride(), strict=True))


def launches(
    x: Tensor, weight: Tensor, out: Tensor, steps: dict[str, int], after: dict[str, Any], flip: bool = False
) -> Iterator[Launch]:
    """The launches that fill `out`, which is as `empty_images` makes it, with x [N, C, H, W] * weight [C, 1, kh, kw];
    of what comes `after`, the residual is stored as `out`."""
    (n, c), pixels, taps = x.shape[:2], out.shape[2] * out.shape[3], weight.shape[2:]
    last = memory_format(out) is torch.channels_last
    filters = weight.reshape(c, -1)
    filters = filters.t().contiguous() if last else filters.contiguous()  # as wide loads want them
    block_p, block_c = TILES[last]
    arguments = {
        "x": x,
        "weight": filters,
        **after,
        "out": out,
        **strided("x", x),
        **dict(zip(("w_c", "w_t"), (1, c) if last else (taps.numel(), 1), strict=True)),
        **dict(zip(("out_p", "out_c"), (c, 1) if last else (1, pixels), strict=True)),
        "channels": c,
        "pixels": pixels,
        **sizes_of(x, out, taps),
        **steps,
        "FLIP": flip,
        "UPCAST": out.dtype == torch.bfloat16 and interpreted(depthwise),
        "WIDE": needs_int64(max(reach(x), c * pixels + block_p, farthest(x, taps, steps))),
        "BLOCK_P": block_p,
        "BLOCK_C": block_c,
    }
    for first, programs in grids(n * -(-c // block_c), -(-pixels // block_p)):
        yield Launch(depthwise, programs, {**arguments, "first_plane": first}, OPTIONS)


def gradient_launch(grad: Tensor, x: Tensor, taps: Any, steps: dict[str, int]) -> Launch:
    """The launch that fills its own argument `partial` [chunks, C, kh, kw] of the weight's gradient."""
    c, outputs = x.shape[1], grad[:, 0].numel()
    block_p, block_c = TILES[memory_format(x) is torch.channels_last]
    blocks = -(-c // block_c)
    chunks, chunk = chunks_of(outputs, blocks, c * taps[0] * taps[1])
    partial = x.new_empty((chunks, c, *taps), dtype=wide_dtype(x.dtype))
    arguments = {
        "grad": grad,
        "x": x,
        "partial": partial,
        **strided("g", grad),
        **strided("x", x),
        "channels": c,
        "chunk": chunk,
        "images": x.shape[0],
        **sizes_of(x, grad, taps),
        "out_height": grad.shape[2],
        **steps,
        "WIDE": needs_int64(
            max(reach(x), reach(grad), outputs + chunk + block_p, partial.numel(), farthest(x, taps, steps))
        ),
        "BLOCK_P": block_p,
        "BLOCK_C": block_c,
    }
    return Launch(weight_gradient, blocks * chunks, arguments, OPTIONS)


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched: each dtype in channels_last, of the gradient float32, in which the
    backward is; one dtype in NCHW, and one beyond int32."""
    steps = steps_of((1, 1), (6, 6), (6, 6))

    def maps(dtype: torch.dtype, last: bool, side: int = 64) -> Tensor:
        layout = torch.channels_last if last else torch.contiguous_format
        return torch.empty((2, 960, side, side), dtype=dtype, device="meta").contiguous(memory_format=layout)

    def launch(op: str, dtype: torch.dtype, last: bool = True, side: int = 64) -> Launch:
        x, grad = maps(dtype, last, side), maps(dtype, last, side)
        if op == "weight_gradient":
            return gradient_launch(grad, x, (3, 3), steps)
        weight, vector = (torch.empty(shape, dtype=dtype, device="meta") for shape in ((960, 1, 3, 3), (960,)))
        after = {"bias": None, "scale": vector, "shift": vector, "residual": None, "ACTIVATION": "relu"}
        return next(launches(x, weight, grad, steps, after))

    for op, dtypes in (("forward", FLOATS), ("weight_gradient", (torch.float32,))):
        narrow = dtypes[-1]
        found = {str(dtype).removeprefix("torch."): launch(op, dtype) for dtype in dtypes}
        found[f"{str(narrow).removeprefix('torch.')},nchw"] = launch(op, narrow, last=False)
        found[f"{str(narrow).removeprefix('torch.')},int64"] = launch(op, narrow, side=1600)
        for name, launched in found.items():
            yield f"{op}<{name}>", launched.program(), launched.options
