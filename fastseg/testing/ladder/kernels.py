"""The Triton kernels of any folder in place of those of the package, and their launches under watch."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ... import _registry
from ..case import Case, find_cases

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
    """Rows of the table whose op has a Triton kernel and whose name contains the pattern; timed ones aside."""
    found = (case for case in find_cases(op) if case.op in _registry.OPS and _registry.OPS[case.op].triton)
    return [case for case in found if pattern in case.name and "bench" not in case.tags]
