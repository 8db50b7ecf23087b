"""Mean field of differentiable parts: what the gradient of `dense_crf` is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..reference import dense_crf_filters as reference


class Filter(Protocol):
    def __call__(self, values: Tensor, transposed: bool = False) -> Tensor: ...


@dataclass
class Kernel:
    """A normalized kernel: factors [N, 1, P] of values and of results, and the diagonal that is left out, or None."""

    apply: Filter
    before: Tensor | None
    after: Tensor | None
    diagonal: Tensor | None

    def __call__(self, values: Tensor, transposed: bool = False) -> Tensor:
        first, last = (self.after, self.before) if transposed else (self.before, self.after)
        values = values if first is None else values * first
        result = self.apply(values, transposed)
        if self.diagonal is not None:
            result = result - self.diagonal * values
        return result if last is None else result * last


def normalized(apply: Filter, ones: Tensor, normalization: str, diagonal: Tensor | None) -> Kernel:
    """A kernel over its sums of rows; ones [N, 1, P]."""
    if normalization == "none":
        return Kernel(apply, None, None, diagonal)
    sums = reference.sums_of(apply, diagonal, ones)
    factors = sums.rsqrt() if normalization == "symmetric" else sums.reciprocal()
    before = factors if normalization in ("before", "symmetric") else None
    return Kernel(apply, before, factors if normalization in ("after", "symmetric") else None, diagonal)


def smoothness(ops: Any, size: Sequence[int], sigma: Tensor | list[float]) -> Filter:
    """The Gaussian of distances in pixels; by matrices where sigma is a tensor, which may be differentiated."""
    if isinstance(sigma, Tensor):
        by_matrices = reference.gaussian(size, sigma)
        return lambda values, transposed=False: by_matrices(values.flatten(0, 1)).view(values.shape)

    def apply(values: Tensor, transposed: bool = False) -> Tensor:
        n, c, points = values.shape
        maps = ops.gaussian_filter_2d(values.reshape(n, c * math.prod(size[:-2]), *size[-2:]), sigma[-2:], "none")
        if len(size) == 3:  # the first axis, as columns of one map; a deviation of next to nothing keeps the others
            maps = ops.gaussian_filter_2d(maps.reshape(n, c, size[0], math.prod(size[1:])), [sigma[0], 1e-3], "none")
        return maps.reshape(n, c, points)

    return apply


def on_lattice(ops: Any, features: Tensor) -> tuple[Filter, tuple[Tensor, ...]]:
    state = ops.permutohedral_lattice(features)
    return lambda values, transposed=False: ops.permutohedral_apply(values, *state, transposed), state


def kernels_of(
    ops: Any,
    features: Tensor,
    sigma: Tensor | list[float],
    normalization: str,
    include_self: bool,
    spatial: str,
    bilateral: str,
) -> list[Kernel]:
    """The spatial and the bilateral kernel of features [N, d, ...]."""
    size, flat = features.shape[2:], features.flatten(2)
    n, _, points = flat.shape
    ones = flat.new_ones(n, 1, points)
    kernels: list[Kernel] = []
    for exact in (spatial == "exact", bilateral == "exact"):
        diagonal = None if include_self else ones
        if not exact:
            deviations = torch.as_tensor(sigma, dtype=torch.float64).to(flat.device)
            near = reference.positions(size, deviations).to(flat.dtype).expand(n, -1, -1)
            apply, state = on_lattice(ops, flat if kernels else near)
            if not include_self:
                diagonal = ops.permutohedral_diagonal(*state)[:, None]
        elif kernels:
            apply = lambda values, transposed=False: ops.gaussian_filter(values, flat)  # noqa: E731
        else:
            apply = smoothness(ops, size, sigma)
        kernels.append(normalized(apply, ones, normalization, diagonal))
    return kernels


def mean_field(
    unary: Tensor, kernels: Sequence[Kernel], compatibility: Tensor, iterations: int
) -> tuple[Tensor, list[tuple[Tensor, list[Tensor]]]]:
    """Logits [N, C, P] from energies, and each iteration's Q and messages."""
    logits, steps = -unary, []
    for _ in range(iterations):
        q = logits.softmax(1)
        messages = [kernel(q) for kernel in kernels]
        steps.append((q, messages))
        logits = -unary
        for table, message in zip(compatibility, messages, strict=True):
            logits = logits - table @ message
    return logits, steps


def through_softmax(q: Tensor, grad: Tensor) -> Tensor:
    return q * (grad - (q * grad).sum(1, keepdim=True))


def gradients(
    grad: Tensor, kernels: Sequence[Kernel], compatibility: Tensor, steps: Sequence[tuple[Tensor, list[Tensor]]]
) -> tuple[Tensor, Tensor]:
    """The gradient of the logits -> those of the energies and of the compatibilities."""
    total, tables = grad, torch.zeros_like(compatibility)
    for q, messages in reversed(steps):
        tables = tables - torch.stack([torch.einsum("nlp,nmp->lm", grad, message) for message in messages])
        back = [kernel(table.T @ grad, True) for kernel, table in zip(kernels, compatibility, strict=True)]
        grad = through_softmax(q, -(back[0] + back[1]))
        total = total + grad
    return -total, tables
