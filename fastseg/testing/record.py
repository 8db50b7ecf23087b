"""The calls of registered ops behind a call of a public function, backward included."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .. import _registry
from .case import Case
from .check import run


class Recorder(TorchDispatchMode):
    """Keeps the overload and the arguments of every fastseg op that is called under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in {overload for op in _registry.OPS.values() for overload in (op.overload, op.slow)}:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def recorded_calls(
    case: Case, dtype: torch.dtype, layout: str = "contiguous", device: str = "cpu"
) -> list[tuple[Any, tuple[Any, ...]]]:
    """Overloads and arguments of every fastseg op that one row calls."""
    with Recorder() as recorder:
        run(case, dtype, layout, device)
    return recorder.calls
