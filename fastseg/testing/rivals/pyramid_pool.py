"""Pyramid pooling as plain PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def pyramid_pool(x: Tensor, bins: Sequence[int] = (1, 2, 4), mode: str = "max") -> tuple[Tensor, ...]:
    """An adaptive pool for each level: the map is read once for each."""
    pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    return tuple(pool(x, n) for n in bins)


PLAIN: Mapping[str, Callable[..., Any]] = {"pyramid_pool": pyramid_pool}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
