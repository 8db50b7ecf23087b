"""What the doors of several stems ask of their arguments: maps, sizes, labels, and results shaped like maps."""

from typing import Any

import torch
from torch import Tensor

from .._registry import FLOATS
from ..reference.upsample import memory_format

Size = tuple[int, int] | list[int] | torch.Size


def brief(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)}"


def checked_maps(op: str, argument: str, x: Tensor, size: Size) -> tuple[int, int]:
    """Check a batch of maps and a target size; return the size."""
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype not in FLOATS:
        got = brief(x) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"fastseg::{op}: {argument} must be a floating tensor [N, C, h, w], got {got}")
    if len(size) != 2 or min(size) < 0:
        raise ValueError(f"fastseg::{op}: size must be (H, W) in pixels, got {tuple(size)}")
    height, width = size
    if (x.shape[2] == 0 or x.shape[3] == 0) and x.shape[0] and height and width:
        raise ValueError(f"fastseg::{op}: {argument} must have pixels to make {tuple(size)} from, got {brief(x)}")
    return height, width


def check_ignore_index(op: str, ignore_index: int) -> None:
    """The kernels compare labels as int32, with the two extremes standing for everything beyond."""
    if not abs(ignore_index) < 2**31 - 1:
        raise ValueError(f"fastseg::{op}: ignore_index must be between -2^31 + 1 and 2^31 - 1, got {ignore_index}")


def empty_images(like: Tensor, shape: tuple[Any, ...], dtype: torch.dtype) -> Tensor:
    """An empty [N, C, H, W] in the memory format of `like`."""
    _, c, h, w = shape
    if memory_format(like) is torch.channels_last:
        return like.new_empty_strided(shape, (h * w * c, 1, w * c, c), dtype=dtype)
    return like.new_empty_strided(shape, (c * h * w, h * w, w, 1), dtype=dtype)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def pixels(shape: Any, *size: Any) -> int:
    return int(shape[0] * shape[1] * size[0] * size[1])
