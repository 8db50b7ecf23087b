"""What the doors of several stems ask of their arguments: maps, sizes, labels, and results shaped like maps."""

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .._registry import FLOATS, INTEGERS
from ..reference.upsample import memory_format

Size = int | tuple[int, int] | list[int] | torch.Size
IGNORED = 255
# Unsigned labels that torch has few kernels for, and what holds all of them. None does for uint64.
WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}


def brief(x: Any) -> str:
    return f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def is_whole(x: Any) -> bool:
    return isinstance(x, Integral | torch.SymInt)


def checked_float(op: str, argument: str, x: Any) -> float:
    if not isinstance(x, Real | torch.SymFloat):
        raise ValueError(f"fastseg::{op}: {argument} must be a number, got {x!r}")
    return float(x)


def checked_size(op: str, size: Size) -> tuple[int, int]:
    """Check a size; return (height, width), the same twice for a single number."""
    pair: tuple[Any, ...] = (size, size) if is_whole(size) else tuple(size) if isinstance(size, tuple | list) else ()
    if len(pair) != 2 or not all(is_whole(extent) and extent >= 0 for extent in pair):
        raise ValueError(f"fastseg::{op}: size must be (H, W) in pixels, got {pair or size!r}")
    return pair[0], pair[1]


def checked_maps(op: str, argument: str, x: Tensor, size: Size) -> tuple[int, int]:
    """Check a batch of maps and a target size; return the size."""
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype not in FLOATS:
        raise ValueError(f"fastseg::{op}: {argument} must be a floating tensor [N, C, h, w], got {brief(x)}")
    height, width = checked_size(op, size)
    if (x.shape[2] == 0 or x.shape[3] == 0) and x.shape[0] and height and width:
        raise ValueError(f"fastseg::{op}: {argument} must have pixels to make {(height, width)} from, got {brief(x)}")
    return height, width


def checked_target(op: str, target: Tensor) -> Tensor:
    """Check a target; return it, in a wider dtype where the kernels do not take its own."""
    if not isinstance(target, Tensor) or target.dim() != 3 or target.dtype not in (*INTEGERS, *WIDER):
        raise ValueError(f"fastseg::{op}: target must be an integer tensor [N, H, W], got {brief(target)}")
    return widened(target)


def widened(labels: Tensor) -> Tensor:
    return labels.to(WIDER.get(labels.dtype, labels.dtype))


def checked_ignore_index(op: str, ignore_index: int | None, classes: int) -> int:
    """The kernels compare labels as int32, with the two extremes standing for everything beyond."""
    if ignore_index is None:
        if classes > IGNORED:
            raise ValueError(f"fastseg::{op}: ignore_index must be given where its default {IGNORED} is a class, got "
                             f"None for {classes} classes")  # fmt: skip
        return IGNORED
    if not is_whole(ignore_index) or not abs(ignore_index) < 2**31 - 1:
        raise ValueError(f"fastseg::{op}: ignore_index must be between -2^31 + 1 and 2^31 - 1, got {ignore_index!r}")
    return ignore_index


def checked_pair(op: str, argument: str, x: Any, least: int) -> tuple[int, int]:
    """Check whole numbers along y and x, or one for both; return them."""
    pair: tuple[Any, ...] = (x, x) if is_whole(x) else tuple(x) if isinstance(x, tuple | list) else ()
    if len(pair) != 2 or not all(is_whole(n) and least <= n < 2**30 for n in pair):
        raise ValueError(f"fastseg::{op}: {argument} must be a whole number of at least {least}, or two, got {x!r}")
    return pair[0], pair[1]


def checked_choice(op: str, argument: str, x: Any, choices: Collection[str]) -> str:
    if not isinstance(x, str) or x not in choices:
        raise ValueError(f"fastseg::{op}: {argument} must be one of {', '.join(choices)}, got {x!r}")
    return str(x)


def check_map(op: str, argument: str, x: Any) -> None:
    if not isinstance(x, Tensor) or x.dim() != 4 or x.dtype not in FLOATS:
        raise ValueError(f"fastseg::{op}: {argument} must be a floating tensor [N, C, H, W], got {brief(x)}")


def check_weight(op: str, argument: str, weight: Any, x: Tensor, shape: tuple[int | None, ...]) -> None:
    """A weight has the dtype of x, unless autocast sees to that, and this shape, where None is any extent but 0."""
    fits = isinstance(weight, Tensor) and weight.dim() == len(shape) and weight.dtype in FLOATS
    fits = fits and (weight.dtype == x.dtype or under_autocast(x))
    if not fits or not all(n in (None, m) and m for n, m in zip(shape, weight.shape, strict=True)):
        rule = "x".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"fastseg::{op}: {argument} must be {x.dtype} of {rule}, got {brief(weight)}")


def under_autocast(x: Tensor) -> bool:
    """Whether autocast is about to cast tensors like this one."""
    return x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A block where autocast casts nothing like this tensor."""
    return torch.autocast(x.device.type, enabled=False) if under_autocast(x) else nullcontext()


def check_vectors(op: str, channels: int, **vectors: Tensor | None) -> None:
    """Biases, scales and shifts have a value for each channel, in any floating dtype."""
    for argument, v in vectors.items():
        if v is not None and (not isinstance(v, Tensor) or v.dtype not in FLOATS or v.shape != (channels,)):
            raise ValueError(f"fastseg::{op}: {argument} must be a floating tensor [{channels}], got {brief(v)}")


def check_table(op: str, argument: str, table: Tensor | None, shape: tuple[int, int]) -> None:
    """A matrix in any floating dtype."""
    fits = isinstance(table, Tensor) and table.dtype in FLOATS and table.shape == shape
    if table is not None and not fits:
        raise ValueError(f"fastseg::{op}: {argument} must be floating {list(shape)}, got {brief(table)}")


def is_eager(x: Tensor) -> bool:
    """Whether nothing is traced, and a tensor is memory and no stand-in of `torch.func`."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return (
        not traced
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def is_readable(x: Tensor) -> bool:
    """Whether values can be looked at: nothing is traced, and no device is to be waited for."""
    return is_eager(x) and x.device.type == "cpu"


def is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether autograd is about to record a call with these arguments."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def check_devices(op: str, like: Tensor, **others: Tensor | None) -> None:
    for argument, other in others.items():
        if other is not None and other.device != like.device:
            raise ValueError(f"fastseg::{op}: {argument} must be on {like.device} as the rest, got {other.device}")


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
