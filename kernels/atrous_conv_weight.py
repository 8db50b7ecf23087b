"""The gradient of an atrous convolution's weight in Triton, and what both dense kernels share.

Source: docs/ops/atrous_conv.md, "On the GPU".

    dw(k, c, t) = sum_o g(k, o) x(c, o stride - padding + t r)

is a GEMM over pixels for each tap. A program owns BLOCK_M outputs times BLOCK_N inputs of one tap over one chunk of its
pixels: of those outputs that read inside of the map with this tap, which are a rectangle of each image, so that no dead
tap is multiplied at all. The chunks are added in their order: no atomics, the same bits in each run.

FLOPs: 2 N H' W' C K for each live tap, 1 for all in the end. Bytes in device memory: g and x once where the programs of
all taps and tiles, which run together, find them in L2; the chunks, of 2^24 values at most, are written and read.

Why Triton: as for the convolution.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from ..ops.arguments import wide_dtype
from ._launch import Launch, interpreted, needs_int64
from .depthwise import LEAST, chunks_of, farthest, sizes_of, steps_of

LAST = torch.channels_last
FEW = 128  # programs of large tiles: fewer leave most multiprocessors of a large GPU idle


@triton.jit
def _reading(offset, stride, size, out):
    """The outputs o of an axis with 0 <= o * stride + offset < size: the first one and their number."""
    first = tl.cdiv(tl.maximum(-offset, 0), stride)
    behind = tl.minimum(tl.cdiv(tl.maximum(size - offset, 0), stride), out)
    return first, tl.maximum(behind - first, 0)


@triton.jit
def _product(a, b, sums, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision=PRECISION, out_dtype=sums.dtype)
    else:
        return tl.dot(a, b, sums, input_precision=PRECISION, out_dtype=sums.dtype)


@triton.jit(
    do_not_specialize=[
        *("groups", "chunk", "images", "height", "width", "out_height", "out_width", "taps_y", "taps_x"),
        *("stride_y", "stride_x", "padding_y", "padding_x", "dilation_y", "dilation_x"),
    ]
)
def weight_gradient(
    grad,
    x,
    partial,
    channels,
    outputs,
    groups,
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
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """grad [images, out_height, out_width, groups, outputs], x [images, height, width, groups, channels] -> partial
    [chunks, groups, outputs, taps, channels]."""
    program = tl.program_id(0)
    if WIDE:
        program, images = tl.cast(program, tl.int64), tl.cast(images, tl.int64)
        channels, outputs = tl.cast(channels, tl.int64), tl.cast(outputs, tl.int64)
        dilation_y, dilation_x = tl.cast(dilation_y, tl.int64), tl.cast(dilation_x, tl.int64)
    tiles_n, tiles_m, taps = tl.cdiv(channels, BLOCK_N), tl.cdiv(outputs, BLOCK_M), taps_y * taps_x
    n = program % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    m = program // tiles_n % tiles_m * BLOCK_M + tl.arange(0, BLOCK_M)
    tap = program // tiles_n // tiles_m % taps
    group = program // tiles_n // tiles_m // taps % groups
    part = program // tiles_n // tiles_m // taps // groups
    n_inside, m_inside = n < channels, m < outputs

    offset_y = tap // taps_x * dilation_y - padding_y
    offset_x = tap % taps_x * dilation_x - padding_x
    top, rows = _reading(offset_y, stride_y, height, out_height)
    left, columns = _reading(offset_x, stride_x, width, out_width)
    end = tl.minimum(images * rows * columns, (part + 1) * chunk)
    sums = tl.zeros((BLOCK_M, BLOCK_N), partial.dtype.element_ty)
    for begin in range(part * chunk, end, BLOCK_K):
        p = begin + tl.arange(0, BLOCK_K)
        inside = p < end
        image, y, z = p // columns // rows, top + p // columns % rows, left + p % columns
        at = (((image * out_height + y) * out_width + z) * groups + group) * outputs
        a = tl.load(grad + (m[:, None] + at[None, :]), m_inside[:, None] & inside[None, :], other=0)
        y, z = y * stride_y + offset_y, z * stride_x + offset_x
        at = (((image * height + y) * width + z) * groups + group) * channels
        b = tl.load(x + (at[:, None] + n[None, :]), inside[:, None] & n_inside[None, :], other=0)
        sums = _product(a, b, sums, PRECISION, UPCAST)
    at = ((((part * groups + group) * outputs + m) * taps + tap) * channels)[:, None] + n[None, :]
    tl.store(partial + at, sums, m_inside[:, None] & n_inside[None, :])


def precision(dtype: torch.dtype) -> str:
    """Of the products of float32: TF32 where torch lets its own convolutions have it."""
    cudnn: Any = torch.backends.cudnn
    return "tf32" if dtype == torch.float32 and cudnn.conv.fp32_precision == "tf32" else "ieee"


def tile(rows: int, columns: int, dtype: torch.dtype, exact: str) -> dict[str, int]:
    """The tile for a matrix of so many rows and columns: large where there are enough of them for a GPU."""
    if dtype == torch.float64 or (dtype == torch.float32 and exact == "ieee"):  # no tensor cores: registers bind
        return {"BLOCK_M": 256 // dtype.itemsize, "BLOCK_N": 32, "BLOCK_K": 16, "num_warps": 4}
    narrow = 128 if columns > 64 else 64 if columns > 32 else 32
    large = -(-rows // 128) * -(-columns // narrow) >= FEW
    m, n, warps = (128, narrow, 8 if narrow == 128 else 4) if large else (64, min(narrow, 64), 4)
    return {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": 128 // dtype.itemsize, "num_warps": warps}


def gradient_launch(grad: Tensor, x: Tensor, taps: Any, steps: dict[str, int], groups: int, exact: str) -> Launch:
    """The launch that fills its own argument `partial` [chunks, K, kh, kw, C / groups]. Maps as for `launch_of`."""
    channels, outputs, pixels = x.shape[1] // groups, grad.shape[1] // groups, grad[:, 0].numel()
    area = taps[0] * taps[1]
    blocks = tile(outputs * area * groups * max(pixels // LEAST, 1), channels, x.dtype, exact)
    warps = blocks.pop("num_warps")
    tiles = area * groups * -(-outputs // blocks["BLOCK_M"]) * -(-channels // blocks["BLOCK_N"])
    chunks, chunk = chunks_of(pixels, tiles, outputs * groups * area * channels)
    partial = x.new_empty((chunks, grad.shape[1], *taps, channels), dtype=wide_dtype(x.dtype))
    largest = max(x.numel(), grad.numel(), partial.numel(), pixels + chunk + blocks["BLOCK_K"])
    arguments = {
        "grad": grad,
        "x": x,
        "partial": partial,
        "channels": channels,
        "outputs": outputs,
        "groups": groups,
        "chunk": chunk,
        "images": x.shape[0],
        **sizes_of(x, grad, taps),
        "out_height": grad.shape[2],
        **steps,
        "PRECISION": exact,
        "UPCAST": x.dtype == torch.bfloat16 and interpreted(weight_gradient),
        "WIDE": needs_int64(max(largest, farthest(x, taps, steps))),
        **blocks,
    }
    options = {"num_warps": warps, "num_stages": 3, "enable_fp_fusion": True}
    return Launch(weight_gradient, chunks * tiles, arguments, options)


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched: in float32, in which the backward is, and in float64."""
    for name, dtype, exact in (("float32,tf32", torch.float32, "tf32"), ("float64", torch.float64, "ieee")):
        x, grad = (torch.empty((8, c, 64, 64), dtype=dtype, device="meta", memory_format=LAST) for c in (512, 256))
        launch = gradient_launch(grad, x, (3, 3), steps_of((1, 1), (6, 6), (6, 6)), 1, exact)
        yield f"gradient<{name}>", launch.program(), launch.options
