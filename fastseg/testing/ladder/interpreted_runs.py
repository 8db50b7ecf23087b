"""Rows of Triton kernels in this process, which runs under TRITON_INTERPRET=1; mutants are folders."""

import sys
from pathlib import Path

import torch

from ..case import Case
from ..layouts import LAYOUTS
from ..selftest import selftest
from .interpreter import PATH, backwards, far, run_fenced
from .kernels import TooLarge, launched, rows, use_kernels

FAR = "far"


def find_jobs() -> list[tuple[str, str, str]]:
    """Rows in every dtype, those tagged smoke in every layout; offsets beyond 2^31 for one row of each op."""
    cases = rows()
    jobs = []
    for i, case in enumerate(cases):
        for j, dtype in enumerate(case.dtypes):
            layouts = LAYOUTS if "smoke" in case.tags else (LAYOUTS[(i + j) % len(LAYOUTS)],)
            jobs += [(case.name, str(dtype).removeprefix("torch."), layout) for layout in layouts]
    firsts = {case.op: case for case in reversed(cases) if "smoke" in case.tags}
    return jobs + [(case.name, "bfloat16", FAR) for case in firsts.values()]


def use(folder: Path) -> None:
    """Take `fastseg.kernels` from this folder from now on."""
    for name in [name for name in sys.modules if name.startswith("fastseg.kernels")]:
        del sys.modules[name]
    use_kernels(folder)


def red(case: Case, dtype: torch.dtype, layout: str) -> tuple[str, str]:
    """How and why a row goes red; one that is too large for the interpreter does not."""
    with launched(run_fenced):
        try:
            if layout == FAR:
                outcome = far(case, dtype)
            else:
                (outcome,) = selftest([case], PATH, layouts=[layout], dtypes=[dtype], repeat=backwards)
        except TooLarge:
            return "", ""
    if outcome.fault and not outcome.fault.startswith("TooLarge"):
        return "interpreter", f"{case.name} {dtype} {layout}: {outcome.fault}"
    return "", ""
