"""What the dense CRF asks of its arguments: deviations and compatibilities, as numbers or as tensors."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from .arguments import brief, check_devices, checked_float

Numbers = float | Sequence[float] | Tensor


def floats_of(sigma: Numbers, n: int) -> list[float]:
    """Deviations that are not differentiated, as n numbers."""
    values = sigma.tolist() if isinstance(sigma, Tensor) else sigma
    return [float(x) for x in values] if isinstance(values, Sequence) else [float(values)] * n


def deviations_of(op: str, argument: str, sigma: Numbers, n: int, like: Tensor) -> Tensor:
    """Positive numbers [n] in float64, or one for all; tensors are looked at where they are used."""
    rule = f"fastseg::{op}: {argument} must be a positive number, or {n} of them"
    if isinstance(sigma, Tensor):
        if sigma.shape not in ((), (n,)) or not sigma.is_floating_point():
            raise ValueError(f"{rule}, got {brief(sigma)}")
        check_devices(op, like, **{argument: sigma})
        return sigma.double().expand(n)
    numbers = list(sigma) if isinstance(sigma, Sequence) and not isinstance(sigma, str) else [sigma] * n
    if len(numbers) != n or not all(isinstance(x, Real | torch.SymFloat) and 0 < x < math.inf for x in numbers):
        raise ValueError(f"{rule}, got {sigma!r}")
    return torch.tensor([float(x) for x in numbers], dtype=torch.float64).to(like.device)


def compatibilities_of(
    op: str, compatibility: float | Tensor | None, weights: tuple[float | Tensor, ...], labels: int, like: Tensor
) -> Tensor:
    """The matrices [2, C, C] of both kernels: compatibility times weight."""
    if isinstance(compatibility, Tensor):
        check_devices(op, like, compatibility=compatibility)
        if compatibility.shape not in ((), (labels,), (labels, labels)) or not compatibility.is_floating_point():
            raise ValueError(f"fastseg::{op}: compatibility must be a number, [{labels}] or [{labels}, {labels}], got "
                             f"{brief(compatibility)}")  # fmt: skip
        matrix = compatibility.to(like.dtype)
        matrix = matrix if matrix.dim() == 2 else (-matrix.expand(labels)).diag()
    else:
        gain = 1.0 if compatibility is None else checked_float(op, "compatibility", compatibility)
        matrix = like.new_full((labels,), -gain).diag()
    tables = []
    for argument, weight in zip(("spatial_weight", "bilateral_weight"), weights, strict=True):
        if isinstance(weight, Tensor):
            check_devices(op, like, **{argument: weight})
            if weight.shape not in ((), (labels,)) or not weight.is_floating_point():
                raise ValueError(f"fastseg::{op}: {argument} must be a number or [{labels}], got {brief(weight)}")
            tables.append(matrix * weight.to(like.dtype))
        else:
            tables.append(matrix * checked_float(op, argument, weight))
    return torch.stack(tables)
