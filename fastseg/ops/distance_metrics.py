"""Hausdorff and surface distances of objects, each measured once for all that is asked."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

from torch import Tensor

from . import distance_lists as reduction
from .arguments import checked_choice, checked_float
from .distance_lists import Empty, EmptyCounts
from .distance_surfaces import surface_distances

CONVENTIONS = ("max_of_directed", "pooled", "area_weighted")
METRICS = ("hd", "hd95", "asd", "assd", "masd", "surface_dice")
Convention = Literal["max_of_directed", "pooled", "area_weighted"]


class SurfaceMetrics(NamedTuple):
    """Values of each metric, float64 [...], and how many of them the policy on empty objects decided."""

    values: dict[str, Tensor]
    empty: EmptyCounts


def _checked_percentile(op: str, percentile: Any) -> float:
    percentile = checked_float(op, "percentile", percentile)
    if not 0 <= percentile <= 100:
        raise ValueError(f"fastseg::{op}: percentile must be from 0 to 100, got {percentile}")
    return percentile


def _chosen(op: str, name: Any, convention: str, tolerance: float | None) -> Callable[[Any, Any], Tensor]:
    if isinstance(name, str) and name.startswith("hd"):
        try:
            percentile = float(name[2:] or 100)
        except ValueError:
            percentile = math.nan
        if 0 <= percentile <= 100:
            return reduction.hausdorff(percentile, convention, False)
    if name == "surface_dice":
        if not isinstance(tolerance, Real) or not float(tolerance) >= 0:
            raise ValueError(f"fastseg::{op}: tolerance must be a distance of at least 0, got {tolerance!r}")
        return reduction.surface_dice(float(tolerance))
    plain = {"asd": reduction.asd, "assd": reduction.assd, "masd": reduction.masd}
    if name not in plain:
        raise ValueError(f"fastseg::{op}: metrics must be among {', '.join(METRICS)} (hd with any percentile), "
                         f"got {name!r}")  # fmt: skip
    return plain[name]


def surface_metrics(
    prediction: Tensor,
    target: Tensor,
    metrics: Sequence[str] = METRICS[:1],
    *,
    spatial_dims: int | None = None,
    spacing: Sequence[float] | None = None,
    boundary: Literal["inner", "dual"] = "inner",
    convention: Convention = "max_of_directed",
    tolerance: float | None = None,
    empty: Empty = "default",
    classes: Sequence[int] | None = None,
) -> SurfaceMetrics:
    r"""Compute several surface metrics from distances that are measured once.

    With the lists :math:`d_A` and :math:`d_B` of `surface_distances`, over elements that each weigh their size (1 on the
    inner boundary):

    - ``hd``, ``hd95``, ``hd`` and any percentile p: by convention the larger of the two p-th percentiles of
      :math:`d_A` and :math:`d_B`, the percentile of both lists together, or the larger of the two smallest distances
      within which there are p percent of the area;
    - ``asd``: the means of :math:`d_A` and of :math:`d_B`, two numbers; ``masd`` their mean; ``assd`` the mean of both
      lists together;
    - ``surface_dice``: the share of both boundaries that is at most `tolerance` from the other.

    Args:
        prediction: as in `surface_distances`.
        target: as in `surface_distances`.
        metrics: names of the above.
        spatial_dims: as in `surface_distances`.
        spacing: as in `surface_distances`.
        boundary: as in `surface_distances`.
        convention: of percentiles: "max_of_directed" (MONAI, MetricsReloaded), "pooled" (MedPy) or "area_weighted"
            (surface-distance). Linear interpolation between neighbours, but for the last, which has none.
        tolerance: of ``surface_dice``, in the units of the spacing.
        empty: where an object has no boundary. "default": nan where both have none, and where one has none +inf (0 for
            ``surface_dice``); "nan": nan in all these cases; "perfect": as the default, but 0 (1 for
            ``surface_dice``) where both have none; a number: that distance where one has none, else as "perfect".
        classes: as in `surface_distances`.

    Returns:
        `SurfaceMetrics`: float64 values [...] ([..., 2] of ``asd``) by name, and how many pairs were empty.

    Memory and errors as `surface_distances`. Gradient: none. Devices: CPU compiled, others through the reference; GPUs
    are waited for.

    Source: Maier-Hein et al. 2024, "Metrics reloaded"; Nikolov et al. 2018 (arXiv 1809.04430) for the surface Dice.

    Example:
        >>> a, b = torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)
        >>> a[0, 2:5, 2:5], b[0, 2:5, 3:7] = 1, 1
        >>> surface_metrics(a, b, ["hd", "assd"], spatial_dims=2)
        SurfaceMetrics(values={'hd': tensor([2., nan], dtype=torch.float64), 'assd': tensor([0.7222, nan], dtype=torch.float64)}, empty=EmptyCounts(both=1, prediction=0, target=0))
    """  # noqa: E501
    op = "surface_metrics"
    checked_choice(op, "convention", convention, CONVENTIONS)
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise ValueError(f"fastseg::{op}: metrics must be a list of names, got {metrics!r}")
    chosen = {name: _chosen(op, name, convention, tolerance) for name in metrics}
    missing = {name: reduction.missing(op, empty, name == "surface_dice") for name in metrics}
    found = surface_distances(prediction, target, spatial_dims=spatial_dims, spacing=spacing, boundary=boundary,
                              classes=classes)  # fmt: skip
    lists = reduction.Lists(found)
    return SurfaceMetrics({name: lists.map(chosen[name], missing[name]) for name in chosen}, lists.counts())


def hausdorff_distance(
    prediction: Tensor,
    target: Tensor,
    *,
    spatial_dims: int | None = None,
    spacing: Sequence[float] | None = None,
    boundary: Literal["inner", "dual"] = "inner",
    percentile: float = 100,
    convention: Convention = "max_of_directed",
    directed: bool = False,
    empty: Empty = "default",
    classes: Sequence[int] | None = None,
) -> Tensor:
    r"""Compute the Hausdorff distance of two objects, or a percentile of it.

    .. math:: H = \max\Big( \max_{a \in \partial A} \min_{b \in \partial B} \lVert a - b \rVert,\;
        \max_{b \in \partial B} \min_{a \in \partial A} \lVert a - b \rVert \Big)

    Args:
        prediction: as in `surface_distances`.
        target: as in `surface_distances`.
        spatial_dims: as in `surface_distances`.
        spacing: as in `surface_distances`.
        boundary: as in `surface_distances`.
        percentile: from 0 to 100; 95 is the usual HD95.
        convention: as in `surface_metrics`.
        directed: both distances, from the prediction and from the target; not with "pooled".
        empty: as in `surface_metrics`.
        classes: as in `surface_distances`.

    Returns:
        float64 [...], or [..., 2] of the directed ones: one value for each image and class.

    Memory and errors as `surface_distances`. Gradient: none. Devices: CPU compiled, others through the reference; GPUs
    are waited for.

    Example:
        >>> a, b = torch.zeros(8, 8), torch.zeros(8, 8)
        >>> a[2:5, 2:5], b[2:5, 3:7] = 1, 1
        >>> hausdorff_distance(a, b, spacing=(2.0, 0.5))
        tensor(1., dtype=torch.float64)
    """
    op = "hausdorff_distance"
    checked_choice(op, "convention", convention, CONVENTIONS)
    percentile = _checked_percentile(op, percentile)
    if directed and convention == "pooled":
        raise ValueError(f"fastseg::{op}: directed must be False with convention 'pooled', got True")
    missing = reduction.missing(op, empty, False)
    lists = reduction.Lists(surface_distances(prediction, target, spatial_dims=spatial_dims, spacing=spacing,
                                     boundary=boundary, classes=classes))  # fmt: skip
    result = lists.map(reduction.hausdorff(percentile, convention, directed), missing)
    return result if not directed or result.dim() > len(lists.shape) else result[..., None].expand(*lists.shape, 2)


def average_surface_distance(prediction: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Compute the mean distances of each boundary to the other, `asd` of `surface_metrics`.

    Args:
        prediction: as in `surface_distances`.
        target: as in `surface_distances`.
        options: the other arguments of `surface_metrics`.

    Returns:
        float64 [..., 2]: from the prediction to the target, and back.

    Memory and errors as `surface_distances`. Gradient: none. Devices: CPU compiled, others through the reference; GPUs
    are waited for.

    Example:
        >>> a, b = torch.zeros(8, 8), torch.zeros(8, 8)
        >>> a[2:5, 2:5], b[2:5, 3:7] = 1, 1
        >>> average_surface_distance(a, b)
        tensor([0.5000, 0.9000], dtype=torch.float64)
    """
    return surface_metrics(prediction, target, ["asd"], **options).values["asd"]


