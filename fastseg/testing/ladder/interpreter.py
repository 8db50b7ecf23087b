"""Triton's kernels in its interpreter, on the small rows of the table of cases.

`python -m fastseg.testing.ladder.interpreter` starts a process of its own with TRITON_INTERPRET=1, because the choice
is made at import and an access far out of bounds kills the process. There every tensor of a launch is moved between
fences of NaN or the largest integer, and no access that a mask lets through may leave it. Programs run in order, and
once more backwards, to the same bits. Where a stem says how many products of tiles a launch needs, it takes no more.
"""

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..case import Case
from ..check import bits
from ..data_errors import fault_of, find_data_errors, poisons
from ..layouts import FAR, LAYOUTS, REACH, poison, reach_of, sparse
from ..selftest import Outcome, selftest
from .bounds import within
from .kernels import TooLarge, launched, rows, use_kernels
from .products import check_products, counted

PATH = "triton/interpreter"
PROGRAMS = 48  # of one launch: half a second
FENCE = 4096  # elements, more than any tile


@dataclass(frozen=True)
class Report:
    """What became of the rows, and the names of those that are too large for the interpreter."""

    outcomes: list[Outcome]
    left_out: list[str]

    @property
    def faults(self) -> list[str]:
        return [f"{o.case} {o.dtype} {o.layout}: {o.fault}" for o in self.outcomes if o.fault]


def interpret(
    *,
    op: str | None = None,
    pattern: str = "",
    fast: bool = False,
    first: bool = False,
    kernels: Path | None = None,
) -> Report:
    """Run rows in a process of its own.

    Args:
        op, pattern: which rows: of one op, with this in their name.
        fast: only rows tagged `smoke`, and those tagged `odd` in one dtype each.
        first: stop at the first fault.
        kernels: a folder to take `fastseg.kernels` from.
    """
    given = {"--op": op, "--case": pattern, "--kernels": kernels}
    options = [str(word) for pair in given.items() if pair[1] for word in pair]
    options += [f"--{name}" for name, asked in (("fast", fast), ("first", first)) if asked]
    command = [sys.executable, "-m", __spec__.name, "--child", *options]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [Outcome(**{**line, "paths": tuple(line["paths"])}) for line in said if "fault" in line]
    if done.returncode:
        last = next((line for line in reversed(said) if "case" in line), {"case": "", "dtype": "", "layout": ""})
        why = done.stderr.strip().splitlines()[-1:] or ["no message"]
        fault = f"the process ended with exit code {done.returncode}: {why[0]}"
        row = {key: last[key] for key in ("case", "dtype", "layout")}
        outcomes.append(Outcome(**row, paths=(), ran=True, fault=fault))
    return Report(outcomes, [line["left_out"] for line in said if "left_out" in line])


