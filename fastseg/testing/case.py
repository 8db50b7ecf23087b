"""One row of the table of cases, and how to find the rows."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .bands import Band

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
TAGS = frozenset({"smoke", "odd", "paper", "bench", "heavy", "degenerate", "cpu"})

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def tensors_of(result: Any) -> tuple[Tensor, ...]:
    """The tensors of a result, however tuples, lists and dictionaries hold them; numbers are left out."""
    if isinstance(result, Tensor):
        return (result,)
    if isinstance(result, dict):
        result = list(result.values())
    return tuple(t for part in result for t in tensors_of(part)) if isinstance(result, tuple | list) else ()


def _one(inputs: Inputs) -> int:
    return 1


@dataclass(frozen=True)
class Case:
    """One call of one op, for tests, benchmarks and `fastseg bench` alike.

    Args:
        op: name of the function in `fastseg.ops`.
        id: name of the row, unique within the op.
        make: `(seed, dtype, device, layout) -> (args, kwargs)`, the same values for every layout.
        grad: which arguments are differentiated, by position or by keyword.
        tags: `smoke` and `odd` rows meet every dtype and layout; `paper` rows are sizes that the literature uses;
            `bench` rows are timed, and those that are `heavy` too are judged there only; `degenerate` rows are empty,
            constant, all-ignored or not finite; `cpu` rows ask for an algorithm that only the CPU's kernels have.
        dtypes: what `dtype` may be for this row.
        exponential: whether floating results go through exp, which magnifies round-off.
        counts: whether integer results are counts of pixels, of which a tie moves one.
        terms: how many terms the sum behind a gradient has.
        summands: how many the sum behind a result has.
        pixels: how many entries of a gradient have errors that are independent, which bounds its bias.
        gemm: whether a library's GEMM or convolution is behind it, whose sums depend on the number of threads and on
            the memory format.
        band: for integer results: how far each pixel is from a tie, and how near is near enough to differ.
        backward: for an op whose backward reads its result, rounded to the dtype: `(inputs, result, upstream)`, all in
            float64, to the gradients.
        oracle: another library's function with the arguments of the op, which is right instead of the reference where
            that takes too long.
    """

    op: str
    id: str
    make: Callable[[int, torch.dtype, str, str], Inputs]
    grad: tuple[int | str, ...] = ()
    tags: frozenset[str] = frozenset()
    dtypes: tuple[torch.dtype, ...] = FLOATS
    exponential: bool = False
    counts: bool = False
    terms: Callable[[Inputs], float] = _one
    summands: Callable[[Inputs], float] = _one
    pixels: Callable[[Inputs], int] = _one
    gemm: bool = False
    band: Callable[[Inputs, torch.dtype, Tensor | None], Band] | None = None
    backward: Callable[[Inputs, Tensor, Tensor], tuple[Tensor, ...]] | None = None
    oracle: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        unknown = self.tags - TAGS
        if unknown:
            raise ValueError(f"fastseg::Case: tags must be among {sorted(TAGS)}, got {sorted(unknown)}")

    @property
    def name(self) -> str:
        """`op-id`."""
        return f"{self.op}-{self.id}"


def tables() -> dict[str, Any]:
    """Stem -> the module with its rows."""
    from . import cases as stems

    names = [module.name for module in pkgutil.iter_modules(stems.__path__)]
    return {name: importlib.import_module(f"{stems.__name__}.{name}") for name in names}


def stem_of(op: str) -> str:
    """The stem whose table has rows of this op."""
    return next(stem for stem, table in tables().items() if any(case.op == op for case in table.CASES))


def find_cases(op: str | None = None, *tags: str) -> list[Case]:
    """Rows of every stem, or those of one op, that have at least one of the tags (any, if none is given)."""
    rows: list[Case] = [case for table in tables().values() for case in table.CASES]
    return [c for c in rows if op in (None, c.op) and (not tags or c.tags.intersection(tags))]
