"""Rows of the kernel-sharing atrous convolution."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import generator, logits
from .upsample import Make

# Name, [N, Cin, H, W], Cout, rates, tag.
GEOMETRY: tuple[tuple[str, tuple[int, int, int, int], int, tuple[int, ...], str], ...] = (
    ("square", (2, 5, 9, 9), 6, (2, 3), "smoke"),
    ("even", (1, 16, 12, 14), 32, (1, 2, 4), "odd"),
    ("slices", (1, 8, 10, 11), 150, (2, 4), ""),
    ("one_output", (2, 7, 8, 10), 1, (1, 3), ""),
    ("one_input", (1, 1, 9, 8), 5, (2,), ""),
    ("row", (1, 6, 1, 13), 4, (1, 2), ""),
    ("column", (1, 6, 13, 1), 4, (2, 1), ""),
    ("pixel", (2, 3, 1, 1), 5, (1, 6), ""),
    # Which taps live: some rates pass the map, all do, one does in one direction; strips that overlap.
    ("beyond", (1, 4, 6, 7), 17, (3, 6, 9), "odd"),
    ("far", (1, 4, 5, 6), 3, (8, 11, 2**30 - 1), ""),
    ("beyond_rows", (1, 4, 5, 12), 3, (6, 7), ""),
    ("beyond_columns", (1, 4, 12, 5), 3, (6, 7), ""),
    ("overlap", (1, 5, 11, 9), 8, (6, 7), "odd"),
    ("half", (1, 5, 12, 12), 8, (6, 7), ""),
    ("repeated", (1, 5, 8, 9), 4, (3, 2, 2), ""),
    # One GEMM for all taps, one for each row of taps, one for each strip.
    ("together", (1, 3, 15, 16), 5, (1, 7), ""),
    ("broad", (2, 6, 13, 28), 20, (2, 5), ""),
    ("tall", (2, 6, 28, 13), 20, (2, 5), "odd"),
    # More responses than the workspace has: rows are kept only as long as they are read.
    ("large", (1, 16, 420, 300), 16, (6, 24), ""),
    ("no_batch", (0, 3, 4, 5), 4, (1, 2), "degenerate"),
)
BENCH: tuple[tuple[str, tuple[int, int, int, int]], ...] = (
    ("c2048_33", (1, 2048, 33, 33)),
    ("c2048_65", (1, 2048, 65, 65)),
    ("c320_128x256", (1, 320, 128, 256)),
)
RATES: dict[str, tuple[int, ...]] = {
    "": (6, 12, 18, 24),
    "_one": (12,),
    "_eight": (3, 6, 9, 12, 15, 18, 21, 24),
}
TRAINED = (0, 1, "scale", "shift")


def arguments(
    shape: tuple[int, int, int, int],
    outputs: int,
    rates: tuple[int, ...],
    kind: str = "noise",
    *,
    scaled: bool = True,
    shifted: bool = True,
    **options: Any,
) -> Make:
    """Arguments (x, weight, rates) and scale, shift [R, Cout] and the options.

    Of kind `whole` what an activation gets is an integer and a half, computed without rounding: nobody is on the other
    side of a kink, where the gradient jumps.
    """

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        g = generator(seed + 1)
        whole = kind == "whole"

        def noise(*size: int) -> Tensor:
            if whole:
                return torch.randint(-1, 2, size, generator=g).double()
            return torch.randn(size, generator=g, dtype=torch.float64)

        def placed(x: Tensor) -> Tensor:
            return with_layout(x.to(dtype=dtype, device=device), layout)

        x = logits(shape, "ties" if whole else kind, seed)
        weight = noise(outputs, shape[1], 3, 3) / (1 if whole else (9 * shape[1]) ** 0.5)
        vectors = {}
        if scaled:
            scale = noise(len(rates), outputs)
            vectors["scale"] = placed(scale.masked_fill(scale == 0, 2) if whole else 1 + scale / 4)
        if shifted:
            vectors["shift"] = placed(noise(len(rates), outputs) + 0.5)
        return (placed(x), placed(weight), rates), {**vectors, **options}

    return make


def _extents(inputs: Inputs) -> tuple[int, int, int, int]:
    """Cin, Cout, R, and the pixels of the batch."""
    x, weight, rates = inputs[0][:3]
    return x.shape[1], weight.shape[0], len(rates), x.shape[0] * x.shape[2] * x.shape[3]


def summands(inputs: Inputs) -> float:
    """A result sums nine products of every channel for every rate."""
    channels, _, rates, _ = _extents(inputs)
    return 9 * channels * rates


def terms(inputs: Inputs) -> float:
    """A gradient sums over the pixels, or over nine products of every channel of the result, of every rate."""
    _, outputs, rates, pixels = _extents(inputs)
    return rates * max(pixels, 9 * outputs)


def pixels(inputs: Inputs) -> int:
    """The smallest gradient is that of the scales."""
    _, outputs, rates, _ = _extents(inputs)
    return rates * outputs


SUMS: dict[str, Any] = {"summands": summands, "terms": terms, "pixels": pixels, "gemm": True}


def _rows() -> Iterator[Case]:
    def row(id: str, make: Make, *tags: str, grad: tuple[int | str, ...] = (), op: str = "ksac_conv2d") -> Case:
        return Case(op, id, make, grad, frozenset(filter(None, tags)), **SUMS)

    for name, shape, outputs, rates, tag in GEOMETRY:
        # Fused, and as the steps that autograd records.
        yield row(name, arguments(shape, outputs, rates), tag)
        yield row(f"concat_{name}", arguments(shape, outputs, rates, fusion="concat"), tag.replace("smoke", "odd"))
        yield row(f"trained_{name}", arguments(shape, outputs, rates, "whole"), tag, grad=TRAINED)
        if shape[0] * shape[2] * shape[3] > 1 and name != "large":
            yield row(name, _normed(shape, outputs, rates), tag, grad=(0, 1, 3, 4), op="ksac_conv2d_train")

    small = partial(arguments, (2, 5, 7, 9), 7, (2, 3, 8))
    for activation in ("none", "relu6", "silu"):
        # An affine step that the activation bends, so that noise is far from a kink or there is none.
        kind = "whole" if activation == "relu6" else "noise"
        yield row(activation, small(activation=activation))
        yield row(f"trained_{activation}", small(kind, activation=activation), "odd", grad=TRAINED)
    for given in ("scale", "shift", "neither"):
        vectors: dict[str, Any] = {"scaled": given == "scale", "shifted": given == "shift"}
        yield row(f"{given}_alone", small(**vectors))
        grad = TRAINED[:2] if given == "neither" else (*TRAINED[:2], given)
        yield row(f"trained_{given}_alone", small(activation="silu", **vectors), grad=grad)
    for activation in ("relu", "relu6"):
        # Whole numbers: many stand on a kink.
        yield row(
            f"trained_kinks_{activation}", small("whole", shifted=False, activation=activation), grad=(0, 1, "scale")
        )
    yield row("trained_concat", small("whole", fusion="concat"), grad=TRAINED)
    for kind in ("nan", "inf", "minus_inf", "wide", "constant"):
        yield row(kind, small(kind), "degenerate")
        yield row(f"concat_{kind}", small(kind, fusion="concat", activation="silu"), "degenerate")

    for name, shape in BENCH:
        # Of the largest map eight rates would take a test half a minute.
        for suffix, rates in RATES.items() if "128" not in name else [("", RATES[""])]:
            yield row(name + suffix, arguments(shape, 256, rates), "bench", "paper", "heavy")
        yield row(f"{name}_train", arguments(shape, 256, RATES[""], "whole"), "bench", "paper", "heavy", grad=TRAINED)


def _normed(shape: tuple[int, int, int, int], outputs: int, rates: tuple[int, ...]) -> Make:
    """Arguments (x, weight, rates, gamma, beta); an activation without a kink."""
    make = arguments(shape, outputs, rates, activation="silu")

    def normed(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        args, given = make(seed, dtype, device, layout)
        # Far from a variance of zero, where the inverse of its root would magnify round-off.
        return (*args, given.pop("scale"), given.pop("shift")), {"eps": 0.5, **given}

    return normed


CASES: tuple[Case, ...] = tuple(_rows())
