"""Rows of the dense CRF: filters with Gaussian kernels."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...reference.dense_crf_lattice import NORMALIZATIONS
from ..case import Case, Inputs
from ..data_errors import DataError
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
KINDS = ("constant", "whole", "black", "image", "lone", "wide", "faces")
BENCH = ((80.0, 13.0), (67.0, 3.0))


def features_of(kind: str, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Features [N, d, P]: clouds (`noise`), ties between simplices (`whole`, `constant`, `black`, `faces`), pixels and
    their colours (`image`), points that share no vertex (`lone`), keys of many digits (`wide`)."""
    n, d, points = shape
    noise = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    if kind == "constant":
        return noise[..., :1].expand(shape).clone()
    if kind == "whole":
        return (2 * noise).round()
    if kind == "faces":  # whole steps of what the lattice scales features to
        i = torch.arange(1, d + 1, dtype=torch.float64)
        return (3 * noise).round() / ((d + 1) * (2 / 3) ** 0.5 / (i * (i + 1)).sqrt())[:, None]
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


def pictures(n: int, size: int, seed: int) -> Tensor:
    """Smooth pictures with some noise, in grey levels."""
    rough = torch.rand(n, 3, 6, 6, generator=generator(seed), dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(rough, (size, size), mode="bicubic").clamp(0, 1) * 255
    noise = torch.randn(smooth.shape, generator=generator(seed + 1), dtype=torch.float64)
    return (smooth + 0.5 * noise).round().clamp(0, 255)


def photo(channels: int, sigma: float, color_sigma: float) -> Make:
    """Features of 512 x 512 pixels of a smooth picture with some noise: 16,406 vertices at deviations of 80 pixels
    and 13 grey levels, 260,222 at 67 and 3."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        values = logits((1, channels, 512, 512), "noise", seed).flatten(2)
        picture = pictures(1, 512, seed)
        at = torch.arange(512, dtype=torch.float64) / sigma
        place = torch.stack([at.expand(512, 512), at[:, None].expand(512, 512)])[None]
        features = torch.cat([place, picture / color_sigma], 1).flatten(2)
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
            tag = "degenerate" if kind in ("constant", "whole") else "odd" if kind == "faces" else ""
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


# Name, N, C, d, P, tag. 64 points meet a vector of others at a time, with 4 channels, of up to 32 in a chunk.
PAIRS: tuple[tuple[str, int, int, int, int, str], ...] = (
    ("square", 2, 5, 3, 70, "smoke"),
    ("one_channel", 1, 1, 2, 19, "odd"),
    ("c33", 1, 33, 4, 65, "odd"),
    ("c70", 1, 70, 1, 33, ""),
    ("d12", 1, 9, 12, 128, ""),
    ("point", 2, 3, 5, 1, "degenerate"),
    ("no_points", 2, 3, 5, 0, "degenerate"),
    ("no_batch", 0, 3, 5, 7, "degenerate"),
)


def _pair_rows() -> Iterator[Case]:
    for name, n, channels, d, points, tag in PAIRS:
        made = filtered(n, channels, d, points, mode="none")
        tags = frozenset(filter(None, [tag]))
        yield Case("gaussian_filter", name, made, (0, 1), tags, DTYPES, terms=points_of, summands=points_of)
    for mode in NORMALIZATIONS:
        yield row(mode, filtered(2, 3, 3, 40, mode=mode), "odd" if mode == "after" else "", op="gaussian_filter")


# Name, (N, C, size), F, iterations, options, tag. Tiles of pixels are 16 high and 32 wide, and cut into 512 points.
FIELDS: tuple[tuple[str, tuple[int, ...], int, int, dict[str, Any], str], ...] = (
    ("square", (2, 5, 9, 11), 3, 2, {"include_self": False}, "smoke"),
    ("tiles", (1, 3, 35, 70), 3, 3, {}, "odd"),
    ("on_lattices", (1, 4, 20, 37), 3, 3, {"spatial": "lattice"}, "odd"),
    ("exact", (2, 3, 8, 13), 2, 3, {"bilateral": "exact"}, "odd"),
    ("with_self", (1, 6, 18, 33), 3, 3, {}, "odd"),
    ("without_self_on_lattices", (1, 5, 17, 19), 1, 3, {"include_self": False, "spatial": "lattice"}, ""),
    ("without_self_exact", (2, 4, 6, 9), 3, 3, {"include_self": False, "bilateral": "exact"}, ""),
    ("labels_33", (1, 33, 10, 12), 3, 2, {}, ""),
    ("labels_70", (1, 70, 6, 9), 3, 2, {"include_self": False, "bilateral": "exact"}, ""),
    ("sharp", (1, 40, 6, 9), 3, 2, {"energy": 100.0}, ""),
    ("labels_24", (1, 24, 9, 10), 3, 2, {"spatial": "lattice"}, ""),
    ("labels_8", (1, 8, 7, 34), 2, 2, {}, ""),
    ("labels_2", (2, 2, 33, 17), 3, 3, {}, ""),
    ("one_label", (1, 1, 7, 8), 3, 2, {}, "degenerate"),
    ("volume", (2, 3, 4, 6, 7), 1, 2, {"spatial_sigma": (0.8, 1.5, 2.0)}, "odd"),
    ("volume_on_lattices", (1, 2, 3, 5, 9), 1, 2, {"spatial": "lattice"}, ""),
    ("row", (1, 3, 1, 90), 3, 2, {}, ""),
    ("column", (1, 3, 90, 1), 3, 2, {}, ""),
    ("pixel", (2, 3, 1, 1), 3, 2, {"include_self": False}, "degenerate"),
    ("far", (1, 3, 6, 40), 1, 2, {"spatial_sigma": 30.0}, ""),
    ("near", (1, 3, 21, 40), 1, 2, {"spatial_sigma": 0.05}, ""),
    ("no_iterations", (1, 3, 6, 7), 3, 0, {}, "degenerate"),
    ("no_rows", (1, 3, 0, 7), 3, 2, {}, "degenerate"),
    ("no_batch", (0, 3, 6, 7), 3, 2, {}, "degenerate"),
)


def field(
    shape: tuple[int, ...], features: int, iterations: int, full: bool = False, energy: float = 1.0, **options: Any
) -> Make:
    """Arguments (energies of this deviation, image), and weights that leave logits of some units."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        n, labels, *size = shape
        noise = torch.randn(shape, generator=generator(seed), dtype=torch.float64) * energy
        image = torch.rand(n, features, *size, generator=generator(seed + 1), dtype=torch.float64) * 3
        scale = 0.05 if options.get("normalization") == "none" else 1.0
        kwargs = {"spatial_sigma": 1.5, "bilateral_sigma_xy": 6.0, "bilateral_sigma_color": 0.8, "output": "logits"}
        kwargs |= {"spatial_weight": 1.5 * scale, "bilateral_weight": 2.0 * scale, "iterations": iterations}
        if full:
            table = torch.randn(labels, labels, generator=generator(seed + 2), dtype=torch.float64) / labels**0.5
            kwargs["compatibility"] = table.to(dtype=dtype, device=device)
        tensors = tuple(x.to(dtype=dtype, device=device) for x in (noise, image))
        laid_out = layout if len(size) == 2 else "contiguous"
        return tuple(with_layout(x, laid_out) for x in tensors), kwargs | options

    return make


def portrait(labels: int, sigma: float, color_sigma: float, weight: float, iterations: int, **options: Any) -> Make:
    """512 x 512 pixels of a smooth picture with some noise, as `photo` has them; scores as a network's."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        n, size = options.get("n", 1), options.get("size", 512)
        unary = -logits((n, labels, size, size), "smooth", seed).log_softmax(1)
        tensors = [x.to(dtype=dtype, device=device) for x in (unary, pictures(n, size, seed + 1))]
        kwargs: dict[str, Any] = {"iterations": iterations, "spatial_sigma": 3.0, "spatial_weight": 3.0}
        kwargs |= {"bilateral_sigma_xy": sigma, "bilateral_sigma_color": color_sigma, "bilateral_weight": weight}
        kwargs["spatial"] = "lattice"  # as the rivals have it
        return tuple(with_layout(x, layout) for x in tensors), kwargs

    return make


def _field_rows() -> Iterator[Case]:
    def field_row(name: str, make: Make, *tags: str, grad: tuple[int | str, ...] = (0,)) -> Case:
        chosen = frozenset(filter(None, tags))
        # The gradient multiplies by matrices, and adds up in torch; test_mean_field.py compares threads' results.
        sums: dict[str, Any] = {"terms": points_of, "summands": points_of, "pixels": lambda _: 1, "gemm": bool(grad)}
        return Case("dense_crf", name, make, grad, chosen, DTYPES, **sums)

    for name, shape, features, iterations, options, tag in FIELDS:
        yield field_row(name, field(shape, features, iterations, **options), tag)
    for mode in NORMALIZATIONS:
        yield field_row(mode, field((1, 3, 7, 9), 3, 2, normalization=mode), "odd" if mode == "before" else "")
    for name, extra in {"": {}, "_without_self": {"include_self": False}}.items():
        for labels in (4, 40):
            made = field((1, labels, 6, 20), 2, 2, full=True, bilateral="exact", **extra)
            yield field_row(f"matrix_{labels}{name}", made, "odd" if not extra else "", grad=(0, "compatibility"))
    yield field_row("probabilities", field((2, 5, 6, 7), 3, 2, output="probabilities"), "odd")
    yield field_row("kept", field((1, 3, 6, 7), 3, 2, recompute=False), "")
    yield field_row("by_image", field((1, 3, 4, 5), 2, 2, bilateral="exact"), "", grad=(0, 1))
    yield field_row("labels", field((2, 5, 20, 40), 3, 2, output="labels"), "odd", grad=())
    yield field_row("labels_tied", field((1, 5, 4, 6), 3, 2, energy=0.0, output="labels"), "degenerate", grad=())
    for name, make in {
        "voc_80_13": portrait(21, 80.0, 13.0, 10.0, 10),
        "built_80_13": portrait(1, 80.0, 13.0, 10.0, 1),  # what one label costs on both lattices is building them
        "voc_67_3": portrait(21, 67.0, 3.0, 4.0, 5),
        "binary_80_13": portrait(2, 80.0, 13.0, 10.0, 10),
        "batch_80_13": portrait(21, 80.0, 13.0, 10.0, 10, n=8, size=321),
    }.items():
        yield field_row(name, make, "bench", "paper", "heavy")


CASES: tuple[Case, ...] = (*_rows(), *_gaussian_rows(), *_pair_rows(), *_field_rows())


def _unfit(device: str, value: float) -> Callable[[], Tensor]:
    """Features of which the second sample has this value at two places."""
    features = features_of("noise", (2, 3, 40), 0)
    features[1, 1, 7] = features[1, 2, 3] = value
    given = features.float().to(device)
    return lambda: ops.permutohedral_filter(torch.ones(2, 4, 40, device=device), given)


def _far(device: str, value: float) -> Callable[[], Tensor]:
    """Features of which the second sample lies this far from zero, all of it."""
    features = features_of("noise", (2, 3, 40), 0)
    features[1] += value
    given = features.float().to(device)
    return lambda: ops.permutohedral_filter(torch.ones(2, 4, 40, device=device), given)


def _far_at(point: int, axes: int = 1) -> Callable[[str, float], Callable[[], Tensor]]:
    """Features of which a point lies this far from the others, along all axes."""

    def make(device: str, value: float) -> Callable[[], Tensor]:
        features = features_of("noise", (2, axes, 600), 0)
        features[1, :, point] = value
        given = features.float().to(device)
        return lambda: ops.permutohedral_filter(torch.ones(2, 4, 600, device=device), given)

    return make


def _unsound(op: str, part: int, place: tuple[int, ...]) -> Callable[[str, int], Callable[[], Tensor]]:
    """A state whose second sample has this, counted from how many vertices there are, as one of its indices."""

    def make(device: str, value: int) -> Callable[[], Tensor]:
        features = features_of("noise", (2, 3, 40), 0).float().to(device)
        state = [one.clone() for one in torch.ops.fastseg.permutohedral_lattice(features)]
        state[part][place] = state[3][1] + value
        if op == "permutohedral_diagonal":
            return lambda: torch.ops.fastseg.permutohedral_diagonal(*state)
        return lambda: torch.ops.fastseg.permutohedral_apply(torch.ones(2, 4, 40, device=device), *state, False)

    return make


def _unfit_image(bilateral: str) -> Callable[[str, float], Callable[[], Tensor]]:
    """Images of which the second one has this value at two places."""

    def make(device: str, value: float) -> Callable[[], Tensor]:
        image = torch.rand(2, 1, 5, 8, generator=generator(0))
        image[1, 0, 0, 7] = image[1, 0, 2, 3] = value
        unary, given = torch.zeros(2, 4, 5, 8, device=device), image.to(device)
        # Without sums of rows nothing else spreads what is not finite.
        return lambda: ops.dense_crf(unary, given, iterations=1, bilateral=bilateral, normalization="none")

    return make


def _second(*size: int) -> Callable[[], Tensor]:
    return lambda: torch.stack([torch.zeros(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool)])


UNFIT = math.nan, math.inf, -math.inf
DATA_ERRORS = (
    DataError("features", "features", _unfit, UNFIT, 0.5, (1, 1, 7), _second(4, 40)),
    DataError("far", "features", _far, (1e15, -3e38), 0.5, (), _second(4, 40)),
    DataError("far_apart", "features", _far_at(7), (1e14, -1e14), 0.5, (), _second(4, 600)),
    DataError("too_many_cells", "features", _far_at(7, 3), (1e8, -1e8), 0.5, (), _second(4, 600)),
    DataError("far_at_the_end", "features", _far_at(599), (1e14, -1e14), 0.5, (), _second(4, 600)),
    *(
        DataError(
            f"{name}_{op}",
            "vertices, neighbours and count",
            _unsound(f"permutohedral_{op}", *where),
            values,
            right,
            (),
            _second(*((40,) if op == "diagonal" else (4, 40))),
        )
        for op in ("apply", "diagonal")
        for name, where, values, right in (
            ("vertices", (0, (1, 39, 3)), (0, -(10**6)), -1),
            ("before", (2, (1, 3, 2, 0)), (1, -(10**6)), 0),
            ("behind", (2, (1, 3, 2, 1)), (1, -(10**6)), 0),
            ("count", (3, (1,)), (10**9, -(10**9)), 0),
        )
    ),
    *(
        DataError(f"image_{name}", "image", _unfit_image(name), UNFIT, 0.5, (1, 2, 7), _second(4, 5, 8))
        for name in ("lattice", "exact")
    ),
)
