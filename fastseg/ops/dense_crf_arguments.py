"""What the dense CRF asks of its arguments: deviations and compatibilities, as numbers or as tensors."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from ..reference.dense_crf_lattice import NORMALIZATIONS
from .arguments import brief, check_devices, checked_choice, checked_float, is_readable, is_whole
from .dense_crf_filters import METHODS

Numbers = float | Sequence[float] | Tensor
OUTPUTS = ("probabilities", "logits", "labels")
LEAST = 1e-30  # deviation over which positions are still finite; the message has it as it is, for dynamo


def checked_modes(
    op: str,
    iterations: int = 5,
    output: str = "probabilities",
    normalization: str = "symmetric",
    include_self: bool = True,
    spatial: str = "exact",
    bilateral: str = "lattice",
) -> tuple[str, bool, str, str]:
    """Check what is no tensor; return how the kernels are."""
    if not is_whole(iterations) or iterations < 0:
        raise ValueError(f"fastseg::{op}: iterations must be a whole number from 0 on, got {iterations!r}")
    if not isinstance(include_self, bool):
        raise ValueError(f"fastseg::{op}: include_self must be True or False, got {include_self!r}")
    checked_choice(op, "output", output, OUTPUTS)
    return (
        checked_choice(op, "normalization", normalization, NORMALIZATIONS),
        include_self,
        checked_choice(op, "spatial", spatial, METHODS),
        checked_choice(op, "bilateral", bilateral, METHODS),
    )


def floats_of(sigma: Numbers, n: int) -> list[float]:
    """Deviations that are not differentiated, as n numbers."""
    values = sigma.tolist() if isinstance(sigma, Tensor) else sigma
    return [float(x) for x in values] if isinstance(values, Sequence) else [float(values)] * n


def deviations_of(op: str, argument: str, sigma: Numbers, n: int, like: Tensor) -> Tensor:
    """Positive numbers [n] in float64, or one for all."""
    rule = f"fastseg::{op}: {argument} must be a number of at least 1e-30, or {n} of them"
    if isinstance(sigma, Tensor):
        if sigma.shape not in ((), (n,)) or not sigma.is_floating_point():
            raise ValueError(f"{rule}, got {brief(sigma)}")
        check_devices(op, like, **{argument: sigma})
        wide = sigma.double()
        if is_readable(sigma) and not ((wide >= LEAST) & (wide < math.inf)).all():
            raise ValueError(f"{rule}, got {sigma.tolist()}")
        return wide.expand(n)
    numbers = list(sigma) if isinstance(sigma, Sequence) and not isinstance(sigma, str) else [sigma] * n
    if len(numbers) != n or not all(isinstance(x, Real | torch.SymFloat) and LEAST <= x < math.inf for x in numbers):
        raise ValueError(f"{rule}, got {sigma!r}")
    # Filled and not copied: a copy to a device waits for it.
    return torch.stack([torch.full((), float(x), dtype=torch.float64, device=like.device) for x in numbers])


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
