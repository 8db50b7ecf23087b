"""Rows of the table of cases, one after the other, in this process: what `fastseg selftest` and the ladder run."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .. import _registry
from .case import Case
from .check import assert_same, judge, run
from .layouts import LAYOUTS

KEY = {"cpu": "CPU", "cuda": "CUDA"}
Job = tuple[Case, torch.dtype, str]


@dataclass(frozen=True)
class Outcome:
    """What became of one row in one dtype and layout: `fault` is empty where all is right.

    `ran` is false where no op of the row has a kernel for the device: then nothing was proved.
    """

    case: str
    dtype: str
    layout: str
    paths: tuple[str, ...]
    ran: bool
    fault: str


def kernels(device: str) -> set[str]:
    """Ops that have a kernel of their own for the device in this process."""
    key = KEY[device]
    return {op for op in _registry.OPS if torch._C._dispatch_has_kernel_for_dispatch_key(f"fastseg::{op}", key)}


def layouts_of(case: Case) -> tuple[str, ...]:
    """Smoke and odd rows meet every layout, the others one."""
    return LAYOUTS if {"smoke", "odd"} & case.tags else LAYOUTS[:1]


def jobs(
    rows: Iterable[Case],
    layouts: Iterable[str] | None = ("contiguous",),
    dtypes: Iterable[torch.dtype] | None = None,
) -> Iterator[Job]:
    """What `selftest` runs, in its order."""
    wanted = None if dtypes is None else set(dtypes)
    given = None if layouts is None else tuple(layouts)
    for case in rows:
        for dtype in case.dtypes:
            if wanted is None or dtype in wanted:
                yield from ((case, dtype, layout) for layout in (layouts_of(case) if given is None else given))


def selftest(
    rows: Iterable[Case],
    path: str | Callable[[str], str],
    *,
    device: str = "cpu",
    layouts: Iterable[str] | None = ("contiguous",),
    dtypes: Iterable[torch.dtype] | None = None,
    repeat: Callable[[], AbstractContextManager[None]] | None = None,
) -> Iterator[Outcome]:
    """Run and judge rows; after an error that breaks the CUDA context there is nothing more to run.

    Args:
        rows: of the table of cases.
        path: what every op that has a kernel must run on, as `fastseg.trace` writes it behind the colon, or a function
            that says it of an op.
        device: where the inputs live; the truth is computed on the CPU.
        layouts, dtypes: of the inputs; None takes `layouts_of` the row, and every dtype of the row.
        repeat: what each row is run in once more, to be compared bit by bit: `unpoisoned`, say.
    """
    native = kernels(device)
    wanted = path if callable(path) else lambda op: path
    expected = lambda op: wanted(op) if op in native else "reference"  # noqa: E731
    for case, dtype, layout in jobs(rows, layouts, dtypes):
        paths: tuple[str, ...] = ()
        fault, broken = "", False
        try:
            got = run(case, dtype, layout, device)
            paths = got.paths
            judge(case, dtype, got)
            if repeat:
                with repeat():
                    assert_same(run(case, dtype, layout, device), got, "a repeat")
            fault = strays(paths, expected)
        except Exception as error:  # whatever a row raises is the fault of this row
            fault, broken = f"{type(error).__name__}: {error}", isinstance(error, torch.AcceleratorError)
        ran = any(p.split(":")[1] == wanted(p.split(":")[0]) for p in paths)
        yield Outcome(case.name, str(dtype).removeprefix("torch."), layout, paths, ran, " ".join(fault.split()))
        if broken:
            return


def strays(paths: Iterable[str], expected: Callable[[str], str]) -> str:
    """What is wrong with the paths taken, if anything."""
    wrong = [p for p in paths if p.split(":")[1] != expected(p.split(":")[0])]
    return f"expected {', '.join(expected(p.split(':')[0]) for p in wrong)}, took {', '.join(wrong)}" if wrong else ""


@contextmanager
def unpoisoned() -> Iterator[None]:
    """Fresh memory holds what was there, in deterministic mode too."""
    setting: Any = torch.utils.deterministic
    before = setting.fill_uninitialized_memory
    setting.fill_uninitialized_memory = False
    try:
        yield
    finally:
        setting.fill_uninitialized_memory = before


@contextmanager
def deterministic() -> Iterator[None]:
    """`torch.use_deterministic_algorithms(True)`, which also poisons fresh memory, for as long as the block lasts; and
    convolutions in float32 itself, not in TF32."""
    cudnn: Any = torch.backends.cudnn
    conv = cudnn.conv
    before, precision = torch.are_deterministic_algorithms_enabled(), conv.fp32_precision
    torch.use_deterministic_algorithms(True)
    conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        conv.fp32_precision = precision
