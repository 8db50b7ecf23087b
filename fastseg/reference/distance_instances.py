"""Distances to the two nearest instances, in plain PyTorch: one pass along each axis, every offset in turn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .distance import offsets


def _insert(best: list[Tensor], distance: Tensor, instance: Tensor) -> None:
    """Let one more distance to an instance into [nearest, second, its instance, the second's]."""
    first, second, first_id, second_id = best
    same, nearer = instance == first_id, distance < first
    moved, third = ~same & nearer, ~same & ~nearer & (distance < second)
    best[1] = torch.where(moved, first, torch.where(third, distance, second))
    best[3] = torch.where(moved, first_id, torch.where(third, instance, second_id))
    best[0], best[2] = torch.where(nearer, distance, first), torch.where(nearer, instance, first_id)


def instance_distances(instances: Tensor, spacing: Sequence[float]) -> tuple[Tensor, Tensor]:
    """instances [B, D, H, W] -> float32 distances of this shape to the nearest and to the second nearest."""
    instances = instances.contiguous()
    far = torch.full(instances.shape, float("inf"), dtype=torch.float64, device=instances.device)
    best = [torch.where(instances != 0, 0.0, far), far, instances.long(), torch.zeros_like(instances).long()]
    for dim in (3, 2, 1):
        before, offset = list(best), offsets("euclidean", spacing[dim - 1])
        best = [x.clone() for x in best]
        for d in range(1, instances.shape[dim]):
            for here, there in ((slice(d, None), slice(None, -d)), (slice(None, -d), slice(d, None))):
                to, of = [(slice(None),) * dim + (part,) for part in (here, there)]
                part = [x[to] for x in best]
                for distance, instance in ((before[0], before[2]), (before[1], before[3])):
                    _insert(part, distance[of] + offset(d), instance[of])
                for x, found in zip(best, part, strict=True):
                    x[to] = found
    return best[0].sqrt().float(), best[1].sqrt().float()
