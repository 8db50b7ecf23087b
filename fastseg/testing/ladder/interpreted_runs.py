"""Rows of Triton kernels in this process, which runs under TRITON_INTERPRET=1; mutants are folders."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import torch

from ... import _registry
from ..case import Case, stem_of, tables
from ..check import run
from ..data_errors import DataError, fault_of
from ..layouts import FAR, LAYOUTS
from ..limit import PATHS, fault, find_limits, interpreted_ends
from ..selftest import selftest
from .interpreter import PATH, backwards, narrow, run_fenced
from .kernels import TooLarge, full_name, launched, ops_behind, rows, use_kernels
from .sources import files_of, find_sources

LIMITS = "limits"


def find_jobs(file: Path) -> list[tuple[str, str, str]]:
    """Rows of the families whose kernels a file is part of: in every dtype, those tagged smoke in every layout, and
    spread over 2^31 elements in one dtype; and the limits of their ops."""
    concerned = {source.stem for source in find_sources() if file.resolve() in files_of(source.path)}

    def concerns(ops: Iterable[str]) -> bool:
        behind = {name for op in ops for name in (op, *ops_behind(op))}
        return any(_registry.OPS[name].triton in concerned for name in behind & _registry.OPS.keys())

    families = {stem for stem, table in tables().items() if concerns({case.op for case in table.CASES})}
    cases = [case for case in rows() if stem_of(case.op) in families]
    jobs = []
    for i, case in enumerate(cases):
        for j, dtype in enumerate(case.dtypes):
            layouts = LAYOUTS if "smoke" in case.tags else (LAYOUTS[(i + j) % len(LAYOUTS)],)
            jobs += [(case.name, str(dtype).removeprefix("torch."), layout) for layout in layouts]
    small = [case for case in cases if "smoke" in case.tags]
    jobs += [(case.name, str(narrow(case)).removeprefix("torch."), far) for case in small for far in FAR]
    mine = ((i, limit.op) for i, limit in enumerate(find_limits()) if _registry.OPS[limit.op].triton)
    return jobs + [(LIMITS, op, str(i)) for i, op in mine if concerns([op])]


def reached(case: Case, dtype: torch.dtype, layout: str) -> tuple[set[str], int]:
    """Every Triton function, `module.function`, that a row would run, and in how many programs: its launches are looked
    at in place of run."""
    launches: list[Any] = []
    with launched(launches.append):
        run(case, dtype, layout)
    functions = {name for launch in launches for name in functions_behind(launch)}
    return functions, sum(launch.programs for launch in launches)


def functions_behind(launch: Any) -> Iterator[str]:
    """The kernel of a launch, what it is told to call, and what those call."""
    seen, queue = set(), [launch.kernel, *launch.arguments.values(), *launch.options.values()]
    while queue:
        function = getattr(queue.pop(), "fn", None)
        if isinstance(function, FunctionType) and function not in seen:
            seen.add(function)
            queue += [function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__]
            yield full_name(function)


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


def red_limit(number: int) -> tuple[str, str]:
    """How and why a call beyond 32 bits goes red."""
    limit, memory = find_limits()[number], cast(Any, torch.utils.deterministic)
    poisoned = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False  # there is too much of it
    try:
        with interpreted_ends():
            why = fault(limit, PATHS["triton"])
    except Exception as error:  # whatever a broken kernel may raise
        why = f"{limit.op}, {limit.name}: {error}"
    finally:
        memory.fill_uninitialized_memory = poisoned
    return ("interpreter", why) if why else ("", "")
