"""Atrous convolution of [N, C, H, W] maps and the gradient of its input, as implicit GEMMs in Triton.

Source: Chen et al. 2018, "DeepLab" (arXiv 1606.00915), equation 1; docs/ops/atrous_conv.md, "On the GPU".

    y(k, o) = activation(s_k (sum_{c, t} w(k, c, t) x(c, o stride - padding + t r) + b_k) + t_k + z(k, o))

A program owns BLOCK_M output pixels of BLOCK_N channels and sums in float32, over taps and blocks of input channels in
one loop that the compiler pipelines. The column matrix that im2col would write exists as tiles in shared memory only.

Dead taps. At a large rate most reads are padding. The live taps of a tile are a rectangle: those rows and columns of
taps that meet the map for any of its pixels. The loop runs over that rectangle, where cuDNN multiplies the zeros. So
that it is small along x too, the map is cut into strips of columns where that saves more taps than it wastes tiles.

The gradient of the input at stride 1 is the same kernel with the taps in reverse. At other strides most taps of a pixel
meet no output, and ATen takes it.

FLOPs per output: 2 C kh kw, without the taps that are dead for a tile. Bytes in device memory: x, weight and result
once; programs that run together share blocks of x and of the weight, which the others find in L2. Activations are read
in channels_last: NCHW maps are copied there and back, as cuDNN does, two more readings and writings of each.

Why Triton: it makes wgmma and tcgen05 code of one `dot`, with asynchronous copies into swizzled shared memory.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import ASTSource

from ..ops import arguments as check
from ..ops.atrous_conv import check_residual, sizes_after
from ..reference import atrous_conv as reference
from ..reference.conv import ACTIVATIONS
from ..reference.upsample import memory_format
from ._launch import Launch, interpreted, needs_int64
from .atrous_conv_weight import LAST, _product, precision, tile
from .atrous_conv_weight import gradient_launch as dense_gradient
from .depthwise import _finished, _store, farthest, reversed_steps, sizes_of, steps_of
from .depthwise import gradient_launch as depthwise_gradient
from .depthwise import launches as depthwise_launches

STRIPS = 4  # at most


@triton.jit
def _live(low, high, size, dilation, taps):
    """The taps t with low + t * dilation < size and high + t * dilation >= 0: the first one and their number."""
    first = tl.cdiv(tl.maximum(-high, 0), dilation)
    behind = tl.minimum(tl.cdiv(tl.maximum(size - low, 0), dilation), taps)
    return first, tl.maximum(behind - first, 0)


@triton.jit(
    do_not_specialize=[
        *("groups", "rows", "strip", "height", "width", "out_height", "out_width", "taps_y", "taps_x"),
        *("stride_y", "stride_x", "padding_y", "padding_x", "dilation_y", "dilation_x"),
    ]
)
def convolution(
    x,
    weight,
    bias,
    scale,
    shift,
    residual,
    out,
    channels,
    outputs,
    groups,
    w_group,
    w_c,
    w_k,
    w_t,
    rows,
    strip,
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
    FLIP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """x [images, height, width, groups, channels], weight: any strides -> out, residual [rows, out_width, groups,
    outputs], where `rows` are those of all images."""
    compute: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0)
    if WIDE:
        program, rows = tl.cast(program, tl.int64), tl.cast(rows, tl.int64)
        channels, outputs = tl.cast(channels, tl.int64), tl.cast(outputs, tl.int64)
        w_c, w_k, w_t = tl.cast(w_c, tl.int64), tl.cast(w_k, tl.int64), tl.cast(w_t, tl.int64)
        dilation_y, dilation_x = tl.cast(dilation_y, tl.int64), tl.cast(dilation_x, tl.int64)
    # Neighbours share pixels, which are then in L2.
    tiles_n, tiles_m = tl.cdiv(outputs, BLOCK_N), tl.cdiv(rows * strip, BLOCK_M)
    n = program % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    tile = program // tiles_n % tiles_m
    left = program // tiles_n // tiles_m % tl.cdiv(out_width, strip) * strip
    group = program // tiles_n // tiles_m // tl.cdiv(out_width, strip)

    p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    row, column = p // strip, left + p % strip
    inside, n_inside = (row < rows) & (column < out_width), n < outputs
    first_y, first_x = row % out_height * stride_y - padding_y, column * stride_x - padding_x
    image = row // out_height * height

    # A tile that spans images may have any of their rows.
    top, bottom = tile * BLOCK_M // strip, tl.minimum((tile * BLOCK_M + BLOCK_M - 1) // strip, rows - 1)
    whole = top // out_height != bottom // out_height
    low = tl.where(whole, 0, top % out_height) * stride_y - padding_y
    high = tl.where(whole, out_height - 1, bottom % out_height) * stride_y - padding_y
    tap_y, live_y = _live(low, high, height, dilation_y, taps_y)
    low = left * stride_x - padding_x
    high = (tl.minimum(left + strip, out_width) - 1) * stride_x - padding_x
    tap_x, live_x = _live(low, high, width, dilation_x, taps_x)

    sums = tl.zeros((BLOCK_M, BLOCK_N), compute)
    filters = weight + group * w_group
    blocks = tl.cdiv(channels, BLOCK_K)
    for i in range(0, live_y * live_x * blocks):
        tap = i // blocks
        c = i % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
        c_inside = c < channels
        of_y, of_x = tap_y + tap // live_x, tap_x + tap % live_x
        y, z = first_y + of_y * dilation_y, first_x + of_x * dilation_x
        live = inside & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        at = ((image + y) * width + z) * (groups * channels) + group * channels
        a = tl.load(x + (at[:, None] + c[None, :]), live[:, None] & c_inside[None, :], other=0)
        place = of_y * taps_x + of_x
        place = taps_y * taps_x - 1 - place if FLIP else place
        at = place * w_t + (c * w_c)[:, None] + (n * w_k)[None, :]
        b = tl.load(filters + at, c_inside[:, None] & n_inside[None, :], other=0)
        sums = _product(a, b, sums, PRECISION, UPCAST)

    k = group * outputs + n
    at = ((row * out_width + column) * (groups * outputs))[:, None] + k[None, :]
    inside = inside[:, None] & n_inside[None, :]
    sums = _finished(sums, bias, scale, shift, residual, k, n_inside, at, inside, ACTIVATION)
    _store(out, at, sums, inside, UPCAST)


@cache
def strip_of(rows: int, out: int, size: int, taps: int, stride: int, padding: int, dilation: int, block: int) -> int:
    """Columns of the strips that take the fewest products: tiles of each times the columns of taps that are live."""

    def products(strips: int) -> int:
        strip = -(-out // strips)
        tiles, total = -(-rows * strip // block), 0
        for left in range(0, out, strip):
            low, high = left * stride - padding, (min(left + strip, out) - 1) * stride - padding
            total += sum(low + t * dilation < size and high + t * dilation >= 0 for t in range(taps))
        return tiles * total

    return -(-out // min(range(1, min(STRIPS, out) + 1), key=products))


def launch_of(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    steps: dict[str, int],
    groups: int,
    after: dict[str, Any],
    exact: str,
    flip: bool = False,
) -> Launch:
    """The launch that fills `out`. All maps are dense in channels_last, and so is the weight; with `flip` the weight
    [K, C / groups, kh, kw] leads from K channels to C."""
    taps, area, per_group = weight.shape[2:], weight.shape[2:].numel(), weight.shape[1]
    channels, outputs = x.shape[1] // groups, out.shape[1] // groups
    rows, (out_height, out_width) = out.shape[0] * out.shape[2], out.shape[2:]
    blocks = tile(rows * out_width, outputs, x.dtype, exact)
    warps = blocks.pop("num_warps")
    block = blocks["BLOCK_M"]
    along = (f"{name}_x" for name in ("stride", "padding", "dilation"))
    strip = strip_of(rows, out_width, x.shape[3], taps[1], *(steps[name] for name in along), block)
    strides = {"w_c": area * per_group, "w_k": 1} if flip else {"w_c": 1, "w_k": area * per_group}
    strips, tiles = -(-out_width // strip), -(-rows * strip // block) * -(-outputs // blocks["BLOCK_N"])
    largest = max(x.numel(), weight.numel(), out.numel()) + block
    arguments = {
        "x": x,
        "weight": weight,
        **after,
        "out": out,
        "channels": channels,
        "outputs": outputs,
        "groups": groups,
        "w_group": weight.numel() // groups,
        **strides,
        "w_t": per_group,
        "rows": rows,
        "strip": strip,
        **sizes_of(x, out, taps),
        "out_height": out_height,
        **steps,
        "FLIP": flip,
        "PRECISION": exact,
        "UPCAST": torch.bfloat16 in (x.dtype, out.dtype) and interpreted(convolution),
        "WIDE": needs_int64(max(largest, farthest(x, taps, steps))),
        **blocks,
    }
    options = {"num_warps": warps, "num_stages": 3, "enable_fp_fusion": True}
    return Launch(convolution, groups * strips * tiles, arguments, options)


def compilations() -> Iterator[tuple[str, ASTSource, dict[str, Any]]]:
    """Name, program and options of what is launched: large tiles in each dtype and precision; in one, small tiles, few
    outputs, and beyond int32; the gradient, which is in float32 for half precision too."""
    steps, half = steps_of((1, 1), (6, 6), (6, 6)), torch.float16

    def launch(
        dtype: torch.dtype, exact: str = "ieee", outputs: int = 256, side: int = 64, images: int = 8, flip: bool = False
    ) -> Launch:
        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta", memory_format=LAST)

        x, out = empty(images, 512, side, side), empty(images, outputs, side, side)
        weight, vector = empty(outputs, 512, 3, 3), torch.empty(outputs, device="meta")
        after = {"bias": None, "scale": vector, "shift": vector, "residual": None, "ACTIVATION": "relu"}
        if flip:
            after = {**dict.fromkeys(after), "ACTIVATION": "none"}
        return launch_of(out if flip else x, weight, x if flip else out, steps, 1, after, exact, flip)

    found = {
        "forward<float16>": launch(half),
        "forward<bfloat16>": launch(torch.bfloat16),
        "forward<float32,tf32>": launch(torch.float32, "tf32"),
        "forward<float32,ieee>": launch(torch.float32),
        "forward<float64>": launch(torch.float64),
        "forward<float16,small>": launch(half, side=33, images=1),
        "forward<float16,odd>": launch(half, outputs=21),
        "forward<float16,int64>": launch(half, side=1024),
        "input_gradient<float32,tf32>": launch(torch.float32, "tf32", flip=True),
    }
    for name, launched in found.items():
        yield name, launched.program(), launched.options


def _checked(op: str, x: Tensor, weight: Tensor, steps: Any, groups: int) -> tuple[int, int]:
    """Check what a convolution is of; return the size of its result."""
    check.check_map(op, "x", x)
    if groups < 1 or x.shape[1] % groups or weight.shape[0] % groups:
        raise ValueError(f"fastseg::{op}: groups must divide the channels of x and weight, got {groups}")
    check.check_weight(op, "weight", weight, x, (None, x.shape[1] // groups, None, None))
    for name, pair, least in zip(("stride", "padding", "dilation"), steps, (1, 0, 1), strict=True):
        check.checked_pair(op, name, tuple(pair), least)
    return sizes_after(op, x.shape, weight.shape, *steps)


def _check_grad(op: str, grad: Tensor, x: Tensor, weight: Tensor, steps: Any, groups: int) -> None:
    """x and weight may be on the meta device: only their shapes count."""
    shape = (x.shape[0], weight.shape[0], *_checked(op, x, weight, steps, groups))
    if grad.dtype != x.dtype or grad.shape != shape:
        raise ValueError(f"fastseg::{op}: grad must be {x.dtype} of {list(shape)}, got {check.brief(grad)}")


def _left_to_aten(x: Tensor, weight: Any, groups: int) -> bool:
    """Whether a dense convolution is for cuDNN: Triton makes no tensor-core code for Turing."""
    return x.is_cuda and tuple(weight[:2]) != (groups, 1) and torch.cuda.get_device_capability(x.device) < (8, 0)


def _convolved(
    like: Tensor,
    dtype: torch.dtype,
    x: Tensor,
    weight: Tensor,
    size: Any,
    steps: dict[str, int],
    groups: int = 1,
    activation: str = "none",
    flip: bool = False,
    **after: Tensor | None,
) -> Tensor:
    """The convolution of x, or with `flip` of a gradient, in the memory format of `like`."""
    result = check.empty_images(like, (x.shape[0], weight.shape[1] * groups if flip else weight.shape[0], *size), dtype)
    if not result.numel():
        return result
    depthwise = weight.shape[:2] == (groups, 1)
    layout = memory_format(result) if depthwise else LAST
    fits = result.is_contiguous(memory_format=layout)
    out = result if fits else torch.empty_like(result, memory_format=layout)
    ends: dict[str, Any] = {name: None for name in ("bias", "scale", "shift", "residual")}
    ends |= {name: t.contiguous(memory_format=layout if t.dim() == 4 else torch.contiguous_format)
             for name, t in after.items() if t is not None}  # fmt: skip
    ends["ACTIVATION"] = activation
    with torch.cuda.device_of(x):
        if depthwise:
            for launch in depthwise_launches(x, weight, out, steps, ends, flip):
                launch.run()
        else:
            x, weight = x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
            launch_of(x, weight, out, steps, groups, ends, precision(x.dtype), flip).run()
    return result if fits else result.copy_(out)


def launch_atrous_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    packed: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    activation: str,
    algorithm: str,
) -> Tensor:
    """x [N, C, H, W] -> [N, K, H', W'] in its dtype and memory format; `packed` serves the CPU's algorithms only."""
    op, steps = "atrous_conv2d", (stride, padding, dilation)
    size = _checked(op, x, weight, steps, groups)
    check.check_vectors(op, weight.shape[0], bias=bias, scale=scale, shift=shift)
    check_residual(op, residual, (x.shape[0], weight.shape[0], *size))
    check.checked_choice(op, "activation", activation, ACTIVATIONS)
    if algorithm not in ("auto", "direct"):
        raise ValueError(f"fastseg::{op}: algorithm must be auto or direct where Triton's kernels run, which transform "
                         f"no tiles: that is for the CPU, got {algorithm!r}")  # fmt: skip
    if _left_to_aten(x, weight.shape, groups):
        vectors = (bias, scale, shift, residual, packed)
        return reference.atrous_conv2d(x, weight, *vectors, stride, padding, dilation, groups, activation, algorithm)
    after: dict[str, Any] = {"bias": bias, "scale": scale, "shift": shift, "residual": residual}
    return _convolved(x, x.dtype, x, weight, size, steps_of(*steps), groups, activation, **after)


