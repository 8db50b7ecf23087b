"""Which mutants go red: a process that has all truths ready and forks for each mutant, which may crash.

`python -m fastseg.testing.ladder.mutant_runs` is that process. It reads an order and prints a line of JSON for each
mutant.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch

from .. import check
from ..case import find_cases
from ..data_errors import check_data_error, find_data_errors, poisons
from ..layouts import FAR
from ..selftest import deterministic, layouts_of, selftest
from . import host, interpreted_runs
from .forks import forked
from .kernels import FOLDER, ops_behind
from .rows import backwards

FOREVER = 7200
SPARE = 20  # seconds of the processor that a mutant has beyond ten times what its rows take
NUMBERS = 8192  # of marks in csrc/testing/mutants.h
DATA_ERRORS = "data errors"
Job = tuple[str, str, str]  # case, dtype, layout; or data errors, which, which of its values; or limits, op, which


@dataclass(frozen=True)
class Order:
    """What a process is asked for.

    Args:
        place: the library that holds the mutants; for the interpreter the folder that holds a folder for each.
        mutants: their numbers.
        rung: `values`, where results are judged, `interpreter`, where they are too, or a sanitizer, where only what it
            says counts.
        jobs: of each mutant; none at all: those that reach it, the cheapest first, as many as fit in `seconds`.
        seconds: of rows for each mutant, as they take them unchanged.
        functions: `module.function` that each mutant of Triton stands in; the interpreter has no marks.
        pattern: what the names of the cases have in them.
        ops: registered ops that launch the kernels; cases that call none of them are left out. None: all cases.
    """

    place: str
    mutants: tuple[int, ...]
    rung: str = "values"
    jobs: Mapping[int, Sequence[Job]] = field(default_factory=dict)
    seconds: float = 6.0
    functions: Mapping[int, str] = field(default_factory=dict)
    pattern: str = ""
    ops: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: `how` it was found out, empty where it was not, and the rows that were to do it."""

    mutant: int
    how: str
    why: str
    jobs: tuple[Job, ...]


