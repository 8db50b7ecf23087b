"""What a metric makes of the distances of a pair of objects: one number or two, and one where an object is empty."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .arguments import checked_choice
from .distance_surfaces import SurfaceDistances

EMPTY = ("default", "nan", "perfect")
Empty = Literal["default", "nan", "perfect"] | float


class EmptyCounts(NamedTuple):
    """How many pairs of objects lack a boundary: both of them, the prediction alone, the target alone."""

    both: int
    prediction: int
    target: int


class Lists:
    """The lists of each pair of objects, of which a metric makes one number or two."""

    def __init__(self, found: SurfaceDistances) -> None:
        self.shape, self.like = found.counts.shape[:-1], found.distances
        counts = found.counts.reshape(-1, 2)
        self.lengths = counts.tolist()
        sizes = [n for pair in self.lengths for n in pair]
        lists = found.distances.split(sizes)
        weights = found.weights.split(sizes) if len(found.weights) else [None] * len(lists)
        self.pairs = list(zip(lists[::2], lists[1::2], strict=True))
        self.weights = list(zip(weights[::2], weights[1::2], strict=True))

    def counts(self) -> EmptyCounts:
        both = sum(a == 0 and b == 0 for a, b in self.lengths)
        alone = [sum(pair[side] == 0 and pair[1 - side] > 0 for pair in self.lengths) for side in (0, 1)]
        return EmptyCounts(both, *alone)

    def map(self, metric: Callable[[Any, Any], Tensor], missing: tuple[float, float]) -> Tensor:
        """One result for each pair; `missing` where both are empty, and where one is."""
        results = []
        for (a, b), pair, weights in zip(self.lengths, self.pairs, self.weights, strict=True):
            results.append(
                metric(pair, weights) if a and b else self.like.new_full((), missing[0 if a == b == 0 else 1])
            )
        wide = next((r.shape for r in results if r.dim()), torch.Size())
        stacked = torch.stack([r.expand(wide) for r in results]) if results else self.like.new_empty(0)
        return stacked.view((*self.shape, *wide))


def percentile_of(distances: Tensor, percentile: float) -> Tensor:
    """NumPy's "linear": between the neighbours of place p (n - 1)."""
    if percentile == 100:
        return distances.max()
    place = percentile / 100 * (len(distances) - 1)
    low = distances.kthvalue(math.floor(place) + 1).values
    if place == math.floor(place):
        return low
    return low + (distances.kthvalue(math.floor(place) + 2).values - low) * (place - math.floor(place))


def area_percentile(distances: Tensor, weights: Tensor | None, percentile: float) -> Tensor:
    """The smallest distance up to which there is this share of the area."""
    ordered, order = distances.sort()
    covered = (torch.ones_like(ordered) if weights is None else weights[order]).cumsum(0)
    at = torch.searchsorted(covered / covered[-1], percentile / 100)
    return ordered[at.clamp(max=len(ordered) - 1)]


def _total(weights: Tensor | None, distances: Tensor) -> Tensor:
    return distances.new_tensor(len(distances)) if weights is None else weights.sum()


def _sum(weights: Tensor | None, distances: Tensor) -> Tensor:
    return distances.sum() if weights is None else weights @ distances


def hausdorff(percentile: float, convention: str, directed: bool) -> Callable[[Any, Any], Tensor]:
    def metric(pair: Any, weights: Any) -> Tensor:
        if convention == "pooled":
            return percentile_of(torch.cat(pair), percentile)
        area = convention == "area_weighted"
        both = torch.stack([
            area_percentile(d, w, percentile) if area else percentile_of(d, percentile)
            for d, w in zip(pair, weights, strict=True)
        ])  # fmt: skip
        return both if directed else both.max()

    return metric


def asd(pair: Any, weights: Any) -> Tensor:
    return torch.stack([_sum(w, d) / _total(w, d) for d, w in zip(pair, weights, strict=True)])


def assd(pair: Any, weights: Any) -> Tensor:
    sums, totals = (sum(f(w, d) for d, w in zip(pair, weights, strict=True)) for f in (_sum, _total))
    return torch.as_tensor(sums / totals)


def masd(pair: Any, weights: Any) -> Tensor:
    return asd(pair, weights).mean()


def surface_dice(tolerance: float) -> Callable[[Any, Any], Tensor]:
    def metric(pair: Any, weights: Any) -> Tensor:
        near = sum(_sum(w, (d <= tolerance).double()) for d, w in zip(pair, weights, strict=True))
        return torch.as_tensor(near / sum(_total(w, d) for d, w in zip(pair, weights, strict=True)))

    return metric


def missing(op: str, empty: Empty, overlap: bool) -> tuple[float, float]:
    """What a metric is where both objects are empty, and where one is; overlaps are 1 where all is right."""
    best, worst = (1.0, 0.0) if overlap else (0.0, math.inf)
    if isinstance(empty, Real) and not isinstance(empty, bool):
        if not float(empty) >= 0:
            raise ValueError(f"fastseg::{op}: empty must be a distance of at least 0, got {empty!r}")
        return best, 0.0 if overlap else float(empty)
    choice = checked_choice(op, "empty", empty, EMPTY)
    return {"default": (math.nan, worst), "nan": (math.nan, math.nan), "perfect": (best, worst)}[choice]