def launch_atrous_conv2d_grad_input(
    grad: Tensor, weight: Tensor, height: int, width: int, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """grad [N, K, H', W'] -> the gradient of x [N, C, height, width]; at a stride beyond 1 by ATen."""
    x = grad.new_empty((grad.shape[0], weight.shape[1] * groups, height, width), device="meta")
    _check_grad("atrous_conv2d_grad_input", grad, x, weight, (stride, padding, dilation), groups)
    if tuple(stride) != (1, 1) or not grad.numel() or _left_to_aten(grad, weight.shape, groups):
        return reference.atrous_conv2d_grad_input(grad, weight, height, width, stride, padding, dilation, groups)
    steps = reversed_steps(steps_of(stride, padding, dilation), weight.shape[2:])
    return _convolved(grad, grad.dtype, grad, weight, (height, width), steps, groups, flip=True)


def launch_atrous_conv2d_grad_weight(
    grad: Tensor,
    x: Tensor,
    kernel_height: int,
    kernel_width: int,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    """grad [N, K, H', W'], x [N, C, H, W] -> the gradient of the weight [K, C / groups, kh, kw]."""
    taps = (kernel_height, kernel_width)
    weight = x.new_empty((grad.shape[1], x.shape[1] // groups, *taps))
    _check_grad("atrous_conv2d_grad_weight", grad, x, weight, (stride, padding, dilation), groups)
    if not grad.numel():
        return weight.zero_()
    if _left_to_aten(x, weight.shape, groups):
        return reference.atrous_conv2d_grad_weight(grad, x, *taps, stride, padding, dilation, groups)
    steps = steps_of(stride, padding, dilation)
    with torch.cuda.device_of(x):
        if depthwise := weight.shape[:2] == (groups, 1):
            launch = depthwise_gradient(grad, x, taps, steps)
        else:
            grad, x = grad.contiguous(memory_format=LAST), x.contiguous(memory_format=LAST)
            launch = dense_gradient(grad, x, taps, steps, groups, precision(x.dtype))
        launch.run()
        partial = launch.arguments["partial"]
        found = partial[0] if len(partial) == 1 else partial.sum(0)
        return weight.copy_(found[:, None] if depthwise else found.permute(0, 3, 1, 2))


def launch_separable_atrous_conv2d(
    x: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_scale: Tensor | None,
    depthwise_shift: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    stride: Any,
    dilation: Any,
    depthwise_activation: str,
    activation: str,
) -> Tensor:
    """x [N, C, H, W] -> [N, K, H', W']: one kernel after the other, with the map between them in float32 at least."""
    op, channels, outputs = "separable_atrous_conv2d", x.shape[1], pointwise_weight.shape[0]
    padding = [r * (n // 2) for r, n in zip(dilation, depthwise_weight.shape[2:], strict=True)]
    size = _checked(op, x, depthwise_weight, (stride, padding, dilation), channels)
    check.check_weight(op, "depthwise_weight", depthwise_weight, x, (channels, 1, None, None))
    check.check_weight(op, "pointwise_weight", pointwise_weight, x, (None, channels, 1, 1))
    check.check_vectors(op, channels, depthwise_scale=depthwise_scale, depthwise_shift=depthwise_shift)
    check.check_vectors(op, outputs, scale=scale, shift=shift)
    for name, choice in (("depthwise_activation", depthwise_activation), ("activation", activation)):
        check.checked_choice(op, name, choice, ACTIVATIONS)
    if _left_to_aten(x, pointwise_weight.shape, 1):
        vectors = (depthwise_scale, depthwise_shift, scale, shift)
        last = (stride, dilation, depthwise_activation, activation)
        return reference.separable_atrous_conv2d(x, depthwise_weight, pointwise_weight, *vectors, *last)
    wide, steps = check.wide_dtype(x.dtype), steps_of(stride, padding, dilation)
    after: dict[str, Any] = {"scale": depthwise_scale, "shift": depthwise_shift}
    middle = _convolved(x, wide, x, depthwise_weight, size, steps, channels, depthwise_activation, **after)
    one, after = steps_of((1, 1), (0, 0), (1, 1)), {"scale": scale, "shift": shift}
    return _convolved(x, x.dtype, middle, pointwise_weight.to(wide), size, one, 1, activation, **after)
