"""What the doors of distances ask of masks: which dimensions are space, how far apart elements are."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from .._registry import FLOATS, INTEGERS
from .arguments import WIDER, brief, is_whole, widened

MASKS = (torch.bool, *INTEGERS, *WIDER, *FLOATS)


def checked_spacing(op: str, spacing: Any) -> tuple[float, ...] | None:
    """Sizes of an element along each spatial dimension, as floats."""
    if spacing is None:
        return None
    given = tuple(spacing) if isinstance(spacing, Sequence) else ()
    if len(given) not in (2, 3) or not all(isinstance(s, Real) and 0 < float(s) < math.inf for s in given):
        raise ValueError(f"fastseg::{op}: spacing must be two or three positive finite numbers, got {spacing!r}")
    return tuple(map(float, given))


def checked_space(
    op: str, argument: str, mask: Any, spatial_dims: int | None, spacing: Any
) -> tuple[int, tuple[float, ...]]:
    """Check a mask; return how many of its last dimensions are space, and their spacing."""
    if not isinstance(mask, Tensor) or mask.dtype not in MASKS:
        raise ValueError(f"fastseg::{op}: {argument} must be a boolean, integer or floating tensor, got {brief(mask)}")
    given = checked_spacing(op, spacing)
    if spatial_dims is not None and not (is_whole(spatial_dims) and spatial_dims in (2, 3)):
        raise ValueError(f"fastseg::{op}: spatial_dims must be 2 or 3, got {spatial_dims!r}")
    if spatial_dims is None:
        if given is None and mask.dim() > 2:
            raise ValueError(f"fastseg::{op}: spatial_dims must be given where {argument} has more than two dimensions "
                             f"and there is no spacing, got {brief(mask)}")  # fmt: skip
        spatial_dims = 2 if given is None else len(given)
    if given is not None and len(given) != spatial_dims:
        raise ValueError(f"fastseg::{op}: spacing must have {spatial_dims} numbers as spatial_dims says, got {spacing}")
    if mask.dim() < spatial_dims:
        raise ValueError(f"fastseg::{op}: {argument} must have {spatial_dims} spatial dimensions, got {brief(mask)}")
    return int(spatial_dims), given or (1.0,) * spatial_dims


def images(mask: Tensor, spatial_dims: int) -> Tensor:
    """[..., D, H, W] or [..., H, W] -> [B, D, H, W], where D may be 1."""
    space = mask.shape[mask.dim() - spatial_dims :]
    batch = math.prod(mask.shape[: mask.dim() - spatial_dims])
    return mask.reshape(batch, *(1,) * (3 - spatial_dims), *space)


def volume_spacing(spacing: tuple[float, ...]) -> list[float]:
    """The spacing of `images`: along z, y and x."""
    return [*(1.0,) * (3 - len(spacing)), *spacing]


def as_mask(x: Tensor) -> Tensor:
    """Bytes that are nonzero where x is."""
    return x if x.dtype == torch.uint8 else (x if x.dtype == torch.bool else x != 0).view(torch.uint8)


def as_labels(op: str, argument: str, x: Tensor) -> Tensor:
    """Labels in a dtype of the kernels, or an error."""
    if x.is_floating_point():
        raise ValueError(f"fastseg::{op}: {argument} must be integer labels, got {brief(x)}")
    return x.view(torch.uint8) if x.dtype == torch.bool else widened(x)


def checked_classes(op: str, classes: Any) -> list[int]:
    """Labels that are objects of a label map."""
    given = list(classes) if isinstance(classes, Sequence | range) else []
    if not given or not all(is_whole(c) and abs(c) < 2**31 - 1 for c in given) or len(set(given)) < len(given):
        raise ValueError(f"fastseg::{op}: classes must be distinct labels of int32, at least one, got {classes!r}")
    return [int(c) for c in given]
