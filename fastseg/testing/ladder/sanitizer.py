"""Proofs that no access of a Triton kernel leaves its tensors: triton-viz's symbolic sanitizer on small rows.

`python -m fastseg.testing.ladder.sanitizer`, in the environment of `make gpu-check`: triton-viz 3.0 wants Triton 3.7.1.
It runs a program with its positions as unknowns and asks z3 for one that an unmasked lane reads or writes outside.
Loops that begin and end where the program id says it cannot do, and of loops in loops it knows the innermost number
alone: so here each program runs with its own id as a number, the bounds of a loop become numbers before it sees them,
and the iterations of a short loop are taken one by one. Sliced inputs it refuses.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import _triton
from ..case import Case
from ..check import run
from .kernels import TooLarge, launched, rows, use_kernels

LAYOUTS = ("contiguous", "channels_last", "permuted")
PROGRAMS = 48  # of one launch: two seconds
UNROLLED = 64  # iterations of a short loop


def _client() -> Any:
    import triton.language as tl
    from triton_viz.clients.sanitizer.sanitizer import SymbolicExpr, SymbolicSanitizer
    from triton_viz.core.callbacks import ForLoopCallbacks, OpCallbacks
    from triton_viz.core.data import ProgramId

    def number(value: Any) -> int:
        found, _ = SymbolicExpr.from_value(value).eval()
        (one,) = found if isinstance(found, list) else (found,)
        return int(one.as_long())

    class Client(SymbolicSanitizer):
        def register_op_callback(self, op_type: Any) -> Any:
            return OpCallbacks(self._program_id) if op_type is ProgramId else super().register_op_callback(op_type)

        def _program_id(self, axis: int) -> Any:
            self.need_full_grid = True
            return SymbolicExpr.create("const", self.grid_idx[axis], tl.int32)

        def register_for_loop_callback(self) -> ForLoopCallbacks:
            callbacks = super().register_for_loop_callback()

            def wrap(iterable: Any, line: Any, kind: Any, args: Any = None, kwargs: Any = None, *rest: Any) -> Any:
                bounds = tuple(number(bound) for bound in args or ())
                if len(range(*bounds)) <= UNROLLED:
                    return range(*bounds)
                return callbacks.range_wrapper_factory(iterable, line, kind, bounds, kwargs, *rest)

            return replace(callbacks, range_wrapper_factory=wrap)

    return Client(abort_on_error=False)


class _Watch:
    """Runs launches under the sanitizer and keeps what it reports."""

    def __init__(self) -> None:
        self.client = _client()
        self.kernels: dict[int, Any] = {}
        self.launches = 0

    def __call__(self, launch: Any) -> None:
        import triton_viz

        if launch.programs > PROGRAMS:
            raise TooLarge
        kernel = self.kernels.get(id(launch.kernel))
        if kernel is None:
            kernel = self.kernels[id(launch.kernel)] = triton_viz.trace(self.client)(launch.kernel)
        kernel[(launch.programs,)](**launch.arguments)
        self.launches += 1

    def faults(self) -> Iterator[str]:
        """What was reported since the last call, once for each line of the kernel."""
        found = {}
        for record in self.client.records:
            place = record.user_code_tracebacks[-1]
            what = {"Load": "reads", "Store": "writes"}.get(record.op_type.__name__, "updates")
            found[place.lineno] = f"{what} outside {record.tensor_name} at line {place.lineno}: {place.line_of_code}"
        self.client.records.clear()
        yield from found.values()


def sanitize(cases: list[Case]) -> tuple[int, list[str], list[str]]:
    """The number of launches, what is wrong with them, and the rows that are too large. Each runs in one dtype of each
    width, because tiles depend on it, and in the first layout that is small enough; which is tried first goes round."""
    watch, faults, left_out = _Watch(), [], []
    with launched(watch):
        for i, case in enumerate(cases):
            widths = {dtype.itemsize: dtype for dtype in reversed(case.dtypes)}
            for dtype in widths.values():
                for k in range(len(LAYOUTS)):
                    layout = LAYOUTS[(i + k) % len(LAYOUTS)]
                    with suppress(TooLarge):
                        run(case, dtype, layout)
                        faults += [f"{case.name} {dtype} {layout}: {fault}" for fault in watch.faults()]
                        break
                else:
                    left_out.append(f"{case.name} {str(dtype).removeprefix('torch.')}")
    return watch.launches, faults, left_out


def _main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("--op")
    parser.add_argument("--case", default="", help="part of the names of the rows")
    parser.add_argument("--kernels", type=Path, help="a folder to take fastseg.kernels from")
    asked = parser.parse_args()
    if not _triton.interpreted:  # chosen at import
        os.environ["TRITON_INTERPRET"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]])
    warnings.simplefilter("ignore")
    use_kernels(asked.kernels)
    launches, faults, left_out = sanitize(rows(asked.op, asked.case))
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{launches} launches, {len(faults)} faults; more than {PROGRAMS} programs in every layout: "
          f"{', '.join(left_out) or 'none'}")  # fmt: skip
    return int(bool(faults) or not launches)


if __name__ == "__main__":
    sys.exit(_main())