def assd(prediction: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Compute the average symmetric surface distance, `assd` of `surface_metrics`.

    Args:
        prediction: as in `surface_distances`.
        target: as in `surface_distances`.
        options: the other arguments of `surface_metrics`.

    Returns:
        float64 [...].

    Memory and errors as `surface_distances`. Gradient: none. Devices: CPU compiled, others through the reference; GPUs
    are waited for.

    Example:
        >>> a, b = torch.zeros(8, 8), torch.zeros(8, 8)
        >>> a[2:5, 2:5], b[2:5, 3:7] = 1, 1
        >>> assd(a, b)
        tensor(0.7222, dtype=torch.float64)
    """
    return surface_metrics(prediction, target, ["assd"], **options).values["assd"]


def masd(prediction: Tensor, target: Tensor, **options: Any) -> Tensor:
    """Compute the mean average surface distance, `masd` of `surface_metrics`.

    Args:
        prediction: as in `surface_distances`.
        target: as in `surface_distances`.
        options: the other arguments of `surface_metrics`.

    Returns:
        float64 [...].

    Memory and errors as `surface_distances`. Gradient: none. Devices: CPU compiled, others through the reference; GPUs
    are waited for.

    Example:
        >>> a, b = torch.zeros(8, 8), torch.zeros(8, 8)
        >>> a[2:5, 2:5], b[2:5, 3:7] = 1, 1
        >>> masd(a, b)
        tensor(0.7000, dtype=torch.float64)
    """
    return surface_metrics(prediction, target, ["masd"], **options).values["masd"]


def surface_dice(prediction: Tensor, target: Tensor, tolerance: float, **options: Any) -> Tensor:
    """Compute the share of both boundaries that is within `tolerance` of the other (NSD).

    Args:
        prediction: as in `surface_distances`.
        target: as in `surface_distances`.
        tolerance: in the units of the spacing.
        options: the other arguments of `surface_metrics`.

    Returns:
        float64 [...].

    Memory and errors as `surface_distances`. Gradient: none. Devices: CPU compiled, others through the reference; GPUs
    are waited for.

    Example:
        >>> a, b = torch.zeros(8, 8), torch.zeros(8, 8)
        >>> a[2:5, 2:5], b[2:5, 3:7] = 1, 1
        >>> surface_dice(a, b, 1.0)
        tensor(0.8333, dtype=torch.float64)
    """
    return surface_metrics(prediction, target, ["surface_dice"], tolerance=tolerance, **options).values["surface_dice"]