def _fenced(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A copy of x with its strides, and the fences before and behind it."""
    size = reach_of(x) + 2 * FENCE
    if size < REACH:
        buffer = torch.full((size,), poison(x.dtype), dtype=x.dtype)
    else:
        buffer = sparse(size, x.dtype)
        buffer[:FENCE] = buffer[-FENCE:] = poison(x.dtype)
    return buffer.as_strided(x.shape, x.stride(), FENCE).copy_(x), buffer[:FENCE], buffer[-FENCE:]


def _tensors(launch: Any) -> dict[str, Tensor]:
    return {name: x for name, x in launch.arguments.items() if isinstance(x, Tensor)}


def run_fenced(launch: Any) -> None:
    """A launch on copies of its tensors between fences, which no access may leave."""
    if launch.programs > PROGRAMS:
        raise TooLarge
    tensors = _tensors(launch)
    fenced = {name: _fenced(x) for name, x in tensors.items()}
    moved = {name: copy for name, (copy, _, _) in fenced.items()}
    with within(moved.values()), counted() as products:
        launch.kernel[(launch.programs,)](**{**launch.arguments, **moved}, **launch.options)
    check_products(launch, len(products))
    for name, (copy, *fences) in fenced.items():
        if not torch.equal(bits(copy), bits(tensors[name])):
            tensors[name].data.copy_(copy)  # as a kernel writes, which autograd does not hear of
        for fence, where in zip(fences, ("before", "behind"), strict=True):
            intact = fence.isnan() if fence.is_floating_point() else fence == poison(fence.dtype)
            if not intact.all():
                raise AssertionError(f"the kernel wrote {where} {name}")


def run_ends(launch: Any) -> None:
    """The first and the last program of a launch of any size, which may not leave its tensors."""
    ends = (0, launch.programs - 1)
    with within(_tensors(launch).values()), numbered(lambda x, programs: ends[x]):
        launch.kernel[(len(ends),)](**launch.arguments, **launch.options)


@contextmanager
def numbered(by: Callable[[int, int], int]) -> Iterator[None]:
    """Program x of n takes the part of program `by(x, n)`."""
    from triton.runtime.interpreter import InterpreterBuilder as builder

    plain = builder.set_grid_idx

    def renumbered(self: Any, x: int, y: int, z: int) -> None:
        self.grid_idx = by(x, self.grid_dim[0]), y, z

    builder.set_grid_idx = renumbered
    try:
        yield
    finally:
        builder.set_grid_idx = plain


def backwards() -> AbstractContextManager[None]:
    """The last program of a grid first: no result may depend on which program writes a place last."""
    return numbered(lambda x, programs: programs - 1 - x)


def narrow(case: Case) -> torch.dtype:
    """What a row that is spread over memory is in."""
    return torch.bfloat16 if torch.bfloat16 in case.dtypes else case.dtypes[0]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _outcomes(cases: Sequence[Case], fast: bool) -> Iterator[Outcome | str]:
    """Every row in every dtype, or in one if it is to be fast, each in the first layout that is small enough; which are
    tried first goes round. Each once more, backwards, unless it is to be fast. Names of the rows that are too large."""
    for i, case in enumerate(cases):
        wanted, ran = 1 if fast and "smoke" not in case.tags else len(case.dtypes), 0
        for j in range(len(case.dtypes)):
            dtype = case.dtypes[(i + j) % len(case.dtypes)]
            for k in range(len(LAYOUTS) if ran < wanted else 0):
                layout = LAYOUTS[(i // len(case.dtypes) + j + k) % len(LAYOUTS)]
                _say({"case": case.name, "dtype": _name(dtype), "layout": layout})
                with suppress(TooLarge):
                    repeat = None if fast else backwards
                    yield from selftest([case], PATH, layouts=[layout], dtypes=[dtype], repeat=repeat)
                    ran += 1
                    break
        if not ran:
            yield case.name
    for op in dict.fromkeys(case.op for case in cases):
        small = [case for case in cases if case.op == op and "smoke" in case.tags]
        for layout in FAR if small else ():
            for case in small:
                dtype = narrow(case)
                _say({"case": case.name, "dtype": _name(dtype), "layout": layout})
                with suppress(TooLarge):
                    yield from selftest([case], PATH, layouts=[layout], dtypes=[dtype])
                    break
            else:
                yield f"{op} {layout}"


def _data_errors() -> Iterator[Outcome | str]:
    """Those that run on Triton's kernels, and the names of those that are too large."""
    for name, error in find_data_errors().items():
        _say({"case": name, "dtype": "", "layout": ""})
        try:
            for value in error.values if poisons(error, "cpu") else ():
                yield Outcome(f"{name} {value}", "", "", (), True, fault_of(error, "cpu", value))
        except TooLarge:
            yield name


def _say(line: Any) -> None:
    print(json.dumps(line), flush=True)


def _child(asked: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")  # what has no Triton kernel runs its reference
    torch.set_num_threads(1)
    use_kernels(asked.kernels)
    cases = rows(asked.op, asked.case)
    if asked.fast:
        cases = [case for case in cases if case.tags & {"smoke", "odd"}]
    with launched(run_fenced):
        errors = () if asked.op or asked.case else _data_errors()
        for outcome in chain(_outcomes(cases, asked.fast), errors):
            _say({"left_out": outcome} if isinstance(outcome, str) else asdict(outcome))
            if asked.first and isinstance(outcome, Outcome) and outcome.fault:
                return


def _main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("--op")
    parser.add_argument("--case", default="", help="part of the names of the rows")
    parser.add_argument("--kernels", type=Path, help="a folder to take fastseg.kernels from")
    parser.add_argument("--fast", action="store_true", help="rows tagged smoke; those tagged odd in one dtype each")
    parser.add_argument("--first", action="store_true", help="stop at the first fault")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments if arguments is None else list(arguments))
    if asked.child:
        _child(asked)
        return 0
    report = interpret(op=asked.op, pattern=asked.case, fast=asked.fast, first=asked.first, kernels=asked.kernels)
    ran = [outcome for outcome in report.outcomes if outcome.ran]
    if asked.json:
        print(json.dumps({"outcomes": [asdict(o) for o in report.outcomes], "left_out": report.left_out}))
    else:
        print(*report.faults, sep="\n", end="\n" if report.faults else "")
        print(f"{len(ran)} launches interpreted, {len(report.faults)} wrong; more than {PROGRAMS} programs in every "
              f"layout: {', '.join(report.left_out) or 'none'}")  # fmt: skip
    return int(bool(report.faults) or not ran)


if __name__ == "__main__":
    sys.exit(_main())
