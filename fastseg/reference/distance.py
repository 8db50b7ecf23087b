"""Distance transforms in plain PyTorch: one pass along each axis, every offset of an axis in turn."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

METRICS = ("euclidean", "taxicab", "chessboard")


def offsets(metric: str, spacing: float) -> Callable[[int], float]:
    """What so many steps along an axis add to a squared (euclidean) or plain distance."""
    return (lambda d: spacing * spacing * (d * d)) if metric == "euclidean" else (lambda d: spacing * d)


def _pass(value: Tensor, site: Tensor, mask: Tensor, labels: bool, dim: int, spacing: float, metric: str) -> None:
    """Let values [B, D, H, W] and their sites go along one axis; the nearer and then the lower site wins."""
    size = value.shape[dim]
    before, sites = value.clone(), site.clone()
    own = torch.arange(mask.shape[1:].numel(), device=mask.device).view(1, *mask.shape[1:]).expand_as(mask)
    offset = offsets(metric, spacing)
    for d in range(1, size):
        for here, there in ((slice(d, None), slice(None, -d)), (slice(None, -d), slice(d, None))):
            to, of = [(slice(None),) * dim + (part,) for part in (here, there)]
            candidate, index = before[of], sites[of]
            if labels:  # an element with another label is a site itself
                other = mask[of] != mask[to]
                candidate, index = candidate.masked_fill(other, 0), torch.where(other, own[of], index)
            step = torch.full_like(candidate, offset(d))
            candidate = torch.maximum(candidate, step) if metric == "chessboard" else candidate + step
            nearer = (candidate < value[to]) | ((candidate == value[to]) & (index < site[to]))
            value[to] = torch.where(nearer, candidate, value[to])
            site[to] = torch.where(nearer, index, site[to])


def distance_transform(
    mask: Tensor,
    spacing: Sequence[float],
    metric: str,
    squared: bool,
    labels: bool,
    indices: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """mask [B, D, H, W] -> distances of this shape, and flat indices of the nearest sites (none unless asked for)."""
    start = torch.full(mask.shape, float("inf"), dtype=torch.float64, device=mask.device)
    site = torch.full(mask.shape, torch.iinfo(torch.int64).max, device=mask.device)
    if not labels:
        start.masked_fill_(mask == 0, 0)
        own = torch.arange(mask.shape[1:].numel(), device=mask.device).view(1, *mask.shape[1:])
        site = torch.where(mask == 0, own, site)
    for dim in (3, 2, 1):
        _pass(start, site, mask, labels, dim, spacing[dim - 1], metric)
    distance = start if squared or metric != "euclidean" else start.sqrt()
    found = site.masked_fill(start.isinf(), -1) if indices else site.new_empty((len(mask), 0))
    return distance.to(dtype), found
