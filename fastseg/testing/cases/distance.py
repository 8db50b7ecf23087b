"""Rows of distance transforms, surface distances and point sets."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import INTEGERS, Case, Inputs
from ..layouts import with_layout
from ..rivals import distance as rivals
from ..signals import generator, labels

Make = Callable[[int, torch.dtype, str, str], Inputs]
Shape = tuple[int, ...]
# Name, shape, spatial dimensions, tag. Strips have 16 columns; runs of fewer elements are copied by another loop.
GEOMETRY: tuple[tuple[str, Shape, int, str], ...] = (
    ("square", (2, 13, 37), 2, "smoke"),
    ("volume", (2, 5, 9, 33), 3, "smoke"),
    ("classes", (2, 3, 17, 16), 2, "odd"),
    ("wide", (1, 3, 150), 2, "odd"),
    ("tall", (1, 150, 3), 2, ""),
    ("deep", (40, 3, 18), 3, "odd"),
    ("row", (1, 1, 67), 2, ""),
    ("column", (67, 1), 2, ""),
    ("pixel", (3, 1, 1), 2, ""),
    ("no_batch", (0, 4, 5), 2, "degenerate"),
    ("no_pixels", (2, 0, 5), 2, "degenerate"),
)


def blobs(shape: Shape, scale: int, seed: int) -> Tensor:
    """Smooth noise in float64 whose zero set has bumps of about `scale` elements."""
    coarse = torch.randn(1, 1, *(n // scale + 2 for n in shape), generator=generator(seed), dtype=torch.float64)
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    return F.interpolate(coarse, size=shape, mode=mode, align_corners=True)[0, 0]


def _mask(shape: Shape, kind: str, seed: int) -> Tensor:
    """Of bytes: `noise`, a tenth zeros; `sparse`, one zero in a hundred; `dense`, half zeros; `ones`; `zeros`."""
    share = {"noise": 0.1, "sparse": 0.01, "dense": 0.5, "ones": 0.0, "zeros": 1.0}[kind]
    return (torch.rand(shape, generator=generator(seed)) >= share).to(torch.uint8)


def transform(shape: Shape, dims: int, kind: str = "noise", **options: Any) -> Make:
    """Arguments (mask) and the options; masks hold some number that is not zero, and labels are from a few."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        if options.get("labels"):
            x = labels(tuple((n + 3) // 4 for n in shape), 3, dtype, seed)
            for dim in range(len(shape)):
                x = x.repeat_interleave(4, dim).narrow(dim, 0, shape[dim])
        else:
            x = (_mask(shape, kind, seed) * 200).to(dtype)  # bytes with their high bit
        given = options if "spacing" in options else dict(options, spatial_dims=dims)
        return (with_layout(x.to(device), layout),), dict(given)

    return make


def far(shape: Shape, place: Shape, **options: Any) -> Make:
    """One zero, from which most elements are so far that lines are done by their envelope."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        x = torch.ones(shape, dtype=dtype)
        x[place] = 0
        return (with_layout(x.to(device), layout),), dict(options, spatial_dims=len(shape))

    return make


def halves(shape: Shape, **options: Any) -> Make:
    """Two labels that meet in a slanted line, far from most elements."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        y, x = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
        labels = (x + y // 3 > shape[1] * 2 // 3).to(dtype)
        return (with_layout(labels.to(device), layout),), dict(options, labels=True, spatial_dims=2)

    return make


def objects(shape: Shape, dims: int, shares: tuple[float, float] = (0.5, 0.5), **options: Any) -> Make:
    """Arguments (prediction, target), masks of noise or, with `classes`, labels, and the options."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        if "classes" in options:
            pair = [labels(shape, 4, dtype, seed + i) for i in range(2)]
        else:
            pair = [
                (torch.rand(shape, generator=generator(seed + i)) < share).to(dtype) for i, share in enumerate(shares)
            ]
        given = options if "spacing" in options else dict(options, spatial_dims=dims)
        return tuple(with_layout(x.to(device), layout) for x in pair), dict(given)

    return make


def apart(**options: Any) -> Make:
    """Two objects whose boundaries are further from each other than the first tries reach."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        pair = torch.zeros(2, 200, 150, dtype=dtype)
        pair[0, 3:20, 2:30] = pair[1, 5:20, 2:30] = pair[1, 180:190, 100:140] = 1
        # What 16 steps find is 20 away; 17 steps down there is something nearer.
        pair[0, 100, 50] = pair[1, 100, 70] = pair[1, 117, 50] = 1
        return tuple(with_layout(x.to(device), layout) for x in pair), dict(options)

    return make


def points(n: int, m: int, dims: int, batch: tuple[int, ...] = (), *, whole: bool = False) -> Make:
    """Arguments (points_a, points_b), normal noise, or whole numbers, of which many are equal."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        pair = [torch.randn(*batch, k, dims, generator=generator(seed + i)).to(dtype) for i, k in enumerate((n, m))]
        if whole:
            pair = [(2 * x).round() for x in pair]
        return (*(with_layout(x.to(device), layout) for x in pair),), {"return_indices": True}

    return make


def cells(shape: Shape, count: int, classes: int, seed: int, moved: float = 0.0) -> Tensor:
    """Bytes: classes of the nearest of so many random places, each of them moved a bit."""
    at = torch.rand(count, len(shape), generator=generator(seed)) * torch.tensor(shape)
    at += moved * torch.randn(at.shape, generator=generator(seed + 1))
    grid = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in shape))
    nearest = torch.cat([torch.cdist(part, at).argmin(1) for part in grid.split(1 << 20)])
    return nearest.remainder(classes).to(torch.uint8).view(shape)


def volumes(shape: Shape, kind: str, **options: Any) -> Make:
    """The mask of a timed row, always bytes: `blobs` as an organ has them, `noise`, or so many `labels`."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        if kind == "noise":
            x = _mask(shape, "dense", seed)
        elif kind == "labels":
            x = cells(shape, 100, 100, seed)
        else:
            x = (blobs(shape, 64, seed) > 0).to(torch.uint8)
        given = options if "spacing" in options else dict(options, spatial_dims=len(shape))
        return (x.to(device),), dict(given)

    return make


def segmentations(shape: Shape, classes: int = 1, **options: Any) -> Make:
    """Prediction and target of a timed row: a mask, or labels of so many classes, and the same a bit wrong."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        given = dict(options, metrics=["hd95", "assd", "surface_dice"], tolerance=2.0)
        if "spacing" not in given:
            given["spatial_dims"] = len(shape)
        if classes > 1:
            given["classes"] = list(range(classes))
            pair = [cells(shape, max(classes, 60), classes, seed, moved) for moved in (1.5, 0.0)]
        else:
            target = blobs(shape, 64, seed)
            pair = [(x > 0.3).to(torch.uint8) for x in (target + 0.15 * blobs(shape, 32, seed + 7), target)]
        return tuple(x.to(device) for x in pair), given

    return make


def _transforms() -> Iterator[Case]:
    def row(id: str, make: Make, *tags: str) -> Case:
        return Case("distance_transform", id, make, tags=frozenset(filter(None, tags)), dtypes=INTEGERS)

    for name, shape, dims, tag in GEOMETRY:
        spacing = (2.5, 1.0, 0.75)[3 - dims :]
        yield row(name, transform(shape, dims), tag)
        yield row(f"{name}_spacing", transform(shape, dims, spacing=spacing))
        yield row(f"{name}_labels", transform(shape, dims, labels=True), "odd" if tag == "smoke" else "")
        yield row(f"{name}_indices", transform(shape, dims, return_indices=True), "odd" if tag == "smoke" else "")
    shape = (2, 19, 35)
    for kind in ("sparse", "dense", "ones", "zeros"):
        yield row(f"{kind}_pixels", transform(shape, 2, kind), "degenerate" if kind in ("ones", "zeros") else "")
        yield row(f"{kind}_pixels_indices", transform(shape, 2, kind, return_indices=True, spacing=(1.0, 2.0)))
    for metric in ("taxicab", "chessboard"):
        for name, options in (("", {}), ("_spacing", {"spacing": (1.5, 0.5)}), ("_labels", {"labels": True})):
            yield row(f"{metric}{name}", transform(shape, 2, "sparse", metric=metric, **options))
        yield row(f"{metric}_indices", transform(shape, 2, "sparse", metric=metric, return_indices=True))
    for signed in ("symmetric", "kervadec"):
        yield row(signed, transform(shape, 2, "dense", signed=signed), "odd")
        yield row(f"{signed}_ones", transform(shape, 2, "ones", signed=signed), "degenerate")
    yield row("squared", transform(shape, 2, "sparse", squared=True))
    yield row("float64", transform(shape, 2, "sparse", dtype=torch.float64))
    yield row("float64_spacing", transform((9, 8, 17), 3, "sparse", spacing=(3.0, 0.3, 1.1), dtype=torch.float64))
    yield row("labels_indices", transform(shape, 2, labels=True, return_indices=True), "odd")
    yield row("labels_spacing_indices", transform(shape, 2, labels=True, return_indices=True, spacing=(1.5, 1.0)))
    yield row("far", far((300, 18), (290, 1)), "odd")
    yield row("far_squared", far((300, 18), (0, 17), squared=True, dtype=torch.float64))
    yield row("far_spacing", far((300, 18), (290, 1), spacing=(2.0, 0.5)))
    yield row("far_indices", far((300, 18), (150, 4), return_indices=True))
    yield row("far_labels", halves((250, 340)), "odd")
    for name, make in (
        ("blobs_256", volumes((256, 256, 256), "blobs")),
        ("anisotropic_256", volumes((256, 256, 256), "blobs", spacing=(2.5, 1.0, 1.0))),
        ("blobs_512x100", volumes((100, 512, 512), "blobs")),
        ("anisotropic_512x100", volumes((100, 512, 512), "blobs", spacing=(2.5, 0.8, 0.8))),
        ("blobs_1024x2048", volumes((1024, 2048), "blobs")),
        ("noise_4096", volumes((4096, 4096), "noise")),
        ("labels_256", volumes((256, 256, 256), "labels", labels=True)),
    ):
        tags = frozenset({"bench", "heavy"})
        yield Case("distance_transform", name, make, tags=tags, oracle=rivals.scipy_transform)


def instances(shape: Shape, dims: int, count: int = 4, **options: Any) -> Make:
    """Arguments (instances), blocks of so many labels of which about two thirds are background, and the options."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        x = labels(tuple((n + 2) // 3 for n in shape), 3 * max(count, 1), dtype, seed)
        x.masked_fill_(x > count, 0)
        for dim in range(len(shape)):
            x = x.repeat_interleave(3, dim).narrow(dim, 0, shape[dim])
        given = options if "spacing" in options else dict(options, spatial_dims=dims)
        return (with_layout(x.to(device), layout),), dict(given)

    return make


def _instances() -> Iterator[Case]:
    def row(id: str, make: Make, *tags: str) -> Case:
        return Case("instance_distances", id, make, tags=frozenset(filter(None, tags)), dtypes=INTEGERS)

    for name, shape, dims, tag in GEOMETRY:
        yield row(name, instances(shape, dims), tag)
        yield row(f"{name}_spacing", instances(shape, dims, spacing=(2.5, 1.0, 0.75)[3 - dims :]))
    yield row("one", instances((2, 19, 35), 2, 1), "degenerate")
    yield row("none", instances((2, 19, 35), 2, 0), "degenerate")
    yield row("many", instances((60, 50), 2, 100))


def _surfaces() -> Iterator[Case]:
    def row(id: str, make: Make, *tags: str) -> Case:
        return Case("surface_distances", id, make, tags=frozenset(filter(None, tags)), dtypes=INTEGERS)

    for name, shape, dims, tag in GEOMETRY:
        spacing = (2.5, 1.0, 0.75)[3 - dims :]
        yield row(name, objects(shape, dims), tag)
        yield row(f"{name}_dual", objects(shape, dims, boundary="dual", spacing=spacing), tag.replace("smoke", "odd"))
        yield row(f"{name}_classes", objects(shape, dims, classes=[2, 0, 7]))
    yield row("sparse", objects((2, 40, 50), 2, (0.01, 0.02)), "odd")
    yield row("no_prediction", objects((3, 9, 17), 3, (0.0, 0.3)), "degenerate")
    yield row("nothing", objects((9, 17), 2, (0.0, 0.0), boundary="dual"), "degenerate")
    yield row("everything", objects((9, 17), 2, (1.0, 1.0)), "degenerate")
    yield row("apart", apart(spatial_dims=2), "odd")
    yield row("apart_spacing", apart(spacing=(1.5, 0.5)))
    options: dict[str, Any] = {"metrics": ["hd", "hd95", "asd", "assd", "surface_dice"], "tolerance": 1.0}
    area: dict[str, Any] = {"boundary": "dual", "convention": "area_weighted", "spacing": (2, 1, 1)}
    for name, make in (
        ("square", objects((2, 13, 37), 2, **options)),
        ("pooled_classes", objects((2, 13, 17), 2, convention="pooled", classes=[2, 0, 7], empty=50.0, **options)),
        (
            "dual_volume",
            objects((5, 9, 33), 3, **area, **options),
        ),
    ):
        yield Case("surface_metrics", name, make, tags=frozenset({"smoke"}), dtypes=INTEGERS)
    for name, make in (
        ("mask_256", segmentations((256, 256, 256))),
        ("ct_118", segmentations((30, 101, 122), 118, spacing=(2.0, 1.0, 1.0))),
        ("street_19", segmentations((1024, 2048), 19)),
    ):
        tags = frozenset({"bench", "heavy"})
        yield Case("surface_metrics", name, make, tags=tags, oracle=rivals.scipy_metrics)


def _points() -> Iterator[Case]:
    def row(id: str, make: Make, *tags: str) -> Case:
        chosen = frozenset(filter(None, tags))
        return Case("directed_hausdorff", id, make, tags=chosen, dtypes=(torch.float32, torch.float64))

    yield row("square", points(37, 41, 2, (2,)), "smoke")
    for dims in (1, 3, 8):
        yield row(f"dims{dims}", points(150, 170, dims), "odd" if dims == 3 else "")
    yield row("batch", points(20, 1, 3, (2, 2)))
    yield row("leaves", points(1000, 16 * 7 + 3, 3), "odd")
    yield row("whole", points(40, 60, 2, (16,), whole=True), "degenerate")
    yield row("no_points", points(0, 5, 3), "degenerate")
    yield row("nothing_to_measure_to", points(4, 0, 3, (2,)), "degenerate")
    yield Case("directed_hausdorff", "sets_100k", points(100_000, 100_000, 3), tags=frozenset({"bench", "heavy"}),
               oracle=partial(rivals.kd_tree))  # fmt: skip


# The sizes of their results depend on values, so that they cannot be called without.
DATA_SIZED = ("surface_distances", "surface_metrics")
CASES: tuple[Case, ...] = (*_transforms(), *_instances(), *_surfaces(), *_points())