def run(order: Order) -> Iterator[Verdict]:
    """Run mutants in a process of its own. Rows that are red unchanged are verdicts on mutant 0, and are left out;
    where the rows are given, and so under every sanitizer, they are an error: what follows would prove nothing."""
    sanitizer = order.rung if order.rung in host.SANITIZERS else ""
    chosen = host.environment(Path(order.place), sanitizer)
    if order.rung == "interpreter":
        chosen = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **chosen}
    command = [*host.prefix(sanitizer), sys.executable, "-m", __name__]
    with tempfile.TemporaryFile("w+") as asked:
        json.dump(asdict(order), asked)
        asked.seek(0)
        process = subprocess.Popen(command, env=environment, stdin=asked, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        for line in process.stdout:
            told = json.loads(line)
            verdict = Verdict(told["mutant"], told["how"], told["why"], tuple(tuple(job) for job in told["jobs"]))
            if not verdict.mutant and order.jobs:
                process.kill()
                raise RuntimeError(
                    f"fastseg::mutation: unchanged kernels must be clean, got {verdict.how}: {verdict.why}"
                )
            yield verdict
    if process.returncode:
        raise RuntimeError(f"fastseg::mutation: the runs must end, got exit code {process.returncode}")


def find_jobs() -> list[Job]:
    """Small rows: every case in its first dtype, smoke and odd ones in all dtypes and layouts; and bad labels."""
    jobs = data_error_jobs()
    for case in find_cases():
        if not case.tags & {"bench", "paper"}:
            layouts = layouts_of(case)
            for i, dtype in enumerate(case.dtypes if len(layouts) > 1 else case.dtypes[:1]):
                jobs += [(case.name, _name(dtype), layout) for layout in layouts[: 2 if i else 3]]
    return jobs


def data_error_jobs() -> list[Job]:
    """Those that run on the kernels of this process."""
    found = ((name, error) for name, error in find_data_errors().items() if poisons(error, "cpu"))
    return [(DATA_ERRORS, name, str(i)) for name, error in found for i in range(len(error.values))]


def _launches(job: Job, ops: Sequence[str]) -> bool:
    """Whether a job may run a kernel of these ops."""
    return not ops or job[0] not in _cases() or bool(ops_behind(_cases()[job[0]].op).intersection(ops))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _cases() -> dict[str, check.Case]:
    return {case.name: case for case in find_cases()}


def red(job: Job, rung: str) -> tuple[str, str]:
    """How and why a job goes red here."""
    name, dtype, layout = job
    if rung == "interpreter" and name == DATA_ERRORS:
        return interpreted_runs.red_data_error(find_data_errors()[dtype], int(layout))
    if name == interpreted_runs.LIMITS:
        return interpreted_runs.red_limit(int(layout))
    if rung == "interpreter":
        return interpreted_runs.red(_cases()[name], getattr(torch, dtype), layout)
    try:
        if name == DATA_ERRORS:
            error_row = find_data_errors()[dtype]
            for order in (nullcontext, backwards):
                with order():
                    check_data_error(error_row, "cpu", error_row.values[int(layout)])
        elif rung == "values":
            (outcome,) = selftest([_cases()[name]], host.PATH, layouts=[layout], dtypes=[getattr(torch, dtype)],
                                  repeat=backwards)  # fmt: skip
            if outcome.fault:
                return "backwards" if "a repeat" in outcome.fault else rung, f"{name} {dtype} {layout}: {outcome.fault}"
        else:
            for order in (nullcontext, backwards):
                with order():
                    check.run(_cases()[name], getattr(torch, dtype), layout)
    except Exception as error:
        return "values", f"{name} {dtype} {layout}: {error}"
    return "", ""


def by_turns(costs: Mapping[Job, float], seconds: float) -> list[Job]:
    """Jobs as long as the time lasts, of every op in every layout by turns: the cheapest first, and every case in one
    dtype before any in a second one."""
    groups: dict[tuple[str, str], list[Job]] = {}
    dtypes: Counter[tuple[str, str]] = Counter()  # met of a case in a layout
    rank: dict[Job, int] = {}
    for job in sorted(costs, key=lambda job: costs[job]):
        rank[job] = dtypes[job[0], job[2]]
        dtypes[job[0], job[2]] += 1
    for job in sorted(costs, key=lambda job: (rank[job], costs[job])):
        groups.setdefault((job[0].split("-")[0], job[2]), []).append(job)
    chosen: list[Job] = []
    for job in filter(None, chain.from_iterable(zip_longest(*groups.values()))):
        if (seconds := seconds - costs[job]) < 0 and chosen:
            break
        chosen.append(job)
    return chosen


def _measured(order: Order, jobs: Iterable[Job], marks: Any) -> tuple[dict[Job, float], dict[int, list[Job]]]:
    """What each job takes, unchanged, and which mutants it met; in the interpreter, while one of them has time left."""
    costs: dict[Job, float] = {}
    met: dict[int, list[Job]] = {mutant: [] for mutant in order.mutants}
    spent: dict[int, float] = dict.fromkeys(order.mutants, 0.0)
    reached = _reached(order, jobs) if order.rung == "interpreter" else {}
    for job in reached or jobs:
        if reached and all(spent[mutant] > order.seconds for mutant in reached[job]):
            continue
        if job[0] in _cases():
            right = check.truth(_cases()[job[0]], getattr(torch, job[1]))
            _ = right.band, right.plain_band  # are computed once, here
        ctypes.memset(marks, 0, NUMBERS)
        started = time.process_time()
        how, why = red(job, order.rung)
        cost = time.process_time() - started
        if how:
            _say(Verdict(0, how, why, (job,)))
            continue
        costs[job] = cost
        hit = bytes(marks)
        for mutant, reached_by in met.items():
            if hit[mutant] or mutant in reached.get(job, ()):
                reached_by.append(job)
                spent[mutant] += cost
    return costs, met


def _reached(order: Order, jobs: Iterable[Job]) -> dict[Job, set[int]]:
    """Mutants of Triton that each job meets: the limits and data errors, every case once, each in another dtype than
    the one before it, the spread ones, every case again, and so on; of a turn those of few programs and those of many
    alternate, for time may run out."""
    found: dict[Job, set[int]] = {}
    turns: dict[float, list[tuple[int, Job]]] = {}
    times: Counter[str] = Counter()
    for job in jobs:
        if job[0] not in _cases():
            found[job] = set(order.mutants)
            turns.setdefault(-1, []).append((0, job))
            continue
        functions, programs = interpreted_runs.reached(_cases()[job[0]], getattr(torch, job[1]), job[2])
        found[job] = {mutant for mutant, function in order.functions.items() if function in functions}
        spread = job[2] in FAR
        turn = (times[job[0]] + len(times)) % len(_cases()[job[0]].dtypes) + times[job[0]] // 4 * 4
        turns.setdefault(0.5 if spread else turn, []).append((programs, job))
        times[job[0]] += not spread
    chosen = [job for turn in sorted(turns) for job in from_both_ends([job for _, job in sorted(turns[turn])])]
    return {job: found[job] for job in chosen if found[job]}


def from_both_ends(jobs: Sequence[Job]) -> list[Job]:
    """The first, the last, the second, the last but one, and so on."""
    middle = (len(jobs) + 1) // 2
    pairs = zip_longest(jobs[:middle], reversed(jobs[middle:]))
    return [job for job in chain.from_iterable(pairs) if job is not None]


def _say(verdict: Verdict) -> None:
    print(json.dumps(asdict(verdict)), flush=True)


def main() -> None:
    """Serve the order of the standard input."""
    order = Order(**json.load(sys.stdin))
    order = replace(order, functions={int(k): function for k, function in order.functions.items()})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what has no kernel runs its reference
    check.truth = cache(check.Truth)  # all of them: forks share them
    if order.rung == "interpreter":
        marks = (ctypes.c_ubyte * NUMBERS)()
        awake = lambda mutant: interpreted_runs.use(Path(order.place) / str(mutant))  # noqa: E731
    else:
        library = ctypes.CDLL(order.place)
        marks = (ctypes.c_ubyte * NUMBERS).in_dll(library, "fastseg_reached")
        alive = ctypes.c_int.in_dll(library, "fastseg_mutant")
        awake = lambda mutant: setattr(alive, "value", mutant)  # noqa: E731
    jobs: dict[int, Sequence[Job]] = {int(k): [(j[0], j[1], j[2]) for j in v] for k, v in order.jobs.items()}
    with deterministic():

        def task(mutant: int) -> Callable[[], tuple[str, str]]:
            def look() -> tuple[str, str]:
                awake(mutant)
                return next(filter(any, (red(job, order.rung) for job in jobs[mutant])), ("", ""))

            return look

        awake(0)
        if jobs:
            # All of them unchanged, in a fork as mutants are: ThreadSanitizer follows no fibers in a fork of a process
            # that has run some.
            jobs[0] = sorted({job for v in jobs.values() for job in v})
            ((_, how, why),) = forked([(0, task(0), FOREVER)])
            if how:
                _say(Verdict(0, how, why, ()))
                return
            taken = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
            limits = dict.fromkeys(order.mutants, 10 * taken + SPARE)
        else:
            found = find_jobs()
            if order.rung == "interpreter":
                found = interpreted_runs.find_jobs(FOLDER / f"{Path(order.place).name}.py") + data_error_jobs()
            found = [job for job in found if order.pattern in job[0] and _launches(job, order.ops)]
            costs, met = _measured(order, found, marks)
            chosen = order.rung == "interpreter"  # in their order
            jobs = {k: v if chosen else by_turns({job: costs[job] for job in v}, order.seconds) for k, v in met.items()}
            limits = {k: 10 * sum(costs[job] for job in v) + SPARE for k, v in jobs.items()}
        work = ((k, task(k), limits[k]) for k in order.mutants)
        for mutant, how, why in forked(work):
            how = order.rung if order.rung in host.SANITIZERS and how == "crash" else how
            _say(Verdict(mutant, how, why, tuple(jobs[mutant])))


if __name__ == "__main__":
    main()
