"""Calls whose arguments or results pass what 32 bits hold: only the first and the last block are computed, and of a
library's products between Triton's kernels the first and the last pixels.

`python -m fastseg.testing.limit triton` runs them in Triton's interpreter, under TRITON_INTERPRET=1, and `... cuda` on
the host, in an environment of `fastseg.testing.ladder.host`. A line says of each what is wrong.
"""

import argparse
import importlib
import math
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from unittest.mock import patch

import torch
from torch import Tensor

from .. import _registry
from .._trace import trace
from .ladder.sources import cuda_ops
from .layouts import sparse

NEAR = 1e-3  # of values up to 1 in half precision; counts are equal. A wrong place holds another value altogether.

PIXELS = 2**14  # of either end, more than a program has

PATHS = {"cuda": "cuda/host", "triton": "triton/interpreter"}


@dataclass(frozen=True)
class Limit:
    """One such call. A stem lists its own as `LIMITS` in `fastseg/testing/limits`.

    Args:
        op: the registered op that it calls: it runs where this one has a kernel of the kind that is asked for.
        name: what is beyond 32 bits.
        call: makes the arguments, by `zeros_but_ends` perhaps, and returns a result.
        first, last: the values at its ends.
    """

    op: str
    name: str
    call: Callable[[], Tensor]
    first: float
    last: float


def _modules() -> list[ModuleType]:
    from . import limits as stems

    return [importlib.import_module(f"{stems.__name__}.{m.name}") for m in pkgutil.iter_modules(stems.__path__)]


def find_limits() -> list[Limit]:
    """Those of every stem."""
    return [limit for module in _modules() for limit in module.LIMITS]


def unlimited() -> dict[str, str]:
    """Ops that cannot be called with so much, and why: `UNLIMITED` of the stems."""
    return {op: why for module in _modules() for op, why in getattr(module, "UNLIMITED", {}).items()}


def zeros_but_ends(value: float, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros that take no memory, but for a value at the first and at the last place; of maps, in their last class."""
    x = sparse(math.prod(shape), dtype).view(shape)
    planes = x[:, -1] if len(shape) == 4 else x
    planes[(0,) * planes.dim()] = planes[(-1,) * planes.dim()] = value
    return x


def fault(limit: Limit, path: str) -> str:
    """What is wrong with the ends of the result, or with the kernel that ran, if anything."""
    with trace() as paths:
        result = limit.call()
    if f"{limit.op}:{path}" not in paths:
        return f"{limit.op}, {limit.name}: must run on {path}, took {', '.join(paths) or 'no path at all'}"
    got = [float(result[(end,) * result.dim()]) for end in (0, -1)]
    right = all(abs(g - e) <= NEAR for g, e in zip(got, (limit.first, limit.last), strict=True))
    return "" if right else f"{limit.op}, {limit.name}: ends in {got}, not {[limit.first, limit.last]}"


@contextmanager
def _products_of_ends() -> Iterator[None]:
    """The library's products that launchers ask for, of the first and the last pixels: matrices have a row for each."""
    bmm, addmm = torch.bmm, torch.addmm

    def ends(size: int) -> tuple[slice, ...]:
        return (slice(PIXELS), slice(-PIXELS, None)) if size > 2 * PIXELS else (slice(None),)

    def product(a: Tensor, b: Tensor, *, out: Tensor) -> None:
        for end in ends(a.shape[1]):
            out[:, end] = bmm(a[:, end], b)

    def sum_of_products(total: Tensor, a: Tensor, b: Tensor, *, out: Tensor) -> None:
        for end in ends(b.shape[0]):
            addmm(out, a[:, end], b[end], out=out)

    launchers = importlib.import_module("fastseg.kernels._products")
    one_band = patch.object(launchers, "WORKSPACE", 2**40)  # of memory that nobody touches
    with patch.object(torch, "bmm", product), patch.object(torch, "addmm", sum_of_products), one_band:
        yield


@contextmanager
def interpreted_ends() -> Iterator[None]:
    """Of Triton's launches, the first and the last program, in the interpreter."""
    from .ladder.interpreter import run_ends
    from .ladder.kernels import launched

    with launched(run_ends), _products_of_ends():
        yield


@contextmanager
def _ends_of(kind: str) -> Iterator[None]:
    if kind == "cuda":
        os.environ["FASTSEG_HOST_ENDS"] = "1"
        yield
        return
    from .ladder.kernels import use_kernels

    use_kernels()
    with interpreted_ends():
        yield


def _runs(limit: Limit, kind: str) -> bool:
    return bool(_registry.OPS[limit.op].triton) if kind == "triton" else limit.op in cuda_ops()


def main() -> int:
    """Run the limits of one kind of kernels; 1 if one is wrong or none ran, 2 in a wrong environment."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("kind", choices=("cuda", "triton"))
    kind = parser.parse_args().kind
    variable = {"cuda": "FASTSEG_LIBRARY", "triton": "TRITON_INTERPRET"}[kind]
    if not os.environ.get(variable):
        parser.error(f"{kind} must be run with {variable} set: anything else would compute the whole results")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with _ends_of(kind):
        said = [fault(limit, PATHS[kind]) for limit in find_limits() if _runs(limit, kind)]
    print(*filter(None, said), f"{len(said)} limits, {sum(map(bool, said))} wrong", sep="\n")
    return int(any(said) or not said)


if __name__ == "__main__":
    sys.exit(main())
