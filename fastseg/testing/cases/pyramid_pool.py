"""Rows of pyramid pooling."""

from collections.abc import Callable, Iterator

import torch

from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import logits

MODES = ("max", "mean")
SPP, PSP = (1, 2, 4), (1, 2, 3, 6)
# Name, [N, C, h, w], bins, tag. Lanes are columns from 16 of them on, else planes; in channels_last they are channels.
GEOMETRY: tuple[tuple[str, tuple[int, int, int, int], tuple[int, ...], str], ...] = (
    ("square", (2, 3, 13, 13), SPP, "smoke"),
    ("parsing", (1, 19, 31, 33), PSP, "smoke"),
    ("smaller", (2, 37, 2, 3), PSP, "odd"),
    ("wide", (1, 5, 7, 67), PSP, "odd"),
    ("tall", (1, 17, 67, 3), (5, 2), "odd"),
    ("row", (1, 4, 1, 37), SPP, "odd"),
    ("column", (1, 4, 37, 1), SPP, ""),
    ("pixel", (2, 3, 1, 1), (1, 3), ""),
    ("divisible", (1, 20, 16, 24), SPP, ""),
    ("one_level", (1, 5, 9, 40), (1,), ""),
    ("twice_the_same", (1, 3, 9, 8), (2, 2), ""),
    ("fine", (1, 21, 20, 40), (7, 11, 40), ""),
    # Two threads part within an image, and 512 channels are a block.
    ("threads", (3, 37, 33, 30), PSP, "odd"),
    ("blocks", (2, 515, 9, 8), SPP, "odd"),
    ("no_batch", (0, 3, 4, 5), SPP, "degenerate"),
    ("no_channels", (2, 0, 4, 5), SPP, "degenerate"),
)
KINDS = ("smooth", "ties", "constant", "nan", "inf", "minus_inf", "minus_inf_pixel")
BENCH = (
    ("spp", "max", (1, 256, 13, 13), SPP),
    ("psp", "mean", (1, 2048, 64, 64), PSP),
    ("batch", "max", (8, 512, 32, 32), SPP),
)


def maps(
    shape: tuple[int, int, int, int], bins: tuple[int, ...], mode: str, kind: str = "noise"
) -> Callable[[int, torch.dtype, str, str], Inputs]:
    """Arguments (maps, bins, mode)."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        x = logits(shape, kind, seed).to(dtype=dtype, device=device)
        return (with_layout(x, layout), bins, mode), {}

    return make


def terms(inputs: Inputs) -> float:
    """A gradient sums the bins around a pixel: of a level at most n / h + 2 rows and n / w + 2 columns of them."""
    x, bins, _ = inputs[0]
    return sum((n / x.shape[2] + 2) * (n / x.shape[3] + 2) for n in bins)


def summands(inputs: Inputs) -> float:
    """A mean sums a bin, of which the largest has n / h + 1 rows at most. A maximum sums nothing."""
    x, bins, mode = inputs[0]
    n = min(bins)
    return (x.shape[2] / n + 1) * (x.shape[3] / n + 1) if mode == "mean" else 1.0


def pixels(inputs: Inputs) -> int:
    """Of the map or of its levels, whichever has fewer."""
    x, bins, _ = inputs[0]
    return int(x.shape[0]) * min(x.shape[2] * x.shape[3], sum(n * n for n in bins))


def row(
    id: str, mode: str, shape: tuple[int, int, int, int], bins: tuple[int, ...], kind: str = "noise", *tags: str
) -> Case:
    make = maps(shape, bins, mode, kind)
    chosen = frozenset(filter(None, tags))
    return Case("pyramid_pool", f"{mode}_{id}", make, (0,), chosen, terms=terms, summands=summands, pixels=pixels)


def _rows() -> Iterator[Case]:
    for mode in MODES:
        for name, shape, bins, tag in GEOMETRY:
            yield row(name, mode, shape, bins, "noise", tag)
        for kind in KINDS:
            tag = "" if kind == "smooth" else "degenerate"
            yield row(f"{kind}_rows", mode, (1, 19, 12, 37), PSP, kind, tag)
            yield row(f"{kind}_planes", mode, (2, 19, 11, 13), SPP, kind, tag)
    for name, mode, shape, bins in BENCH:
        yield row(name, mode, shape, bins, "noise", "bench", "paper")


CASES: tuple[Case, ...] = tuple(_rows())
