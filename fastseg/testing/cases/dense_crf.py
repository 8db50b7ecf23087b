"""Rows of the dense CRF: filters with Gaussian kernels."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...reference.dense_crf_lattice import NORMALIZATIONS
from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import generator, logits
from .upsample import Make

DTYPES = (torch.float32, torch.float64)
# Name, N, C, d, P, tag. A tile has 512 points; 4, 8, 16 and 32 channels are steps of what is filtered at a time.
SHAPES: tuple[tuple[str, int, int, int, int, str], ...] = (
    ("square", 2, 5, 5, 90, "smoke"),
    ("one_channel", 1, 1, 2, 130, "odd"),
    ("tiles", 2, 4, 3, 1100, "odd"),
    ("tile", 1, 17, 2, 512, ""),
    ("c33", 1, 33, 4, 513, "odd"),
    ("c8", 1, 8, 1, 77, ""),
    ("c24", 1, 24, 6, 41, ""),
    ("c70", 1, 70, 7, 30, ""),
    ("d8", 1, 9, 8, 65, "odd"),
    ("point", 2, 3, 5, 1, "degenerate"),
    ("no_points", 2, 3, 5, 0, "degenerate"),
    ("no_batch", 0, 3, 5, 7, "degenerate"),
    ("no_channels", 2, 0, 5, 7, "degenerate"),
)
KINDS = ("constant", "whole", "black", "image", "lone", "wide")
BENCH = ((80.0, 13.0), (67.0, 3.0))


def features_of(kind: str, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Features [N, d, P]: clouds (`noise`), ties between simplices (`whole`, `constant`, `black`), pixels and their
    colours (`image`), points that share no vertex (`lone`), keys of many digits (`wide`)."""
    n, d, points = shape
    noise = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    if kind == "constant":
        return noise[..., :1].expand(shape).clone()
    if kind == "whole":
        return (2 * noise).round()
    if kind == "black":
        noise[:, d // 2 :, ::2] = 0
        return noise
    if kind == "image":
        side = max(int(points**0.5), 1)
        at = torch.arange(points)
        place = torch.stack([at % side, at // side]).double()[:d] / 3
        return torch.cat([place.expand(n, -1, -1), noise[:, place.shape[0] :].cumsum(2) / 8], 1)
    return noise * {"noise": 1.0, "lone": 40.0, "wide": 300.0}[kind]


def filtered(n: int, channels: int, d: int, points: int, kind: str = "noise", mode: str = "symmetric") -> Make:
    """Arguments (values, features) and the normalization."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        values = logits((n, channels, 1, points), "noise", seed).flatten(2)
        tensors = [x.to(dtype=dtype, device=device) for x in (values, features_of(kind, (n, d, points), seed + 1))]
        return tuple(with_layout(x, layout) for x in tensors), {"normalization": mode}

    return make


def smoothed(shape: tuple[int, int, int, int], sigma: float | tuple[float, float], mode: str, **options: str) -> Make:
    """Arguments (maps, sigma) and the normalization."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        values = with_layout(logits(shape, "noise", seed).to(dtype=dtype, device=device), layout)
        return (values, sigma), {"normalization": mode, **options}

    return make


def photo(channels: int, sigma: float, color_sigma: float) -> Make:
    """Features of 512 x 512 pixels of a smooth picture with some noise: 16,406 vertices at deviations of 80 pixels
    and 13 grey levels, 260,222 at 67 and 3."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        values = logits((1, channels, 512, 512), "noise", seed).flatten(2)
        rough = torch.rand(1, 3, 6, 6, generator=generator(seed), dtype=torch.float64)
        smooth = torch.nn.functional.interpolate(rough, (512, 512), mode="bicubic").clamp(0, 1) * 255
        picture = (smooth + 0.5 * torch.randn(smooth.shape, generator=generator(seed + 1), dtype=torch.float64)).round()
        at = torch.arange(512, dtype=torch.float64) / sigma
        place = torch.stack([at.expand(512, 512), at[:, None].expand(512, 512)])[None]
        features = torch.cat([place, picture.clamp(0, 255) / color_sigma], 1).flatten(2)
        tensors = [x.to(dtype=dtype, device=device) for x in (values, features)]
        return tuple(with_layout(x, layout) for x in tensors), {"normalization": "symmetric"}

    return make


def points_of(inputs: Inputs) -> float:
    """What one result may be the sum of."""
    return float(max(inputs[0][0].shape[2:].numel(), 1))


def row(id: str, make: Make, *tags: str, op: str = "permutohedral_filter") -> Case:
    chosen = frozenset(filter(None, tags))
    return Case(op, id, make, (0,), chosen, DTYPES, terms=points_of, summands=points_of, pixels=lambda _: 1)


def _rows() -> Iterator[Case]:
    for name, n, channels, d, points, tag in SHAPES:
        yield row(name, filtered(n, channels, d, points), tag)
    for mode in NORMALIZATIONS:
        yield row(mode, filtered(2, 3, 3, 60, mode=mode), "odd" if mode == "before" else "")
    for kind in KINDS:
        for d in (2, 5):
            tag = "degenerate" if kind in ("constant", "whole") else ""
            yield row(f"{kind}_d{d}", filtered(1, 3, d, 600, kind), tag)
    for sigma, color_sigma in BENCH:
        make = photo(21, sigma, color_sigma)
        yield row(f"photo_{sigma:g}_{color_sigma:g}", make, "bench", "paper", "heavy")


# Name, shape, deviations, tag. A vector has up to 16 columns, four of which are done at a time.
MAPS: tuple[tuple[str, tuple[int, int, int, int], float | tuple[float, float], str], ...] = (
    ("square", (2, 3, 9, 11), 1.5, "smoke"),
    ("wide", (1, 2, 5, 150), (0.7, 4.0), "odd"),
    ("tall", (2, 1, 70, 17), (9.0, 1.0), "odd"),
    ("beyond", (1, 3, 8, 33), 200.0, ""),
    ("narrow", (1, 3, 8, 65), 0.05, ""),
    ("row", (1, 2, 1, 64), 2.0, ""),
    ("column", (1, 2, 40, 1), 2.0, ""),
    ("pixel", (2, 3, 1, 1), 3.0, "degenerate"),
    ("no_rows", (2, 3, 0, 5), 3.0, "degenerate"),
    ("no_batch", (0, 3, 4, 5), 3.0, "degenerate"),
)


def _gaussian_rows() -> Iterator[Case]:
    op = "gaussian_filter_2d"
    for name, shape, sigma, tag in MAPS:
        yield row(name, smoothed(shape, sigma, "symmetric"), tag, op=op)
    for mode in NORMALIZATIONS:
        yield row(mode, smoothed((1, 2, 6, 21), (1.0, 2.0), mode), op=op)
    yield row("lattice", smoothed((2, 3, 7, 12), (1.0, 2.0), "after", method="lattice"), "odd", op=op)
    yield row("voc", smoothed((1, 21, 512, 512), 3.0, "symmetric"), "bench", "paper", "heavy", op=op)


CASES: tuple[Case, ...] = (*_rows(), *_gaussian_rows())
