"""Gaussian kernels of a dense CRF in plain PyTorch: on the lattice or exactly, normalized or not.

Source: Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (arXiv
1210.5644), algorithm 1; normalizations of Krähenbühl, Koltun 2013, "Parameter Learning and Convergent Inference for
Dense Random Fields".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .dense_crf_lattice import EPSILON, TRANSPOSED, Lattice, diagonal, filtered, lattice
from .upsample import memory_format

Filter = Callable[[Tensor], Tensor]  # values [C, P] -> [C, P]
ALONE = 1e-4


def gaussian(size: Sequence[int], sigma: Tensor) -> Filter:
    """The Gaussian kernel of distances in pixels, exactly: a matrix for each axis."""

    def apply(values: Tensor) -> Tensor:
        x = values.unflatten(1, tuple(size))
        for axis, (extent, deviation) in enumerate(zip(size, sigma, strict=True), 1):
            at = torch.arange(extent, dtype=sigma.dtype, device=values.device)
            weights = (-0.5 * ((at[:, None] - at) / deviation).square()).exp()
            x = torch.tensordot(x, weights.to(values.dtype), ([axis], [1])).movedim(-1, axis)
        return x.flatten(1)

    return apply


def exact(features: Tensor) -> Filter:
    """The Gaussian kernel of distances between features [d, P], as a matrix."""
    weights = (-0.5 * (features[:, :, None] - features[:, None]).square().sum(0)).exp()
    return lambda values: values @ weights.T.to(values.dtype)


def on_lattice(of: Lattice, *, transposed: bool = False) -> Filter:
    """The lattice's approximation of it."""
    return lambda values: filtered(values, of, transposed=transposed)


def sums_of(apply: Filter, diagonal: Tensor | None, ones: Tensor) -> Tensor:
    """The sums of rows of a kernel, which it makes of ones, without its diagonal if that is given.

    A point whose neighbours weigh less than `ALONE` of it all has none: it keeps its message, which is next to nothing.
    """
    sums = apply(ones)
    if diagonal is None:
        return sums + EPSILON
    rest = sums - diagonal
    return torch.where(rest > ALONE * sums, rest, torch.ones_like(sums))


def normalized(
    apply: Filter, mode: str, like: Tensor, transpose: Filter | None = None, diagonal: Tensor | None = None
) -> Filter:
    """The kernel over its sums of rows: before (K D), after (D K), or half of each (symmetric); or its transpose.

    A diagonal [P] is taken off the kernel first.
    """
    kernel, mode = (transpose, TRANSPOSED[mode]) if transpose else (apply, mode)
    rest = kernel if diagonal is None else lambda values: kernel(values) - diagonal * values
    if mode == "none":
        return rest
    factors = sums_of(apply, diagonal, torch.ones_like(like[:1])).reciprocal()
    if mode == "before":
        return lambda values: rest(values * factors)
    if mode == "after":
        return lambda values: rest(values) * factors
    return lambda values: rest(values * factors.sqrt()) * factors.sqrt()


def permutohedral_filter(values: Tensor, features: Tensor, normalization: str, transposed: bool) -> Tensor:
    """values [N, C, P], features [N, d, P] -> K values or K^T values, on the lattice."""
    if values.numel() == 0:
        return 0 * values.contiguous()
    rows = []
    for v, f in zip(values, features, strict=True):
        on = lattice(f)
        transpose = on_lattice(on, transposed=True) if transposed else None
        rows.append(normalized(on_lattice(on), normalization, v, transpose)(v))
    return torch.stack(rows)


def permutohedral_lattice(features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """features [N, d, P] -> vertices [N, P, d + 1], weights, neighbours [N, d + 1, P (d + 1), 2], their number [N].

    There is room for as many vertices as there are corners; beyond those that there are, everything is missing.
    """
    n, d, points = features.shape
    beside = torch.empty(n, d + 1, points * (d + 1), 2, dtype=torch.int32, device=features.device)
    on = [lattice(f) for f in features]
    for table, (_, _, neighbours) in zip(beside, on, strict=True):
        count = neighbours.shape[2]
        table[:, :count] = neighbours.transpose(1, 2)
        table[:, count:] = count
    vertices = beside.new_empty(n, points, d + 1)
    weights = features.new_empty(n, points, d + 1)
    for i, (corners, shares, _) in enumerate(on):
        vertices[i], weights[i] = corners, shares
    return vertices, weights, beside, torch.tensor([x.neighbours.shape[2] for x in on], device=features.device).long()


def lattices(vertices: Tensor, weights: Tensor, neighbours: Tensor, count: Tensor) -> list[Lattice]:
    """What `permutohedral_lattice` returned, as lattices again."""
    known = zip(vertices.long(), weights, neighbours.long(), count.tolist(), strict=True)
    return [Lattice(v, w, beside[:, :some].transpose(1, 2)) for v, w, beside, some in known]


def permutohedral_apply(
    values: Tensor, vertices: Tensor, weights: Tensor, neighbours: Tensor, count: Tensor, transposed: bool
) -> Tensor:
    """values [N, C, P] -> K values, or K^T values, on lattices that were built before."""
    if values.numel() == 0:
        return 0 * values.contiguous()
    on = lattices(vertices, weights, neighbours, count)
    return torch.stack([filtered(v, of, transposed=transposed) for v, of in zip(values, on, strict=True)])


def permutohedral_diagonal(vertices: Tensor, weights: Tensor, neighbours: Tensor, count: Tensor) -> Tensor:
    """The diagonals [N, P] of the kernels."""
    rows = [diagonal(of).to(weights.dtype) for of in lattices(vertices, weights, neighbours, count)]
    return torch.stack(rows) if rows else weights.new_zeros(vertices.shape[:2])


def gaussian_filter(values: Tensor, features: Tensor) -> Tensor:
    """values [N, C, P], features [N, d, P] -> K values, the sum over all pairs of points."""
    rows = [exact(f)(v) for v, f in zip(values, features, strict=True)]
    return torch.stack(rows) if rows else values + 0 * features.sum()


def gaussian_filter_gradient(grad: Tensor, values: Tensor, features: Tensor) -> Tensor:
    """The gradient [N, d, P] of features: sum_j k_ij (g_i v_j + v_i g_j) (f_j - f_i)."""
    rows = []
    for g, v, f in zip(grad, values, features, strict=True):
        both = (-0.5 * (f[:, :, None] - f[:, None]).square().sum(0)).exp() * (g.T @ v + v.T @ g)
        rows.append(f @ both - f * both.sum(0))
    return torch.stack(rows) if rows else features.clone()


def gaussian_filter_2d(values: Tensor, sigma: Sequence[float], normalization: str) -> Tensor:
    """values [N, C, H, W] -> the same shape, filtered with the exact Gaussian of distances in pixels."""
    if values.numel() == 0:
        return 0 * values
    size, planes = values.shape[2:], values.flatten(0, 1).flatten(1)
    deviation = torch.tensor(sigma, dtype=torch.float64, device=values.device)
    apply = normalized(gaussian(size, deviation), normalization, planes)
    return apply(planes).view(values.shape).contiguous(memory_format=memory_format(values))


def positions(size: Sequence[int], sigma: Tensor) -> Tensor:
    """Coordinates over their deviations [len(size), P], the last axis first."""
    axes = [torch.arange(n, dtype=sigma.dtype, device=sigma.device) for n in size]
    grids = torch.meshgrid(*(at / deviation for at, deviation in zip(axes, sigma, strict=True)), indexing="ij")
    return torch.stack([grid.flatten() for grid in reversed(grids)])
