"""The Triton kernels of any folder in place of those of the package, and their launches under watch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType
from typing import Any

from ... import _registry, ops
from ..case import Case, find_cases, tables
from ..check import inputs_of
from ..record import Recorder
from .sources import cuda_ops

FOLDER = Path(__file__).parents[3] / "kernels"


class TooLarge(BaseException):
    """A launch of more programs than the interpreter can run in the time that a rung has.

    No Exception: what catches the faults of rows has to let it pass.
    """


def use_kernels(folder: Path | None = None) -> None:
    """Import `fastseg.kernels` from a folder; None takes the checkout's, or the installed one."""
    folder = folder or FOLDER
    if not folder.exists():
        return
    spec = spec_from_file_location("fastseg.kernels", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec and spec.loader
    sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])


@contextmanager
def launched(by: Callable[[Any], None]) -> Iterator[None]:
    """Let `by(launch)` run what a launcher launches."""
    launch = import_module("fastseg.kernels._launch").Launch
    before, launch.run = launch.run, lambda self: by(self)
    try:
        yield
    finally:
        launch.run = before


def rows(op: str | None = None, pattern: str = "") -> list[Case]:
    """Rows of the table that call an op with a Triton kernel and whose name contains the pattern; timed ones aside, and
    those for the CPU's kernels."""
    found = [case for case in find_cases(op) if pattern in case.name and not case.tags & {"bench", "cpu"}]
    triton = {name for name in {case.op for case in found} if any(_registry.OPS[o].triton for o in ops_behind(name))}
    return [case for case in found if case.op in triton]


def gpu_ops() -> set[str]:
    """Registered ops that have a kernel of ours on a GPU."""
    compiled = cuda_ops()
    return {name for name, op in _registry.OPS.items() if op.triton or name in compiled}


def on_gpu(cases: list[Case]) -> list[Case]:
    """Those of an op that has a kernel of ours on a GPU."""
    return [case for case in cases if ops_behind(case.op) & gpu_ops()]


@cache
def ops_behind(function: str) -> frozenset[str]:
    """The registered ops that rows of a public function call, and those that are named as their backwards."""
    sized = any(function in getattr(table, "DATA_SIZED", ()) for table in tables().values())
    with Recorder() as recorder:
        for case in find_cases(function, "smoke") or find_cases(function)[:1]:
            args, kwargs = inputs_of(case, case.dtypes[0], device="cpu" if sized else "meta")
            getattr(ops, function)(*args, **kwargs)
    called = {overload._schema.name.split("::")[1] for overload, _ in recorder.calls}
    return frozenset(called | {f"{name}_backward" for name in called} & _registry.OPS.keys())


def full_name(function: FunctionType) -> str:
    """`module.function` of a Triton function."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
