"""Deterministic inputs: logits of several kinds, and labels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("smooth", "noise", "wide", "masked", "ties", "constant", "nan", "inf", "minus_inf", "minus_inf_pixel")


def generator(seed: int) -> torch.Generator:
    """A CPU generator: the same values on every device."""
    return torch.Generator().manual_seed(seed)


def logits(shape: Sequence[int], kind: str, seed: int) -> Tensor:
    """Float64 maps [N, C, h, w].

    Args:
        shape: N, C, h, w.
        kind: `smooth`, noise without the upper 7/8 of the spectrum, like the logits of a model; `noise`, white;
            `wide`, noise whose exponentials underflow in float32; `masked`, noise with about a third of the entries at
            -1e4; `ties`, small integers, so that equal maxima are common; `constant`; `nan`, `inf` and `minus_inf`,
            noise with some such entries; `minus_inf_pixel`, noise with a source pixel where every class is -inf.
        seed: of the generator.
    """
    n, c, h, w = shape
    g = generator(seed)
    if kind == "constant" or 0 in shape:
        return torch.zeros(n, c, h, w, dtype=torch.float64)
    if kind == "ties":
        return torch.randint(-2, 3, (n, c, h, w), generator=g).double()
    if kind == "smooth":
        coarse = torch.randn(n, c, h // 8 + 2, w // 8 + 2, generator=g, dtype=torch.float64)
        return 4 * F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=True)
    x = 2 * torch.randn(n, c, h, w, generator=g, dtype=torch.float64)
    if kind == "wide":
        return 40 * x
    special = {"nan": float("nan"), "inf": float("inf"), "minus_inf": -float("inf")}
    if kind in special:
        x.masked_fill_(torch.rand(n, c, h, w, generator=g) < 0.5 / c, special[kind])
    elif kind == "masked":
        x.masked_fill_(torch.rand(n, c, h, w, generator=g) < 1 / 3, -1e4)
    elif kind == "minus_inf_pixel":
        x[:, :, h // 2, w // 2] = -float("inf")
    elif kind != "noise":
        raise ValueError(f"fastseg::logits: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return x


def labels(
    shape: Sequence[int], classes: int, dtype: torch.dtype, seed: int, ignore_index: int | None = None
) -> Tensor:
    """Labels in [0, classes), about one in ten of them `ignore_index` if that is given and fits the dtype."""
    g = generator(seed)
    x = torch.randint(0, classes, tuple(shape), generator=g)
    info = torch.iinfo(dtype)
    if ignore_index is not None and info.min <= ignore_index <= info.max:
        x.masked_fill_(torch.rand(tuple(shape), generator=g) < 0.1, ignore_index)
    return x.to(dtype)
