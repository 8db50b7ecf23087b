"""Promises of atrous convolution: the dense kernels are GEMMs on tensor cores wherever the dtype has them, the
depthwise ones move 128 bits a thread in channels_last.

A large tile holds 128 x 128 sums, 64 registers of each thread: one block of 8 warps fits a multiprocessor and is
enough, because copies run ahead in shared memory. Where C is divisible by 16 all loads of the loop are 128 bits wide;
the others are the scales and shifts, two neighbours a thread. For TF32 Hopper wants its operands with neighbouring
summands, so those that are stored otherwise are copied 32 bits at a time.
"""

from collections.abc import Mapping
from typing import Any

from ..ladder.gate import Gate

_FORWARD = ("atrous_conv2d", "separable_atrous_conv2d")
_INPUT, _WEIGHT = ("atrous_conv2d_grad_input",), ("atrous_conv2d_grad_weight",)
# The launchers leave dense convolutions on Turing to cuDNN.
_GEMM: dict[str, Any] = {"registers": 208, "occupancy": 0.12, "barriers": 20, "since": 80}
_FMA: dict[str, Any] = {"registers": 144, "occupancy": 0.18, "barriers": 16, "since": 80}
_STREAM: dict[str, Any] = {"registers": 80, "occupancy": 0.3}

GATES = (
    Gate("atrous_conv/forward<float32,ieee>", _FORWARD, **_FMA, stores={128: 1}),
    Gate("atrous_conv/forward<float64>", _FORWARD, **_FMA, stores={128: 1}),
    Gate("atrous_conv/forward<*odd>", _FORWARD, **_GEMM, tensor_cores=True),
    Gate("atrous_conv/forward<*>", _FORWARD, **_GEMM, tensor_cores=True, loads={64: 1}, stores={128: 1}),
    Gate("atrous_conv/input_gradient<*tf32>", _INPUT, **_GEMM, tensor_cores=True, stores={128: 1}),
    Gate("atrous_conv_weight/gradient<*tf32>", _WEIGHT, **_GEMM, tensor_cores=True, stores={128: 1}),
    Gate("atrous_conv_weight/gradient<float64>", _WEIGHT, **_FMA, stores={128: 1}),
    Gate("depthwise/forward<float64>", (*_FORWARD, *_INPUT), registers=128, occupancy=0.25, loads={128: 1}),
    Gate("depthwise/forward<*nchw>", (*_FORWARD, *_INPUT), **_STREAM, barriers=2, stores={128: 1}),
    Gate("depthwise/forward<*>", (*_FORWARD, *_INPUT), **_STREAM, loads={128: 1}, stores={128: 1}),
    Gate("depthwise/weight_gradient<*nchw>", _WEIGHT, **_STREAM, barriers=8),
    Gate("depthwise/weight_gradient<*int64>", _WEIGHT, registers=128, occupancy=0.25, barriers=8, loads={128: 1}),
    Gate("depthwise/weight_gradient<*>", _WEIGHT, **_STREAM, barriers=8, loads={128: 1}),
)


def _products(a: Mapping[str, Any]) -> int:
    """A product for each block of channels and each tap that lies inside of the map for some output of the tile, rows
    and columns by themselves; of a tile that spans images, for some row at all."""

    def live(first: int, last: int, size: int, axis: str) -> int:
        stride, padding, dilation, taps = (a[f"{n}_{axis}"] for n in ("stride", "padding", "dilation", "taps"))
        offsets = [tap * dilation - padding for tap in range(taps)]
        return sum(last * stride + offset >= 0 and first * stride + offset < size for offset in offsets)

    rows, strip, height, width, total = a["rows"], a["strip"], a["out_height"], a["out_width"], 0
    for begin in range(0, rows * strip, a["BLOCK_M"]):
        top, bottom = begin // strip, min(begin + a["BLOCK_M"], rows * strip) - 1
        bottom //= strip
        one_image = top // height == bottom // height
        of_y = live(top % height if one_image else 0, bottom % height if one_image else height - 1, a["height"], "y")
        for left in range(0, width, strip):
            total += of_y * live(left, min(left + strip, width) - 1, a["width"], "x")
    return total * a["groups"] * -(-a["outputs"] // a["BLOCK_N"]) * -(-a["channels"] // a["BLOCK_K"])


PRODUCTS = {"atrous_conv.convolution": _products}

_DEAD = "More taps of the rectangle than are live: their reads are masked, so they cost time only."
_NEGATIVE = "What is less than no tap or output is clipped behind it, or no loop, or a loop of masked reads."
_OTHER = "Its partner is zero there, or the sum is not stored."
_BOUND = "At the bound both sides are the same."

# Mutants that live on, by the file and the key of benchmarks/results/gpu_mutation.jsonl: why that is no gap.
SURVIVORS: dict[str, dict[str, str]] = {
    "kernels/atrous_conv.py": {
        "limit dropped `tl.maximum(size - low, 0)` in `behind = tl.minimum(tl.cdiv(tl.maximum(size - low,"
        " 0), dilation), taps)`": _NEGATIVE,
        "limit dropped `tl.maximum(behind - first, 0)` in `return first, tl.maximum(behind - first, 0)`": _NEGATIVE,
        "limit dropped `tl.minimum(left + strip, out_width)` in `high = (tl.minimum(left + strip, out_width) - 1)"
        " * stride_x - padding_x`": _DEAD,
        "other value `0` in `b = tl.load(filters + at, c_inside[:, None] & n_inside[None, :], other=0)`": _OTHER,
    },
    "kernels/atrous_conv_weight.py": {
        "limit dropped `tl.maximum(size - offset, 0)` in `behind = tl.minimum(tl.cdiv(tl.maximum(size - offset, 0),"
        " stride), out)`": _NEGATIVE,
        "limit dropped `tl.maximum(behind - first, 0)` in `return first, tl.maximum(behind - first, 0)`": _NEGATIVE,
        "other value `0` in `a = tl.load(grad + (m[:, None] + at[None, :]), m_inside[:, None] & "
        "inside[None, :], other=0)`": _OTHER,
        "other value `0` in `b = tl.load(x + (at[:, None] + n[None, :]), inside[:, None] & n_inside[None,"
        " :], other=0)`": _OTHER,
    },
    "kernels/depthwise.py": {
        "comparison shifted `y < 0` in `y = tl.where(y < 0, 0.0, y)`": _BOUND,
        "comparison shifted `y > 6` in `y = tl.where(y > 6, 6.0, y)`": _BOUND,
        "term dropped `p_inside & (row >= 0)` in `live = p_inside & (row >= 0) & (row < height) & (column >= 0) &"
        " (column < width)`": _OTHER,
        "other value `0` in `value = tl.load(grad + of_grad, inside, other=0).to(compute)`": _OTHER,
        "other value `0` in `sums += value * tl.load(x + of_x, inside, other=0).to(compute)`": _OTHER,
    },
}
