"""Rows of the table of cases, one after the other, in this process: what `fastseg selftest` and the ladder run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from .. import _registry
from .case import Case
from .check import judge, run

KEY = {"cpu": "CPU", "cuda": "CUDA"}


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


def selftest(
    rows: Iterable[Case],
    path: str,
    *,
    device: str = "cpu",
    layouts: Iterable[str] = ("contiguous",),
    dtypes: Iterable[torch.dtype] | None = None,
) -> Iterator[Outcome]:
    """Run and judge rows.

    Args:
        rows: of the table of cases.
        path: what every op that has a kernel must run on, as `fastseg.trace` writes it behind the colon.
        device: where the inputs live; the truth is computed on the CPU.
        layouts, dtypes: of the inputs; None takes every dtype of the row.
    """
    native = kernels(device)
    for case in rows:
        for dtype in case.dtypes:
            if dtypes is not None and dtype not in dtypes:
                continue
            for layout in layouts:
                yield _outcome(case, dtype, layout, device, path, native)


def _outcome(case: Case, dtype: torch.dtype, layout: str, device: str, path: str, native: set[str]) -> Outcome:
    name, fault = str(dtype).removeprefix("torch."), ""
    paths: tuple[str, ...] = ()
    try:
        got = run(case, dtype, layout, device)
        paths = got.paths
        judge(case, dtype, got)
        strays = [p for p in paths if p.split(":")[1] != (path if p.split(":")[0] in native else "reference")]
        if strays:
            fault = f"expected {path}, took {', '.join(strays)}"
    except (AssertionError, RuntimeError) as error:
        fault = f"{type(error).__name__}: {error}"
    return Outcome(case.name, name, layout, paths, any(p.endswith(f":{path}") for p in paths), fault)
