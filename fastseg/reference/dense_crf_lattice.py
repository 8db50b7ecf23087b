"""The permutohedral lattice in plain PyTorch, step by step.

Source: Adams, Baek, Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", section 3, with the
scale and the blur of Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials".
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-20  # beside what is divided by
FAR = 2.0**40  # cells from 0, beyond which doubles no longer tell corners apart
# Each with that of the transposed kernel.
TRANSPOSED = {"none": "none", "before": "after", "after": "before", "symmetric": "symmetric"}
NORMALIZATIONS = tuple(TRANSPOSED)


class Lattice(NamedTuple):
    """P points and the M vertices that they touch, in the order in which the points first touch them.

    Args:
        vertices: [P, d + 1], the corners of the simplex around each point.
        weights: [P, d + 1], barycentric coordinates, float64.
        neighbours: [d + 1, 2, M], the vertex before and behind each one along each axis; M where there is none.
    """

    vertices: Tensor
    weights: Tensor
    neighbours: Tensor


def scaled(features: Tensor) -> Tensor:
    """Features [d, ...], each scaled so that splat, blur and slice have a standard deviation of 1 together."""
    d = features.shape[0]
    scale = [(d + 1) * math.sqrt(2 / 3) / math.sqrt(i * (i + 1)) for i in range(1, d + 1)]
    column = torch.tensor(scale, dtype=torch.float64, device=features.device)
    return features.double() * column.view(-1, *[1] * (features.dim() - 1))


def elevated(features: Tensor) -> Tensor:
    """Features [d, P] -> [d + 1, P], on the hyperplane whose points sum to 0."""
    c = scaled(features)
    beyond = torch.cat([c.flip(0).cumsum(0).flip(0), torch.zeros_like(c[:1])])  # the sums over k > i
    i = torch.arange(1, len(c) + 1, dtype=torch.float64, device=c.device)
    return torch.cat([beyond[:1], beyond[1:] - i[:, None] * c])


def simplices(y: Tensor) -> tuple[Tensor, Tensor]:
    """Points [d + 1, P] -> the keys [P, d + 1 corners, d + 1] around them, and their weights [P, d + 1]."""
    sides = y.shape[0]
    nearest = sides * (y / sides).round()
    shift = (nearest.sum(0) / sides).round().long()
    offset = y - nearest
    index = torch.arange(sides, device=y.device)
    greater, same = offset[None] > offset[:, None], offset[None] == offset[:, None]
    rank = (greater | (same & (index[None] < index[:, None])[..., None])).sum(1) + shift
    wrap = (rank < 0).long() - (rank >= sides).long()
    rank, nearest = (rank + sides * wrap).T, (nearest + sides * wrap).T

    v = (y.T - nearest) / sides
    weights = torch.zeros_like(v[:, :1]).repeat(1, sides + 1)
    weights.scatter_add_(1, sides - 1 - rank, v).scatter_add_(1, sides - rank, -v)
    weights[:, 0] += 1 + weights[:, sides]
    corner = index[:, None]
    keys = nearest.long()[:, None] + corner - sides * (rank[:, None] >= sides - corner)
    return keys, weights[:, :sides]


def digits(features: Tensor, op: str, argument: str) -> tuple[Tensor, list[int]]:
    """Features [d, P] -> the least of d digits, and the place values of these digits and of what is beyond them.

    All coordinates of a key are equal modulo d + 1, and the last follows from the others: this remainder, at place
    value 1, and d quotients, with room for neighbours, are one number.
    """
    sides = features.shape[0] + 1
    if not features.isfinite().all():
        raise RuntimeError(f"fastseg::{op}: {argument} must be finite, got NaN or infinity")
    low, high = scaled(features.amin(1)), scaled(features.amax(1))
    reach = torch.maximum(low.abs(), high.abs()).sum().item()
    if not reach < FAR:
        raise RuntimeError(
            f"fastseg::{op}: {argument} must be less than 2^40 cells of the lattice from 0, got {reach:g}"
        )
    i = torch.arange(1, sides, dtype=torch.float64, device=features.device)
    least = torch.stack([low.sum(), *(low.sum() - low.cumsum(0) - i * high)])[:-1]
    most = torch.stack([high.sum(), *(high.sum() - high.cumsum(0) - i * low)])[:-1]
    first = (least / sides).floor() - 4
    extents = ((most / sides).ceil() + 5 - first).tolist()
    if math.prod(extents) * sides >= 2**62:
        spans = ", ".join(f"{x:g}" for x in (features.amax(1) - features.amin(1)).tolist())
        raise RuntimeError(
            f"fastseg::{op}: {argument} must span fewer cells of the lattice than 2^62, got spans of {spans}"
        )
    values = [sides]
    for extent in extents:
        values.append(values[-1] * int(extent))
    return first.long(), values


def lattice(features: Tensor, op: str = "permutohedral_filter", argument: str = "features") -> Lattice:
    """The lattice of finite features [d, P]; op and argument are what errors name."""
    sides, points = features.shape[0] + 1, features.shape[1]
    if not points:
        return Lattice(
            features.new_zeros(0, sides, dtype=torch.long),
            features.new_zeros(0, sides, dtype=torch.float64),
            features.new_zeros(sides, 2, 0, dtype=torch.long),
        )
    first, values = digits(features, op, argument)
    keys, weights = simplices(elevated(features))
    place = torch.tensor([*values[:-1], 0], device=features.device)
    r = keys[..., 0] % sides
    q = (keys - r[..., None]) // sides
    numbers = r + ((q[..., :-1] - first) * place[:-1]).sum(-1)

    found, inverse = torch.unique(numbers, return_inverse=True)
    position = torch.arange(inverse.numel(), device=inverse.device)
    touched = position.new_full(found.shape, inverse.numel()).scatter_reduce(0, inverse.flatten(), position, "amin")
    order = touched.argsort()
    renumbered = torch.empty_like(order)
    renumbered[order] = torch.arange(len(order), device=order.device)

    at, remainder, carry = found[order], found[order] % sides, int(sum(values[:-1]))
    behind = at + 1 - place[:, None] + (remainder == sides - 1) * (carry - sides)
    before = at - 1 + place[:, None] + (remainder == 0) * (sides - carry)
    wanted = torch.stack([before, behind], 1)
    slot = torch.searchsorted(found, wanted).clamp(max=len(found) - 1)
    neighbours = torch.where(found[slot] == wanted, renumbered[slot], len(found))
    return Lattice(renumbered[inverse], weights, neighbours)


def filtered(values: Tensor, on: Lattice, *, transposed: bool = False) -> Tensor:
    """Splat, blur and slice values [C, P]: K v, or K^T v, which blurs along the axes in the other order."""
    sides, _, count = on.neighbours.shape
    weights = on.weights.to(values.dtype)
    splatted = (values[..., None] * weights).flatten(1)
    grid = values.new_zeros(len(values), count + 1).index_add(1, on.vertices.flatten(), splatted)
    for axis in reversed(range(sides)) if transposed else range(sides):
        before, behind = on.neighbours[axis]
        blurred = grid[:, :-1] + 0.5 * (grid[:, before] + grid[:, behind])
        grid = torch.cat([blurred, torch.zeros_like(grid[:, :1])], 1)  # the last stands for vertices that are missing
    return (grid[:, on.vertices] * weights).sum(-1) / (1 + 2.0 ** (1 - sides))


def diagonal(on: Lattice) -> Tensor:
    """What splat, blur and slice take from each point to itself [P], in float64.

    The corners of a simplex follow each other along an axis each, and all axes together lead back: there are two ways
    from one corner to another, and two from a corner around to itself. Blurring takes half a value along each step, the
    axes in their order, where no vertex is missing.
    """
    sides, _, count = on.neighbours.shape
    beside = torch.cat([on.neighbours, torch.full_like(on.neighbours[..., :1], count)], 2)
    corners = on.vertices.T
    along = [(beside[:, 1, a] == b).long().argmax(0) for a, b in pairwise(corners)]
    axes = torch.nn.functional.one_hot(torch.stack(along), sides) if along else corners.new_zeros(0, 0, sides)

    def share(start: Tensor, steps: Tensor, end: Tensor) -> Tensor:
        at, halves = start, steps.abs().sum(1)
        for axis, step in enumerate(steps.T):
            at = torch.where(step == 0, at, beside[axis, (step > 0).long(), at])
        return (at == end) * 0.5**halves

    total = torch.zeros_like(on.weights[:, 0])
    for a in range(sides):
        for b in range(sides):
            there = axes[min(a, b) : max(a, b)].sum(0) * (1 if a < b else -1)
            ways = [there, there - 1, there + 1] if a == b else [there, there - 1 if a < b else there + 1]
            shares = sum(share(corners[a], way, corners[b]) for way in ways)
            total += shares * on.weights[:, a] * on.weights[:, b]
    return total / (1 + 2.0 ** (1 - sides))
