"""Proven tie bands: how far each output pixel is from changing its integer result."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import tolerances


@dataclass(frozen=True)
class Band:
    """Distance of every output pixel from a tie (`gap`), and the distance within which results may differ (`width`).

    Where the gap is not a number (two infinities, a NaN) there is no excuse.
    """

    gap: Tensor
    width: Tensor

    @property
    def undecided(self) -> Tensor:
        """True where another result is as good."""
        return self.gap <= self.width


def corners(source: int, out: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Indices of the two source pixels around each output pixel, in exact integer arithmetic."""
    p = torch.arange(out)
    if align_corners:
        low = p * (source - 1) // max(out - 1, 1)
    else:
        low = (((2 * p + 1) * source - out) // (2 * out)).clamp(min=0)
    return low, (low + 1).clamp(max=source - 1)


def _largest_corner(m: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Largest of the four corners of each output pixel: [N, C, h, w] -> [N, C, H, W]."""
    for dim, out in ((2, size[0]), (3, size[1])):
        low, high = corners(m.shape[dim], out, align_corners)
        m = torch.maximum(m.index_select(dim, low), m.index_select(dim, high))
    return m


def _magnitude(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x.abs(), 0.0)


def _upsampled(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    if 0 in (*x.shape, *size):
        return x.new_zeros(*x.shape[:2], *size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def _width(magnitude: Tensor, size: tuple[int, int], align_corners: bool, dtype: torch.dtype) -> Tensor:
    largest = _largest_corner(magnitude, size, align_corners).to(tolerances.compute_dtype(dtype))
    ulp = torch.nextafter(largest, torch.full_like(largest, float("inf"))) - largest
    width = tolerances.TIE_ULPS * ulp.double()
    if dtype == torch.float64:
        width = width + tolerances.floor(dtype, max(magnitude.shape[2:])) * largest
    return width


def argmax(
    logits: Tensor, size: tuple[int, int], align_corners: bool, dtype: torch.dtype, plain: Tensor | None = None
) -> Band:
    """Gap between the two best classes of float64 `logits` [N, C, h, w] at every pixel [N, H, W].

    Args:
        logits: the given logits, as float64.
        size: output height and width.
        align_corners: as the op.
        dtype: of the given logits.
        plain: the same logits in float32 if the results of plain PyTorch are to be judged: its own error at each pixel
            is then added to the width, because it rounds the source coordinate to float32.
    """
    full = _upsampled(logits, size, align_corners)
    if full.shape[1] == 1:
        gap = full.new_full((full.shape[0], *size), float("inf"))
    else:
        best = full.topk(2, dim=1).values
        gap = best[:, 0] - best[:, 1]
    width = _width(_magnitude(logits).amax(1, keepdim=True), size, align_corners, dtype)[:, 0]
    if plain is not None:
        width = width + 2 * (_upsampled(plain, size, align_corners).double() - full).abs().amax(1).nan_to_num(0, 0, 0)
    return Band(gap, width)


def threshold(
    logits: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    dtype: torch.dtype,
    level: float,
    plain: Tensor | None = None,
) -> Band:
    """Distance of each value of float64 `logits` [N, C, h, w] from the level, [N, C, H, W]; arguments as `argmax`."""
    full = _upsampled(logits, size, align_corners)
    width = _width(_magnitude(logits), size, align_corners, dtype)
    if plain is not None:
        width = width + (_upsampled(plain, size, align_corners).double() - full).abs().nan_to_num(0, 0, 0)
    return Band((full - level).abs(), width)
