"""Rows of GCN's large separable kernel."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import logits

BIASES = ("column_bias", "row_bias", "row_bias2", "column_bias2")
# Name, [N, C', H, W], C, k, tag. Products by frequencies begin at 16 channels and where they are fewer.
GEOMETRY: tuple[tuple[str, tuple[int, int, int, int], int, int, str], ...] = (
    ("square", (2, 17, 11, 13), 8, 9, "smoke"),
    ("windows", (1, 16, 67, 80), 12, 11, "odd"),  # several windows, the last one not full
    ("windows_tall", (2, 16, 131, 33), 12, 11, ""),
    ("slices", (1, 700, 30, 51), 12, 11, ""),  # more than one, the last one narrower
    ("k1", (1, 18, 7, 9), 3, 1, ""),
    ("k3", (1, 18, 7, 9), 3, 3, "odd"),
    ("k15", (1, 24, 16, 16), 21, 15, ""),
    ("k_most", (1, 16, 90, 12), 4, 121, ""),
    ("k_beyond", (2, 18, 6, 10), 5, 31, "odd"),  # dead taps on both axes
    ("k_beyond_one", (1, 18, 5, 40), 4, 25, ""),
    ("one_in", (2, 1, 12, 14), 3, 7, "odd"),
    ("three_in", (1, 3, 20, 21), 21, 15, ""),
    ("one_out", (1, 20, 12, 14), 1, 9, "odd"),
    ("one_out_beyond", (1, 20, 40, 44), 1, 91, ""),
    ("one_of_each", (1, 1, 5, 7), 1, 5, ""),
    ("c22", (1, 16, 9, 36), 22, 7, ""),  # a block of channels that is not full, two vectors of columns and a part
    ("batch", (5, 32, 8, 8), 6, 7, ""),
    ("row", (8, 32, 1, 60), 12, 11, ""),
    ("column", (8, 32, 60, 1), 12, 11, ""),
    ("pixel", (2, 20, 1, 1), 3, 7, ""),
    ("no_batch", (0, 18, 8, 9), 4, 7, "degenerate"),
    ("no_pixels", (1, 18, 0, 9), 4, 7, "degenerate"),
)
BENCH = (("c2048_16", (1, 2048, 16, 16)), ("c256_128", (1, 256, 128, 128)), ("c512_64", (1, 512, 64, 64)))
Make = Callable[[int, torch.dtype, str, str], Inputs]


def convolved(
    shape: tuple[int, int, int, int], channels: int, taps: int, kind: str = "noise", biases: tuple[str, ...] = BIASES
) -> Make:
    """Arguments (x, the four weights), biases by name; the weights keep the scale of x."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        def placed(of: tuple[int, int, int, int], kind: str, seed: int, scale: float = 1.0) -> torch.Tensor:
            x = (scale * logits(of, kind, seed)).to(dtype=dtype, device=device)
            return with_layout(x, layout)

        first, second = 0.5 * (shape[1] * taps) ** -0.5, 0.5 * (channels * taps) ** -0.5
        weights = (
            placed((channels, shape[1], taps, 1), "noise", seed + 1, first),
            placed((channels, shape[1], 1, taps), "noise", seed + 2, first),
            placed((channels, channels, 1, taps), "noise", seed + 3, second),
            placed((channels, channels, taps, 1), "noise", seed + 4, second),
        )
        vectors = {
            name: with_layout(logits((1, 1, 1, channels), "noise", seed + 5 + i)[0, 0, 0].to(dtype=dtype), layout)
            for i, name in enumerate(BIASES)
            if name in biases
        }
        return (placed(shape, kind, seed), *weights), {name: v.to(device) for name, v in vectors.items()}

    return make


def summands(inputs: Inputs) -> float:
    """A result sums the taps and channels of both stages, one behind the other."""
    _, weight, _, second, _ = inputs[0]
    return float(2 * weight.shape[2] * (weight.shape[1] + second.shape[1]))


def terms(inputs: Inputs) -> float:
    """A gradient of weights sums the pixels, one of x as the result does, from what has been summed before."""
    x = inputs[0][0]
    return float(x.shape[0] * x.shape[2] * x.shape[3]) + summands(inputs)


def _rows() -> Iterator[Case]:
    def row(id: str, make: Make, *tags: str, grad: tuple[int | str, ...] = (*range(5), *BIASES)) -> Case:
        chosen = frozenset(filter(None, tags))
        return Case("global_conv2d", id, make, grad, chosen, gemm=True, summands=summands, terms=terms)

    for name, shape, channels, taps, tag in GEOMETRY:
        yield row(name, convolved(shape, channels, taps), tag)
    yield row("unbiased", convolved((1, 20, 14, 18), 12, 11, biases=()), "odd", grad=tuple(range(5)))
    some: dict[str, Any] = {"biases": BIASES[1:3]}
    yield row("some_biases", convolved((1, 20, 14, 18), 12, 11, **some), grad=(*range(5), *BIASES[1:3]))
    yield row("of_weights", convolved((1, 20, 14, 18), 12, 11), grad=(1, 2, 3, 4))
    # An entry that is not finite, or a sum that overflows, reaches no further than its taps.
    for kind in ("nan", "inf", "minus_inf", "constant"):
        yield row(kind, convolved((1, 20, 67, 80), 12, 11, kind), "degenerate")
        yield row(f"{kind}_direct", convolved((1, 4, 12, 14), 4, 5, kind), "degenerate")
    for name, shape in BENCH:
        yield row(name, convolved(shape, 21, 15), "bench", "paper", "heavy")


CASES: tuple[Case, ...] = tuple(_rows())
