"""Distances by the libraries that people use for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from ... import backend, ops


def _plain(op: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with backend("reference"):
            return getattr(ops, op)(*args, **kwargs)

    return call


def _spacing(x: Tensor, options: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(options.get("spacing") or (1.0,) * x.dim())


def scipy_transform(mask: Tensor, **options: Any) -> Tensor:
    """`scipy.ndimage.distance_transform_edt` of a mask."""
    from scipy import ndimage

    if options.get("labels"):
        return _of_each_label(mask, options)
    found = ndimage.distance_transform_edt(mask.numpy(), sampling=_spacing(mask, options))
    return torch.from_numpy(found).float()


def _of_each_label(mask: Tensor, options: Mapping[str, Any]) -> Tensor:
    """In its box and one element around: beyond there is nothing nearer."""
    from scipy import ndimage

    found, x = numpy.empty(mask.shape, numpy.float32), mask.numpy()
    for label, box in enumerate(ndimage.find_objects(x.astype(numpy.int32) + 1)):
        if box is not None:
            around = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
            own = x[around] == label
            distance = ndimage.distance_transform_edt(own, sampling=_spacing(mask, options))
            found[around][own] = distance[own]
    return torch.from_numpy(found)


def edt_transform(mask: Tensor, **options: Any) -> Tensor:
    """`edt.edt`, which knows labels; background, 0 there, counts as one more."""
    import edt

    x = mask.numpy() + numpy.uint8(1) if options.get("labels") else mask.numpy()
    threads = torch.get_num_threads()
    return torch.from_numpy(edt.edt(x, anisotropy=_spacing(mask, options), black_border=False, parallel=threads))


def _pairs(prediction: Tensor, target: Tensor, options: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    a, b = prediction.numpy(), target.numpy()
    return [(a == c, b == c) for c in options["classes"]] if "classes" in options else [(a != 0, b != 0)]


def _gather(rows: Sequence[tuple[float, ...]]) -> dict[str, Tensor]:
    columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
    named = dict(zip(("hd95", "assd", "surface_dice"), columns, strict=True))
    return {name: column[0] if len(rows) == 1 else column for name, column in named.items()}


def scipy_metrics(prediction: Tensor, target: Tensor, **options: Any) -> dict[str, Tensor]:
    """HD95, ASSD and surface Dice of inner boundaries from SciPy's erosions and distance transforms."""
    from scipy import ndimage

    spacing, rows = _spacing(prediction, options), []
    for pair in _pairs(prediction, target, options):
        edges = [x & ~ndimage.binary_erosion(x) for x in pair]
        if not edges[0].any() or not edges[1].any():
            none = edges[0].any() == edges[1].any()
            rows.append((numpy.nan,) * 3 if none else (numpy.inf, numpy.inf, 0.0))
            continue
        lists = [ndimage.distance_transform_edt(~edges[1 - i], sampling=spacing)[edges[i]] for i in range(2)]
        both = numpy.concatenate(lists)
        rows.append((max(numpy.percentile(d, 95) for d in lists), both.mean(), (both <= options["tolerance"]).mean()))
    return _gather(rows)


def medpy_metrics(prediction: Tensor, target: Tensor, **options: Any) -> dict[str, Tensor]:
    """MedPy's hd95, of both lists together, and assd; it has no surface Dice."""
    from medpy.metric import binary

    spacing, rows = _spacing(prediction, options), []
    for a, b in _pairs(prediction, target, options):
        if a.any() and b.any():
            rows.append((binary.hd95(a, b, spacing), binary.assd(a, b, spacing), numpy.nan))
        else:
            rows.append((numpy.nan,) * 3)
    return _gather(rows)


def surface_distance_metrics(prediction: Tensor, target: Tensor, **options: Any) -> dict[str, Tensor]:
    """DeepMind's surface-distance, of the dual boundary; both average distances become one."""
    import surface_distance as deepmind

    spacing, rows = _spacing(prediction, options), []
    for a, b in _pairs(prediction, target, options):
        if not a.any() or not b.any():  # where its release uses a name that NumPy 2 dropped
            rows.append((numpy.nan,) * 3)
            continue
        found = deepmind.compute_surface_distances(a, b, spacing)
        dice = deepmind.compute_surface_dice_at_tolerance(found, options["tolerance"])
        average = numpy.mean(deepmind.compute_average_surface_distance(found))
        rows.append((deepmind.compute_robust_hausdorff(found, 95), average, dice))
    return _gather(rows)


def monai_metrics(prediction: Tensor, target: Tensor, **options: Any) -> dict[str, Tensor]:
    """MONAI's three functions, of one-hot masks [1, C, ...]."""
    from monai import metrics

    pairs = _pairs(prediction, target, options)
    a, b = (torch.from_numpy(numpy.stack([pair[side] for pair in pairs]))[None] for side in range(2))
    given: dict[str, Any] = {"spacing": _spacing(prediction, options), "include_background": True}
    hd = metrics.compute_hausdorff_distance(a, b, percentile=95, **given)[0]
    average = metrics.compute_average_surface_distance(a, b, symmetric=True, **given)[0]
    dice = metrics.compute_surface_dice(a, b, [options["tolerance"]] * a.shape[1], **given)[0]
    columns = {"hd95": hd, "assd": average, "surface_dice": dice}
    return {name: x.double()[0] if len(pairs) == 1 else x.double() for name, x in columns.items()}


def kd_tree(points_a: Tensor, points_b: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """SciPy's k-d tree, asked for every point."""
    from scipy.spatial import cKDTree

    found, nearest = cKDTree(points_b.numpy()).query(points_a.numpy(), workers=torch.get_num_threads())
    at = int(found.argmax())
    return torch.tensor(found[at], dtype=points_a.dtype), torch.tensor([at, int(nearest[at])])


def scipy_hausdorff(points_a: Tensor, points_b: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """`scipy.spatial.distance.directed_hausdorff`."""
    from scipy.spatial.distance import directed_hausdorff

    distance, a, b = directed_hausdorff(points_a.numpy(), points_b.numpy())
    return torch.tensor(distance, dtype=points_a.dtype), torch.tensor([a, b])


PLAIN: Mapping[str, Callable[..., Any]] = {
    op: _plain(op) for op in ("distance_transform", "surface_metrics", "directed_hausdorff")
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "distance_transform": {"edt": edt_transform, "scipy": scipy_transform},
    "surface_metrics": {
        "medpy": medpy_metrics,
        "monai": monai_metrics,
        "surface_distance": surface_distance_metrics,
    },
    "directed_hausdorff": {"scipy": scipy_hausdorff, "scipy.spatial": kd_tree},
}
# Nobody takes plain PyTorch for these.
BY_LIBRARY = ("distance_transform", "surface_metrics", "directed_hausdorff")
# They take masks and labels as they are, and not as int64.
AS_GIVEN = BY_LIBRARY
# The same job by another convention: other numbers, which are compared by tests.
OTHER_NUMBERS = {"surface_metrics": ("medpy", "surface_distance")}
