"""Instruction sets under test, switched inside the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import _native


def isas() -> tuple[str, ...]:
    """Instruction sets that this machine runs, the best one last; `("reference",)` without the native library."""
    return tuple(torch.ops.fastseg._cpu_isas().split()) if _native.loaded else ("reference",)


def best_isa() -> str:
    """The last of `isas()`."""
    return isas()[-1]


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Run the CPU kernels of one of `isas()` in the whole process."""
    if not _native.loaded:
        yield
        return
    previous = _native.cpu_isa()
    torch.ops.fastseg._use_cpu_isa(name)
    try:
        yield
    finally:
        torch.ops.fastseg._use_cpu_isa(previous)


def expected_path(isa: str) -> str:
    """What `fastseg.trace()` writes behind the name of an op that ran where it should on the CPU."""
    return f"cpu/{isa}" if _native.loaded else "reference"
