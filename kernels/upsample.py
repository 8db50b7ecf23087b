"""Bilinear upsampling of [N, C, h, w] maps, whole or thresholded, in Triton.

Source: docs/ops/upsample.md, "Interpolation"; the value of an output pixel between the source rows i and j and the
columns k and l is

    z = (1-b) t + b u,     t = (1-a) x(i, k) + a x(i, l),     u = (1-a) x(j, k) + a x(j, l).

A program owns the output rows between two neighbouring source rows (a cell row) in one tile of columns. It gathers t
and u once, holds them in registers and walks down the s = H / h rows. Per output value: 3 FLOPs, and 6 / s for t and u;
4 / s gathers, all but the first of a source row from a cache; one store. Bytes in device memory are the floor, each
input once and each output once: 4 h w + 4 H W per plane in float32, half of that in half precision, and H W instead of
4 H W thresholded.

Why Triton: the op is pointwise and bound by memory, and the counted bytes equal the floor. CUDA C++ would issue the
same stores, and needs nvcc on the user's machine or a binary for its GPU; Triton asks for a C compiler only.

Stores are 16 bytes wide (8 for bools) where the length of an output row is divisible by 16. Other rows start at any
alignment, so there the threads of a warp store neighbouring scalars, which the memory system joins to whole sectors.

Coordinates are exact integers: the numerator of a pixel's source coordinate over a common denominator. A weight is the
remainder over the denominator, rounded once.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from .._registry import FLOATS
from ..ops.arguments import checked_maps, empty_images
from ..reference.upsample import memory_format
from ._launch import Launch, grids, interpreted, needs_int64


@triton.jit
def _numerator(p, source, out, ALIGN_CORNERS: tl.constexpr):
    if ALIGN_CORNERS:
        return p * (source - 1)
    else:
        return tl.maximum((2 * p + 1) * source - out, 0)


@triton.jit
def _denominator(out, ALIGN_CORNERS: tl.constexpr):
    if ALIGN_CORNERS:
        return tl.maximum(out - 1, 1)
    else:
        return 2 * out


@triton.jit
def _first(i, source, out, ALIGN_CORNERS: tl.constexpr):
    """First output pixel whose lower neighbour is source pixel i > 0 or one behind it."""
    if ALIGN_CORNERS:
        return tl.cdiv(i * _denominator(out, ALIGN_CORNERS), tl.maximum(source - 1, 1))
    else:
        return tl.cdiv((2 * i + 1) * out - source, 2 * source)


@triton.jit
def _weight(remainder, denominator, compute: tl.constexpr):
    if compute == tl.float64:
        return remainder.to(compute) / denominator.to(compute)
    else:
        return tl.div_rn(remainder.to(compute), denominator.to(compute))


@triton.jit
def _rounded_to_bfloat16(z):
    """To nearest, ties to even, by integers: Triton's interpreter cuts the lower bits off."""
    bits = z.to(tl.uint32, bitcast=True)
    bits += 0x7FFF + ((bits >> 16) & 1)
    nearest = (bits & 0xFFFF0000).to(tl.float32, bitcast=True)
    return tl.where(z == z, nearest, z)


