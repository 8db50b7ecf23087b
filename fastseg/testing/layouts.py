"""The same values in different places of memory."""

import mmap

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "permuted")
# Where addresses go wrong that are right elsewhere; on the CPU only, and for kernels whose rows are small.
FAR = ("far0", "far1", "far2", "far3", "apart0", "apart1", "apart2", "apart3")
REMOTE = ("offset", *FAR)
REACH = 2**31  # elements that an index of 32 bits does not reach
_SPARSE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)


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
            gaps that hold NaN or the largest integer; `permuted`, dense with the dimensions stored in reverse order;
            `offset`, dense from the second element of its memory on, at an address that no wide load takes; `far0` to
            `far3`, that dimension spread over 2^31 elements of memory, and `apart0` to `apart3`, so far between
            neighbours (contiguous where there is no such dimension).
    """
    if layout in FAR:
        return _far(x, int(layout[-1]), between=layout.startswith("apart"))
    if layout == "offset":
        memory = torch.full((x.numel() + 1,), poison(x.dtype), dtype=x.dtype, device=x.device)
        return memory[1:].view(x.shape).copy_(x)
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
    known = ", ".join((*LAYOUTS, *REMOTE))
    raise ValueError(f"fastseg::with_layout: layout must be one of {known}, got {layout!r}")


def sparse(size: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take memory where they are written only."""
    return torch.frombuffer(mmap.mmap(-1, max(size, 1) * dtype.itemsize, flags=_SPARSE), dtype=dtype)


def reach_of(x: Tensor) -> int:
    """Elements from the first one of a tensor to behind its last one in memory."""
    return 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0


def _far(x: Tensor, dim: int, between: bool) -> Tensor:
    if x.device.type != "cpu":
        raise ValueError(f"fastseg::with_layout: x must be on the CPU to be spread over memory, got {x.device}")
    if x.dim() <= dim or x.shape[dim] < 2 or x.numel() == 0:
        return x.clone(memory_format=torch.contiguous_format)
    strides = list(x.contiguous().stride())
    strides[dim] = max(REACH if between else REACH // (x.shape[dim] - 1) + 1, strides[dim])
    reach = reach_of(torch.empty_strided(x.shape, strides, device="meta"))
    return sparse(reach, x.dtype).as_strided(x.shape, strides).copy_(x)
