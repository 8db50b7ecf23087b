"""Rows of atrous convolution: dense, depthwise, grouped, by each algorithm, with each part of the epilogue."""

from collections.abc import Iterator
from typing import Any

import torch

from ...ops.atrous_conv_algorithms import prepack_atrous_weight
from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import generator

EPILOGUE = ("bias", "scale", "shift", "residual")


def convolution(
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    parts: tuple[str, ...] = (),
    special: float | None = None,
    packed: str | None = None,
    deviation: float = 1.0,
    **options: Any,
) -> Any:
    """Arguments (x, weight) and the `parts` of the epilogue; sums of this deviation.

    `special` takes the place of one value of the second image, if there is one; `packed` names the algorithm that the
    weight is packed for.
    """

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        g = generator(seed)
        channels = shape[1] // options.get("groups", 1)
        terms = max(channels * kernel[0] * kernel[1], 1)
        x = torch.randn(shape, generator=g, dtype=torch.float64)
        weight = deviation * torch.randn(outputs, channels, *kernel, generator=g, dtype=torch.float64) / terms**0.5
        if special is not None:
            x[-1, 0, shape[2] // 2, shape[3] // 2] = special
        strides, rates, pads = (
            _pair(options.get(key, one)) for key, one in (("stride", 1), ("dilation", 1), ("padding", -1))
        )
        pads = tuple(r * (k // 2) for r, k in zip(rates, kernel, strict=True)) if pads[0] == -1 else pads
        spans = (n + 2 * p - r * (k - 1) - 1 for n, p, r, k in zip(shape[2:], pads, rates, kernel, strict=True))
        size = [span // s + 1 if n else 0 for span, s, n in zip(spans, strides, shape[2:], strict=True)]
        vectors = {
            "bias": torch.randn(outputs, generator=g, dtype=torch.float64),
            "scale": 0.5 + torch.rand(outputs, generator=g, dtype=torch.float64),
            "shift": torch.randn(outputs, generator=g, dtype=torch.float64),
            "residual": torch.randn(shape[0], outputs, *size, generator=g, dtype=torch.float64),
        }
        given = {k: with_layout(v.to(dtype=dtype, device=device), layout) for k, v in vectors.items() if k in parts}
        x, weight = (with_layout(t.to(dtype=dtype, device=device), layout) for t in (x, weight))
        extra = {} if packed is None else {"packed": prepack_atrous_weight(weight.float(), packed)}
        return (x, weight), {**options, **given, **extra}

    return make


def _pair(x: Any) -> Any:
    return x if isinstance(x, tuple) else (x, x)


def summands(inputs: Inputs) -> float:
    """Products behind a result."""
    weight = inputs[0][1]
    return float(max(weight[0].numel(), 1))


def terms(inputs: Inputs) -> float:
    """Products behind a gradient: of the weight over the pixels, of x over the outputs and taps."""
    (x, weight), _ = inputs
    return float(max(x.shape[0] * x.shape[2] * x.shape[3], weight.shape[0] * weight[0, 0].numel(), 1))


# Channels in and out, map and rate of the heads and decoders that the goals speak of.
DENSE = [(2048, 256, 33, r) for r in (6, 12, 18)] + [(2048, 256, 65, r) for r in (12, 24, 36)]
DENSE += [(512, 512, 64, 2), (512, 512, 64, 4), (256, 256, 64, 2), (304, 256, 128, 1)]
DEPTHWISE = [(2048, 33, 6), (2048, 33, 12), (2048, 33, 18), (960, 33, 2), (256, 128, 1)]
ALGORITHM = {(33, 18): "toeplitz2", (65, 36): "toeplitz2", (64, 2): "winograd4", (64, 4): "winograd4"}
ALGORITHM |= {(128, 1): "winograd4"}


def _rows() -> Iterator[Case]:
    op = "atrous_conv2d"
    both: tuple[int | str, ...] = (0, 1)

    def row(id: str, make: Any, *tags: str, grad: tuple[int | str, ...] = both, **more: Any) -> Case:
        return Case(op, id, make, grad, frozenset(tags), summands=summands, terms=terms, gemm=True, **more)

    everything = (*both, *EPILOGUE)
    yield row("square", convolution((2, 5, 9, 9), 4, dilation=2), "smoke")
    yield row("epilogue", convolution((2, 3, 6, 7), 5, parts=EPILOGUE, activation="silu"), "smoke", grad=everything)
    yield row("depthwise", convolution((2, 19, 9, 13), 19, dilation=3, groups=19), "smoke")
    for activation in ("none", "relu", "relu6"):
        make = convolution((1, 4, 8, 6), 3, parts=EPILOGUE, activation=activation, dilation=2)
        yield row(f"epilogue_{activation}", make, grad=everything)
        make = convolution((1, 18, 8, 20), 18, parts=EPILOGUE, activation=activation, dilation=2, groups=18)
        yield row(f"depthwise_{activation}", make, grad=everything)
        if activation != "none":  # beyond what relu6 keeps
            yield row(
                f"{activation}_beyond", convolution((1, 4, 5, 6), 3, activation=activation, deviation=8.0), grad=()
            )
    yield row("depthwise_silu", convolution((1, 17, 5, 6), 17, parts=EPILOGUE, activation="silu", groups=17), "odd")
    for part in EPILOGUE:
        yield row(part, convolution((1, 4, 5, 6), 3, parts=(part,)), grad=(*both, part))

    shapes: dict[str, tuple[tuple[int, int, int, int], int, tuple[int, int], dict[str, Any]]] = {
        "one_in": ((1, 1, 9, 8), 6, (3, 3), {"dilation": 2}),
        "one_out": ((1, 6, 9, 8), 1, (3, 3), {"dilation": 2}),
        "one_pixel": ((2, 6, 1, 1), 4, (3, 3), {}),
        "row": ((1, 5, 1, 17), 4, (3, 3), {"dilation": 3}),
        "column": ((1, 5, 17, 1), 4, (3, 3), {"dilation": 3}),
        "rate_is_the_map": ((1, 5, 7, 7), 4, (3, 3), {"dilation": 7}),
        "rate_beyond_rows": ((1, 5, 6, 13), 4, (3, 3), {"dilation": 8}),
        "rate_beyond": ((1, 5, 6, 7), 4, (3, 3), {"dilation": 40}),
        "dead_in_some_tiles": ((1, 4, 24, 12), 3, (3, 3), {"dilation": (12, 2)}),
        "two_rates": ((1, 5, 8, 9), 4, (3, 3), {"dilation": (2, 3)}),
        "stride2": ((1, 5, 9, 10), 4, (3, 3), {"stride": 2, "dilation": 2}),
        "stride2_even": ((1, 5, 8, 12), 4, (3, 3), {"stride": (2, 1)}),
        "pointwise": ((1, 20, 6, 7), 9, (1, 1), {}),
        "k5": ((1, 4, 11, 9), 3, (5, 5), {"dilation": 2}),
        "k1x7": ((1, 4, 5, 16), 3, (1, 7), {}),
        "k2": ((1, 4, 6, 7), 3, (2, 2), {"padding": 1}),
        "no_padding": ((1, 4, 8, 9), 3, (3, 3), {"padding": 0, "dilation": 2}),
        "padding": ((1, 4, 6, 5), 3, (3, 3), {"padding": (3, 0)}),
        "groups": ((1, 6, 7, 8), 4, (3, 3), {"groups": 2}),
        "multiplier": ((1, 6, 7, 8), 12, (3, 3), {"groups": 6}),
        "depthwise_rate_beyond": ((1, 5, 6, 33), 5, (3, 3), {"groups": 5, "dilation": 7}),
        "depthwise_stride2": ((2, 16, 9, 21), 16, (3, 3), {"groups": 16, "stride": 2, "dilation": 2}),
        "depthwise_k5": ((1, 33, 9, 40), 33, (5, 5), {"groups": 33}),
        "depthwise_k1x7": ((1, 16, 4, 35), 16, (1, 7), {"groups": 16}),
        "depthwise_padding": ((1, 16, 7, 9), 16, (3, 3), {"groups": 16, "padding": (0, 3)}),
        "depthwise_lines": ((1, 130, 5, 6), 130, (3, 3), {"groups": 130, "dilation": 2}),
        "depthwise_pieces": ((1, 2, 70, 1300), 2, (3, 3), {"groups": 2}),
        # The most vectors at once and one less than full, in every instruction set.
        "depthwise_w95": ((1, 3, 4, 95), 3, (3, 3), {"groups": 3}),
        "depthwise_row": ((1, 3, 1, 5), 3, (3, 3), {"groups": 3}),
        "corners_of_padding": ((1, 2, 3, 3), 3, (1, 1), {"padding": 9}),
        "chunks": ((1, 3, 16, 17), 4, (3, 3), {}),
        "depthwise_chunks": ((1, 3, 15, 19), 3, (3, 3), {"groups": 3}),
        "no_batch": ((0, 4, 6, 7), 3, (3, 3), {}),
        "no_rows": ((1, 4, 0, 7), 3, (3, 3), {}),
    }
    met = {"one_in", "one_out", "two_rates", "stride2", "depthwise_stride2", "depthwise_w95"}
    for id, (shape, outputs, kernel, options) in shapes.items():
        tag = "degenerate" if id.startswith("no_") else "odd" if id in met else "paper"
        yield row(id, convolution(shape, outputs, kernel, **options), tag)

    # As tall as the map and its padding: oneDNN's gradient of the weight breaks the heap, with AVX-512 and torch 2.13.
    tall = convolution((1, 16, 32, 44), 16, (63, 1))
    yield row("k63x1", tall, "paper", dtypes=(torch.float32,))

    # Winograd and its kind: no gradient, float32, on the CPU.
    inference: dict[str, Any] = {"grad": (), "dtypes": (torch.float32,)}
    for algorithm in ("winograd2", "winograd3", "winograd4", "toeplitz2"):
        rate = 7 if algorithm == "toeplitz2" else 3
        for height, width in ((11, 14), (7, 9), (1, 6)):
            make = convolution(
                (2, 20, height, width), 35, parts=EPILOGUE, activation="relu", dilation=rate, algorithm=algorithm
            )
            yield row(f"{algorithm}_{height}x{width}", make, "cpu", *(["odd"] if height == 11 else []), **inference)
        ready = convolution((1, 16, 12, 10), 8, dilation=rate, algorithm=algorithm, packed=algorithm)
        yield row(f"{algorithm}_packed", ready, "cpu", **inference)
        deep = convolution((1, 300, 9, 9), 40, dilation=rate, algorithm=algorithm)
        yield row(f"{algorithm}_deep", deep, "cpu", **inference)
        for name, value in (("nan", float("nan")), ("inf", float("inf")), ("huge", 3e38)):
            make = convolution((2, 4, 9, 10), 5, special=value, dilation=rate, algorithm=algorithm, parts=("residual",))
            yield row(f"{algorithm}_{name}", make, "cpu", "degenerate", **inference)
    padded = convolution((1, 6, 9, 8), 5, dilation=2, padding=(0, 3), algorithm="winograd3")
    yield row("winograd3_padding", padded, "cpu", **inference)
    for name, value in (("nan", float("nan")), ("inf", float("inf"))):
        yield row(name, convolution((2, 4, 9, 10), 5, special=value, dilation=2), "degenerate", grad=())
        make = convolution((2, 16, 9, 10), 16, special=value, dilation=2, groups=16)
        yield row(f"depthwise_{name}", make, "degenerate", grad=())

    for cin, cout, side, rate in DENSE:
        name, dense = f"c{cin}_{side}_r{rate}", (1, cin, side, side)
        tags = ["bench", "paper"] + ["heavy"] * (cin != 256)
        yield row(name, convolution(dense, cout, dilation=rate), *tags)
        best = ALGORITHM.get((side, rate), "winograd3")
        yield row(f"{name}_packed", convolution(dense, cout, dilation=rate, packed=best), *tags, **inference)
    for channels, side, rate in DEPTHWISE:
        make = convolution((1, channels, side, side), channels, dilation=rate, groups=channels)
        tags = ["bench", "paper"] + ["heavy"] * (channels != 960)
        yield row(f"depthwise{channels}_{side}_r{rate}", make, *tags)


SEPARABLE = ("depthwise_scale", "depthwise_shift", "scale", "shift")


def separable(
    shape: tuple[int, int, int, int], outputs: int, kernel: int = 3, *, parts: bool = True, **options: Any
) -> Any:
    """Arguments (x, depthwise_weight, pointwise_weight), with scales and shifts unless `parts` says no."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        g = generator(seed)
        channels = shape[1]
        tensors = [
            torch.randn(shape, generator=g, dtype=torch.float64),
            torch.randn(channels, 1, kernel, kernel, generator=g, dtype=torch.float64) / kernel,
            torch.randn(outputs, channels, 1, 1, generator=g, dtype=torch.float64) / channels**0.5,
        ]
        sizes = (channels, channels, outputs, outputs)
        values = [torch.rand(n, generator=g, dtype=torch.float64) + 0.5 for n in sizes]
        given = dict(zip(SEPARABLE, (v.to(dtype=dtype, device=device) for v in values), strict=True)) if parts else {}
        return tuple(with_layout(t.to(dtype=dtype, device=device), layout) for t in tensors), {**options, **given}

    return make


def _separable_rows() -> Iterator[Case]:
    def row(id: str, make: Any, *tags: str) -> Case:
        grad: tuple[int | str, ...] = (0, 1, 2) if "bench" in tags or id == "plain" else (0, 1, 2, *SEPARABLE)
        products = lambda inputs: 9.0 * inputs[0][2].shape[1]  # noqa: E731
        over = lambda inputs: float(inputs[0][0][:, 0].numel() + inputs[0][2].shape[0] * 9)  # noqa: E731
        op = "separable_atrous_conv2d"
        return Case(op, id, make, grad, frozenset(tags), summands=products, terms=over, gemm=True)

    relu: dict[str, Any] = {"depthwise_activation": "relu", "activation": "relu"}
    yield row("square", separable((2, 5, 9, 9), 4, dilation=2, **relu), "smoke")
    yield row("wide", separable((2, 18, 9, 9), 5, dilation=2, **relu), "odd")
    yield row("silu", separable((1, 5, 6, 8), 7, dilation=3, depthwise_activation="silu", activation="relu6"), "odd")
    yield row("plain", separable((1, 5, 6, 8), 7, parts=False))
    yield row("stride2", separable((2, 17, 9, 12), 4, stride=2, dilation=2, **relu))
    yield row("k5", separable((1, 4, 7, 5), 3, 5, dilation=(1, 2), **relu))
    yield row("one", separable((1, 1, 5, 6), 1, **relu))
    yield row("row", separable((1, 16, 1, 9), 4, dilation=2, **relu))
    yield row("bands", separable((1, 600, 24, 31), 4, dilation=6, **relu))
    yield row("no_batch", separable((0, 4, 5, 6), 3, **relu), "degenerate")
    for rate in (6, 12, 18):
        make = separable((1, 2048, 33, 33), 256, dilation=rate, **relu)
        yield row(f"c2048_33_r{rate}", make, "bench", "paper", "heavy")
    yield row("c304_128", separable((1, 304, 128, 128), 256, **relu), "bench", "paper", "heavy")


def packing(outputs: int, channels: int, algorithm: str) -> Any:
    """Arguments (weight, algorithm)."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        weight = torch.randn(outputs, channels, 3, 3, generator=generator(seed), dtype=torch.float64)
        return (with_layout(weight.to(dtype=dtype, device=device), layout), algorithm), {}

    return make


def _packing_rows() -> Iterator[Case]:
    for algorithm, id in (("winograd2", "square"), *((a, a) for a in ("winograd3", "winograd4", "toeplitz2"))):
        tag = "smoke" if id == "square" else "odd"
        make = packing(19, 5, algorithm)
        yield Case("prepack_atrous_weight", id, make, tags=frozenset({tag}), dtypes=(torch.float32,))


CASES: tuple[Case, ...] = (*_rows(), *_separable_rows(), *_packing_rows())
