"""The same values in different places of memory."""

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "permuted")


def poison(dtype: torch.dtype) -> float | int | bool:
    """What no result may depend on: NaN, or the largest integer."""
    if dtype.is_floating_point:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).max


def with_layout(x: Tensor, layout: str) -> Tensor:
    """Copy `x` into one of the layouts.

    Args:
        x: any tensor.
        layout: `contiguous`; `channels_last` (4-D only, contiguous otherwise); `sliced`, a view with an offset and
            gaps that hold NaN or the largest integer; `permuted`, dense with the dimensions stored in reverse order.
    """
    if layout == "sliced":
        shape = [2 * n + 2 if d == x.dim() - 1 else n + 2 for d, n in enumerate(x.shape)]
        gaps = torch.full(shape, poison(x.dtype), dtype=x.dtype, device=x.device)
        view = gaps[tuple(slice(1, -1, 2 if d == x.dim() - 1 else 1) for d in range(x.dim()))]
        return view.copy_(x)
    if layout == "permuted":
        order = tuple(reversed(range(x.dim())))
        return x.permute(order).clone(memory_format=torch.contiguous_format).permute(order)
    if layout == "channels_last" and x.dim() == 4:
        return x.clone(memory_format=torch.channels_last)
    if layout in ("contiguous", "channels_last"):
        return x.clone(memory_format=torch.contiguous_format)
    raise ValueError(f"fastseg::with_layout: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
