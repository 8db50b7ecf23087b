"""Boundaries of objects and the distances between them, in plain PyTorch."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .distance import distance_transform

# Marching cubes: of one code of each class of rotations, reflections and complements, the triangles as the shares of
# the faces of an element that they cover along z, y and x, in eighths. Bit 7 of a code is corner (0, 0, 0).
TRIANGLES = {
    0: (),
    1: ((1, 1, 1),),
    3: ((2, 2, 0),) * 2,
    6: ((1, 1, 1),) * 2,
    7: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    15: ((4, 0, 0),) * 2,
    22: ((1, 1, 1),) * 3,
    23: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    24: ((1, 1, 1),) * 2,
    25: ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    27: ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    30: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    60: ((2, 2, 0),) * 4,
    105: ((1, 1, 1),) * 4,
}
# Marching squares, likewise: halves of the sides along y and x.
SEGMENTS = {0: (), 1: ((1, 1),), 3: ((2, 0),), 6: ((1, 1), (1, 1))}


def element_weights(spacing: Sequence[float]) -> Tensor:
    """Length (of two spacings) or area (of three) of the boundary around a corner, by code: float64 [2^n]."""
    dims = len(spacing)
    base, unit = (TRIANGLES, 1 / 8) if dims == 3 else (SEGMENTS, 1 / 2)
    corners = list(itertools.product((0, 1), repeat=dims))
    faces = torch.tensor([torch.tensor(spacing).double().prod() / s for s in spacing], dtype=torch.float64)
    weights = torch.full((2 ** len(corners),), float("nan"), dtype=torch.float64)
    for code, pieces in base.items():
        inside = {c for i, c in enumerate(reversed(corners)) if code >> i & 1}
        for order, flips in itertools.product(itertools.permutations(range(dims)), corners):
            moved = {tuple(c[order[k]] ^ flips[k] for k in range(dims)) for c in inside}
            image = sum(1 << i for i, c in enumerate(reversed(corners)) if c in moved)
            size = sum((faces * torch.tensor([p[a] for a in order]) * unit).norm().item() for p in pieces)
            weights[image] = weights[2 ** len(corners) - 1 - image] = size
    return weights


def _elements(mask: Tensor) -> Tensor:
    """Elements inside with a neighbour across a face outside; beyond the image everything is."""
    padded = F.pad(mask, (1, 1) * mask.dim())
    inner = mask.clone()
    for dim, side in itertools.product(range(mask.dim()), (0, 2)):
        where = tuple(slice(side if d == dim else 1, n + (side if d == dim else 1)) for d, n in enumerate(mask.shape))
        inner &= padded[where]
    return mask & ~inner


def corner_codes(mask: Tensor) -> Tensor:
    """int64, one more along each side: which of the elements around a corner are inside."""
    padded = F.pad(mask, (1, 1) * mask.dim()).long()
    codes = torch.zeros([n + 1 for n in mask.shape], dtype=torch.int64, device=mask.device)
    for corner in itertools.product((0, 1), repeat=mask.dim()):
        where = tuple(slice(c, c + n + 1) for c, n in zip(corner, mask.shape, strict=True))
        codes = 2 * codes + padded[where]
    return codes


def surface_distances(
    prediction: Tensor,
    target: Tensor,
    classes: Sequence[int],
    spatial_dims: int,
    spacing: Sequence[float],
    weights: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels [B, D, H, W] -> distances of the boundary elements of the prediction, then of the target, object after
    object, in float64; the sizes of these elements, if there are `weights` by code; and counts int64 [objects, 2]."""
    distances, sizes, counts = [], [], []
    space = slice(3 - spatial_dims, None)
    for pair in zip(prediction, target, strict=True):
        for label in classes or (None,):
            masks = [(x != 0 if label is None else x == label).reshape(x.shape[space]) for x in pair]
            if weights is None:
                surfaces = [_elements(mask) for mask in masks]
            else:
                codes = [corner_codes(mask) for mask in masks]
                surfaces = [(code > 0) & (code < len(weights) - 1) for code in codes]
                sizes += [weights[c[s]] for c, s in zip(codes, surfaces, strict=True)]
            for own, other in (surfaces, surfaces[::-1]):
                to = (~other).to(torch.uint8)[(None,) * (4 - spatial_dims)]
                found, _ = distance_transform(to, spacing, "euclidean", False, False, False, torch.float64)
                distances.append(found.reshape(own.shape)[own])
            counts.append(torch.stack([s.sum() for s in surfaces]))
    empty = torch.empty(0, dtype=torch.float64, device=prediction.device)
    table = torch.stack(counts) if counts else torch.empty(0, 2, dtype=torch.int64, device=prediction.device)
    return torch.cat([empty, *distances]), torch.cat([empty, *sizes]), table
