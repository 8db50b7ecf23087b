"""What follows kept responses of kernel-sharing convolution: a(s_r T_r + t_r), the sum over rates, and its gradients.

Source: docs/ops/ksac.md. One pass each over the terms T_r: per term a multiply-add, the activation and an addition, and
twice that backwards. Bytes through device memory in float32, for R terms: 4 R and 4 forward, 8 R and 4 backward, each
value once. The gradients of scale and shift are sums over the pixels of a tile, which are added up in double, in order.

Why Triton: pointwise work that memory binds.
"""

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from ..ops.arguments import empty_images
from ..reference.upsample import memory_format
from ._launch import Launch
from .ksac import activated, affine, dense, launch_of, tile_of, vectors


@triton.jit(do_not_specialize=["count"])
def fuse(
    terms,
    out,
    scale,
    shift,
    image_step,
    result_step,
    channel_step,
    pixel_step,
    result_pixel,
    area,
    channels,
    count,
    COUNT: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    SUM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """terms [N, COUNT, channels, area] -> out [N, channels, area], or as terms."""
    p, real, c, real_c, _ = tile_of(count, channels, WIDE, PIXELS, CHANNELS)
    inside = real[:, None] & real_c[None, :]
    image = p // area
    column = (c * channel_step)[None, :]
    at = (image * image_step + p % area * pixel_step)[:, None] + column
    result = out + (image * result_step + p % area * result_pixel)[:, None] + column
    rate = channels * (tl.cast(channel_step, tl.int64) if WIDE else channel_step)
    total = tl.zeros((PIXELS, CHANNELS), out.dtype.element_ty)
    for k in range(0, COUNT):
        z = tl.load(terms + at + k * rate, inside)
        z = activated(affine(z, scale, shift, k * channels + c, real_c, SCALED, SHIFTED), ACTIVATION)
        if SUM:
            total += z
        else:
            tl.store(result + k * rate, z, inside)
    if SUM:
        tl.store(result, total, inside)


@triton.jit(do_not_specialize=["count"])
def unfuse(
    grad,
    terms,
    scale,
    shift,
    of_terms,
    sums,
    image_step,
    result_step,
    channel_step,
    pixel_step,
    result_pixel,
    area,
    channels,
    count,
    COUNT: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    SUM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """grad as the result of `fuse`, terms -> of_terms, and of each tile's pixels sums [tiles, 2, COUNT, channels] for
    scale and shift."""
    p, real, c, real_c, _ = tile_of(count, channels, WIDE, PIXELS, CHANNELS)
    inside = real[:, None] & real_c[None, :]
    image = p // area
    column = (c * channel_step)[None, :]
    at = (image * image_step + p % area * pixel_step)[:, None] + column
    upstream = grad + (image * result_step + p % area * result_pixel)[:, None] + column
    rate = channels * (tl.cast(channel_step, tl.int64) if WIDE else channel_step)
    tile = tl.program_id(0) // tl.cdiv(channels, CHANNELS)
    of = sums + tile * (2 * COUNT * channels) + c
    if SUM:
        g = tl.load(upstream, inside, other=0.0)
    for k in range(0, COUNT):
        if not SUM:
            g = tl.load(upstream + k * rate, inside, other=0.0)
        term = tl.load(terms + at + k * rate, inside, other=0.0)
        z = affine(term, scale, shift, k * channels + c, real_c, SCALED, SHIFTED)
        inner = _derived(g, z, ACTIVATION)
        tl.store(of + k * channels, tl.sum(inner * term, 0), real_c)
        tl.store(of + (COUNT + k) * channels, tl.sum(inner, 0), real_c)
        if SCALED:
            inner *= tl.load(scale + k * channels + c, real_c).to(inner.dtype)[None, :]
        tl.store(of_terms + at + k * rate, inner, inside)


@triton.jit
def _derived(g, z, ACTIVATION: tl.constexpr):
    """The derivative of an activation at z times g; NaN at z passes g on, as in PyTorch."""
    if ACTIVATION == "relu":
        return tl.where(z <= 0, 0.0, g)
    elif ACTIVATION == "relu6":
        return tl.where((z <= 0) | (z >= 6), 0.0, g)
    elif ACTIVATION == "silu":
        s = 1 / (1 + tl.exp(-z))
        return g * s * (1 + z * (1 - s))
    else:
        return g


def fused(
    kernel: Any,
    tensors: dict[str, Tensor],
    scale: Tensor | None,
    shift: Tensor | None,
    count: int,
    concat: bool,
    activation: str,
) -> Launch:
    """`tensors` of `fuse` or `unfuse`: dense maps, but for the sums, in the format of the terms [N, R * C, H, W]."""
    terms = tensors["terms"]
    n, channels, height, width = terms.shape
    of_channels, area = channels // count, height * width
    last = memory_format(terms) is torch.channels_last
    results = channels if concat else of_channels
    arguments = {
        **tensors,
        **vectors(scale, shift, terms),
        "image_step": channels * area,
        "result_step": results * area,
        "channel_step": 1 if last else area,
        "pixel_step": channels if last else 1,
        "result_pixel": results if last else 1,
        "area": area,
        "COUNT": count,
        "SUM": not concat,
        "ACTIVATION": activation,
    }
    return launch_of(kernel, n * area, of_channels, 1, last, terms.itemsize, terms.numel(), arguments)


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched for four rates and 256 channels, in both memory formats."""
    vector = torch.empty((4, 256), device="meta")
    for dtype, activation in ((torch.float32, "relu"), (torch.float64, "silu")):
        for format, name in ((torch.channels_last, "channels_last"), (torch.contiguous_format, "nchw")):
            empty = torch.empty((1, 4 * 256, 33, 33), dtype=dtype, device="meta").to(memory_format=format)
            result = empty_images(empty, (1, 256, 33, 33), dtype)
            variant = f"{str(dtype).removeprefix('torch.')},{name}"
            for kernel, tensors in (
                (fuse, {"terms": empty, "out": result}),
                (unfuse, {"grad": result, "terms": empty, "of_terms": empty, "sums": empty}),
            ):
                launch = fused(kernel, tensors, vector, vector, 4, False, activation)
                yield f"{kernel.__name__}<{variant}>", launch.program(), launch.options


def _check_fuse(op: str, terms: Tensor, count: int, *vectors: Tensor | None) -> None:
    if terms.dim() != 4 or count < 1 or terms.shape[1] % count:
        raise ValueError(f"fastseg::{op}: terms must be [N, {count} * Cout, H, W], got {list(terms.shape)}")
    shape = (count, terms.shape[1] // count)
    for v in vectors:
        if v is not None and v.shape != shape:
            raise ValueError(f"fastseg::{op}: scale and shift must be {list(shape)}, got {list(v.shape)}")


def launch_ksac_fuse(
    terms: Tensor, scale: Tensor | None, shift: Tensor | None, count: int, concat: bool, activation: str
) -> Tensor:
    """terms [N, R * Cout, H, W] -> activation(scale * T_r + shift), their sum unless `concat`."""
    _check_fuse("ksac_fuse", terms, count, scale, shift)
    n, channels, height, width = terms.shape
    out = empty_images(terms, (n, channels // (1 if concat else count), height, width), terms.dtype)
    if out.numel():
        with torch.cuda.device_of(terms):
            tensors = {"terms": dense(terms, terms), "out": out}
            fused(fuse, tensors, scale, shift, count, concat, activation).run()
    return out


def launch_ksac_fuse_backward(
    grad: Tensor,
    terms: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    count: int,
    concat: bool,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the terms, and of scale and shift [R, Cout]: sums of a tile's pixels, and of tiles in double."""
    _check_fuse("ksac_fuse_backward", terms, count, scale, shift)
    if grad.shape != (terms.shape[0], terms.shape[1] // (1 if concat else count), *terms.shape[2:]):
        raise ValueError(f"fastseg::ksac_fuse_backward: grad must be a result, got {list(grad.shape)}")
    of_terms, channels = empty_images(terms, tuple(terms.shape), terms.dtype), terms.shape[1] // count
    tensors = {"grad": dense(grad, terms), "terms": dense(terms, terms), "of_terms": of_terms, "sums": terms}
    if not terms.numel():
        return of_terms, *terms.new_zeros((2, count, channels))
    launch = fused(unfuse, tensors, scale, shift, count, concat, activation)
    tiles = -(-launch.arguments["count"] // launch.arguments["PIXELS"])
    launch.arguments["sums"] = sums = terms.new_empty((tiles, 2, count, channels))
    with torch.cuda.device_of(terms):
        launch.run()
    of_scale, of_shift = sums.sum(0, dtype=torch.float64).to(terms.dtype)
    return of_terms, of_scale, of_shift