@triton.jit(
    do_not_specialize=[
        *("stride_n", "stride_c", "stride_y", "stride_x", "channels", "first_plane"),
        *("source_height", "source_width", "height", "width"),
    ]
)
def upsample(
    source,
    out,
    threshold: tl.float64,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    channels,
    inner,
    row,
    first_plane,
    source_height,
    source_width,
    height,
    width,
    ALIGN_CORNERS: tl.constexpr,
    THRESHOLD: tl.constexpr,
    UPCAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """source: any strides -> out: dense [planes, height, row], row = width * inner.

    A plane is one channel (`channels` of them in an image, inner = 1) or, in channels_last, an image (channels = 1,
    `inner` channels within a pixel).
    """
    compute: tl.constexpr = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    if WIDE:  # an argument that fits into int32 is one, whatever is made of it
        row = tl.cast(row, tl.int64)
        source_height = tl.cast(source_height, tl.int64)
        source_width = tl.cast(source_width, tl.int64)
        height = tl.cast(height, tl.int64)
        width = tl.cast(width, tl.int64)
    tiles = tl.cdiv(row, BLOCK)
    program = tl.program_id(0)
    tile = program % tiles
    cell = program // tiles % source_height
    plane = tl.cast(first_plane, tl.int64) + program // tiles // source_height

    last = source_height - 1
    begin = tl.where(cell == 0, 0, _first(cell, source_height, height, ALIGN_CORNERS))
    end = tl.where(cell == last, height, _first(cell + 1, source_height, height, ALIGN_CORNERS))
    # An axis that keeps its size has no second neighbour: an infinity there would make 0 * inf = NaN here.
    below = tl.where(height == source_height, cell, tl.minimum(cell + 1, last))

    at = tile * BLOCK + tl.arange(0, BLOCK)
    inside = at < row
    x = at // inner
    numerator = _numerator(x, source_width, width, ALIGN_CORNERS)
    denominator = _denominator(width, ALIGN_CORNERS)
    left = numerator // denominator
    right = tl.where(width == source_width, left, tl.minimum(left + 1, source_width - 1))
    to_right = _weight(numerator - left * denominator, denominator, compute)
    to_left = 1 - to_right

    start = source + plane // channels * stride_n + plane % channels * stride_c
    channel = (at - x * inner) * stride_c
    left = channel + left * stride_x
    right = channel + right * stride_x
    upper = start + cell * stride_y
    t = tl.load(upper + left, inside).to(compute) * to_left + tl.load(upper + right, inside).to(compute) * to_right
    lower = start + below * stride_y
    u = tl.load(lower + left, inside).to(compute) * to_left + tl.load(lower + right, inside).to(compute) * to_right

    whole = _denominator(height, ALIGN_CORNERS)
    for y in range(begin, end):
        line = out + (plane * height + y) * row
        b = _weight(_numerator(y, source_height, height, ALIGN_CORNERS) - cell * whole, whole, compute)
        z = t * (1 - b) + u * b
        if THRESHOLD:
            tl.store(line + at, (z > tl.full((), threshold, compute)).to(tl.uint8), inside)
        elif UPCAST:
            tl.store(line + at, _rounded_to_bfloat16(z).to(tl.bfloat16), inside)
        else:
            tl.store(line + at, z.to(out.dtype.element_ty), inside)


def largest_index(x: Tensor, out: Tensor, row: int, block: int) -> int:
    """The largest number that a program forms within a plane: a numerator, or an offset into source or result.

    A tile is `block` positions long and may end behind its row.
    """
    (h, w), (height, width) = x.shape[2:], out.shape[2:]
    numerator = max(2 * h * height + h + height, 2 * w * width + w + width)
    reach = sum((n - 1) * stride for n, stride in zip(x.shape[1:], x.stride()[1:], strict=True))
    return max(numerator, height * row + block, reach)


def tile(row: int, itemsize: int) -> tuple[int, int]:
    """Positions of a tile and warps: 16 bytes of the result for each thread, at most 8 positions (more cost registers),
    and those of 4 or 2 warps that leave fewer threads idle at the end of a row."""
    tiles = ((32 * warps * min(16 // itemsize, 8), warps) for warps in (4, 2))
    return min(tiles, key=lambda tile: -(-row // tile[0]) * tile[0])


def launches(x: Tensor, out: Tensor, align_corners: bool, threshold: float | None = None) -> Iterator[Launch]:
    """The launches that fill `out`, which is as `empty_images` makes it: one, but for more planes than a grid holds."""
    (n, c, h, w), (height, width) = x.shape, out.shape[2:]
    inner, channels = (c, 1) if memory_format(x) is torch.channels_last else (1, c)
    row = width * inner
    block, warps = tile(row, out.element_size())
    arguments = {
        "source": x,
        "out": out.view(torch.uint8) if out.dtype == torch.bool else out,
        "threshold": 0.0 if threshold is None else threshold,
        **dict(zip(("stride_n", "stride_c", "stride_y", "stride_x"), x.stride(), strict=True)),
        "channels": channels,
        "inner": inner,
        "row": row,
        "source_height": h,
        "source_width": w,
        "height": height,
        "width": width,
        "ALIGN_CORNERS": align_corners,
        "THRESHOLD": threshold is not None,
        "UPCAST": x.dtype == torch.bfloat16 and interpreted(upsample),
        "WIDE": needs_int64(largest_index(x, out, row, block)),
        "BLOCK": block,
    }
    options = {"num_warps": warps, "enable_fp_fusion": True}
    for first, programs in grids(n * channels, h * -(-row // block)):
        yield Launch(upsample, programs, {**arguments, "first_plane": first}, options)


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched: each op and dtype, for rows divisible by 16 and odd ones; in
    channels_last, and beyond int32, for one dtype."""

    def launch(dtype: torch.dtype, size: tuple[int, int], width: int, last: bool, level: float | None) -> Launch:
        x = torch.empty((1, 19, *size), dtype=dtype, device="meta")
        x = x.to(memory_format=torch.channels_last) if last else x
        out = empty_images(x, (1, 19, 1024, width), dtype if level is None else torch.bool)
        return next(launches(x, out, False, level))

    for name, level in (("bilinear", None), ("threshold", 0.0)):
        of = partial(launch, level=level)
        variants = {
            f"{str(dtype).removeprefix('torch.')},{kind}": of(dtype, (128, 256), width, last=False)
            for dtype in FLOATS
            for kind, width in (("divisible", 2048), ("odd", 2049))
        }
        variants["float32,divisible,channels_last"] = of(torch.float32, (128, 256), 2048, last=True)
        variants["float32,odd,channels_last"] = of(torch.float32, (128, 256), 2049, last=True)
        variants["float32,divisible,int64"] = of(torch.float32, (128, 2**20), 2**22, last=False)
        for variant, launched in variants.items():
            yield f"{name}<{variant}>", launched.program(), launched.options


def _run(x: Tensor, out: Tensor, *options: Any) -> Tensor:
    if out.numel():
        with torch.cuda.device_of(x):
            for launch in launches(x, out, *options):
                launch.run()
    return out


def launch_upsample_bilinear(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """x [N, C, h, w] -> [N, C, H, W] in its dtype and memory format."""
    checked_maps("upsample_bilinear", "x", x, (height, width))
    return _run(x, empty_images(x, (*x.shape[:2], height, width), x.dtype), align_corners)


def launch_upsample_threshold(
    mask_logits: Tensor, height: int, width: int, threshold: float, align_corners: bool
) -> Tensor:
    """mask_logits [N, C, h, w] -> bool [N, C, H, W] in its memory format."""
    checked_maps("upsample_threshold", "mask_logits", mask_logits, (height, width))
    out = empty_images(mask_logits, (*mask_logits.shape[:2], height, width), torch.bool)
    return _run(mask_logits, out, align_corners, threshold)
