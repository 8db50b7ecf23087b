"""Rows of Triton kernels in this process, which runs under TRITON_INTERPRET=1; mutants are folders."""

import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import torch

from ..case import Case
from ..data_errors import DataError, fault_of
from ..layouts import FAR, LAYOUTS
from ..selftest import selftest
from .interpreter import PATH, backwards, narrow, run_fenced
from .kernels import TooLarge, launched, rows, use_kernels


def find_jobs() -> list[tuple[str, str, str]]:
    """Rows in every dtype, those tagged smoke in every layout, and spread over 2^31 elements in one dtype."""
    cases = rows()
    jobs = []
    for i, case in enumerate(cases):
        for j, dtype in enumerate(case.dtypes):
            layouts = LAYOUTS if "smoke" in case.tags else (LAYOUTS[(i + j) % len(LAYOUTS)],)
            jobs += [(case.name, str(dtype).removeprefix("torch."), layout) for layout in layouts]
    small = [case for case in cases if "smoke" in case.tags]
    return jobs + [(case.name, str(narrow(case)).removeprefix("torch."), far) for case in small for far in FAR]


def use(folder: Path) -> None:
    """Take `fastseg.kernels` from this folder from now on."""
    for name in [name for name in sys.modules if name.startswith("fastseg.kernels")]:
        del sys.modules[name]
    use_kernels(folder)


def red(case: Case, dtype: torch.dtype, layout: str) -> tuple[str, str]:
    """How and why a row goes red; one that is too large for the interpreter does not."""
    with launched(run_fenced):
        try:
            (outcome,) = selftest([case], PATH, layouts=[layout], dtypes=[dtype], repeat=backwards)
        except TooLarge:
            return "", ""
    if outcome.fault:
        return "interpreter", f"{case.name} {dtype} {layout}: {outcome.fault}"
    return "", ""


def red_data_error(error: DataError, value: int) -> tuple[str, str]:
    """How and why a data error with one of its values goes red; one that is too large does not."""
    with launched(run_fenced), suppress(TooLarge):
        for order in (nullcontext, backwards):
            with order():
                if fault := fault_of(error, "cpu", error.values[value]):
                    return "interpreter", f"{error.name}: {fault}"
    return "", ""
