"""Rows of the table of cases in a process of their own, which may die.

`python -m fastseg.testing.ladder.rows SELECTION` runs them there and prints a line of JSON before and after each.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..case import Case, find_cases
from ..selftest import Outcome, deterministic, jobs, selftest, unpoisoned


@dataclass(frozen=True)
class Selection:
    """Rows, and how to run them.

    Args:
        path: what every op that has a kernel must run on.
        ops: names of functions of `fastseg.ops`; empty: all.
        tags: rows that have one of them; empty: all that are not timed.
        names: rows by `Case.name`; empty: all.
        dtypes: names, of `torch`; empty: all of a row.
        layouts: of the inputs; empty: those that the row is to meet.
        backwards: each row once more, on few blocks that run their last thread first, to the same bits.
    """

    path: str
    ops: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ("contiguous",)
    backwards: bool = False

    def cases(self) -> list[Case]:
        """The rows themselves."""
        found = (c for c in find_cases(None, *self.tags) if "bench" not in c.tags)
        return [c for c in found if c.op in (self.ops or (c.op,)) and c.name in (self.names or (c.name,))]

    def torch_dtypes(self) -> list[torch.dtype] | None:
        """The dtypes themselves, None for all."""
        return [getattr(torch, name) for name in self.dtypes] or None


def run_apart(selection: Selection, environment: Mapping[str, str], prefix: Sequence[str] = ()) -> Iterator[Outcome]:
    """Run rows in another process; if it dies, the last outcome says at which row and what it said.

    Args:
        selection: the rows.
        environment: variables in addition to ours.
        prefix: command that starts the interpreter.
    """
    command = [*prefix, sys.executable, "-m", __name__, json.dumps(asdict(selection))]
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:
            assert process.stdout
            job = ("the start", "", "")
            for line in process.stdout:
                told = json.loads(line)
                if "fault" in told:
                    yield Outcome(**{**told, "paths": tuple(told["paths"])})
                else:
                    job = (told["case"], told["dtype"], told["layout"])
        if process.returncode:
            said.seek(0)
            yield Outcome(*job, (), False, f"the process died with code {process.returncode}: {_gist(said.read())}")


def _gist(said: str) -> str:
    """What a sanitizer or an interpreter said, without the middle."""
    lines = [line for line in said.splitlines() if line.strip()]
    marks = [line for line in lines if "SUMMARY" in line or "runtime error" in line or "ERROR" in line]
    return " | ".join((marks or lines[-3:])[:3])[:600]


@contextmanager
def backwards() -> Iterator[None]:
    """The CUDA kernels on the host in another order, and other garbage in fresh memory."""
    variables = {"FASTSEG_HOST_ORDER": "backwards", "FASTSEG_HOST_BLOCKS": "3"}
    os.environ.update(variables)
    try:
        with unpoisoned():
            yield
    finally:
        for name in variables:
            del os.environ[name]


def main() -> None:
    """Run the selection of the first argument."""
    told: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[1]).items()}
    chosen = Selection(**told)
    torch.set_num_threads(1)
    with deterministic():
        for case, dtype, layout in jobs(chosen.cases(), chosen.layouts or None, chosen.torch_dtypes()):
            print(json.dumps({"case": case.name, "dtype": str(dtype), "layout": layout}), flush=True)
            repeat = backwards if chosen.backwards else None
            for outcome in selftest([case], chosen.path, layouts=[layout], dtypes=[dtype], repeat=repeat):
                print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main()
