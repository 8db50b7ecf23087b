"""Rung D: change one thing in a kernel at a time, and see the rungs A and B go red.

`python -m fastseg.testing.ladder.mutation` runs the mutants of every kernel file that changed since its line of
`benchmarks/results/gpu_mutation.jsonl` was written, and writes it anew.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ... import _triton
from .. import results
from . import host, interpreted_mutants, mutant_runs
from .gate import find_gates, gate_modules
from .mutant_runs import Order, Verdict
from .mutants import Mutant, keys, mutated
from .sources import ROOT, digest

RESULTS = ROOT / "benchmarks" / "results" / "gpu_mutation.jsonl"
COMMAND = "python -m fastseg.testing.ladder.mutation"
SHARE = 0.95  # of all mutants, that have to be killed
STAGES = ("values", "address", "undefined", "thread", "values")
SECONDS = 6.0, 600.0  # of rows for each mutant in the first stage, where most die, and in the last one
SANITIZED = 64  # rows of a mutant under a sanitizer, of those that the first stage chose
INTERPRETED = 300.0  # of rows for each mutant of a Triton kernel
Row = dict[str, Any]


def kernel_files() -> list[Path]:
    """Every file of CUDA or Triton kernels."""
    cuda = sorted(ROOT.glob("csrc/*/*.cuh"))
    return cuda + [path for path in sorted(ROOT.glob("kernels/*.py")) if "@triton.jit" in path.read_text()]


def name_of(path: Path) -> str:
    """As it stands in the report."""
    return path.relative_to(ROOT).as_posix()


def write_mutants(files: Iterable[Path], tree: Path) -> list[Mutant]:
    """Copy `csrc` to `tree/csrc` with all mutants of these files in it; the first is number 1."""
    copy, mutants = tree / "csrc", list[Mutant]()
    texts = {path: path.read_text() for path in sorted((ROOT / "csrc").rglob("*")) if path.is_file()}
    for path in files:
        texts[path], found = mutated(texts[path], name_of(path), 1 + len(mutants))
        mutants += found
    if len(mutants) >= mutant_runs.NUMBERS:
        raise ValueError(f"fastseg::mutation: there must be less than {mutant_runs.NUMBERS} mutants in one library")
    texts[ROOT / "csrc/testing/cuda_on_host.h"] += '#include "mutants.h"\n'
    rules = ROOT / "csrc/testing/CMakeLists.txt"
    texts[rules] = texts[rules].replace("-Wall -Wextra -Werror", "-w")
    shutil.rmtree(copy, ignore_errors=True)
    for path, text in texts.items():
        target = copy / path.relative_to(ROOT / "csrc")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return mutants


def run_cuda(files: Sequence[Path], tree: Path, progress: Progress) -> Iterator[tuple[Mutant, str]]:
    """Mutants of CUDA kernels and what kills each, stage by stage."""
    mutants = dict(enumerate(write_mutants(files, tree), 1))
    alive = tuple(mutants)
    chosen: dict[int, Sequence[mutant_runs.Job]] = {}
    stems = {path.parent.name for path in files}
    ops = sorted({op for gate in find_gates() if gate.pattern.split("/")[0] in stems for op in gate.ops})
    for rung in STAGES:
        if not alive:
            return
        sanitizer = rung if rung in host.SANITIZERS else ""
        library = host.build(sanitizer, tree / "csrc", tree / rung)
        jobs = {k: chosen[k][:SANITIZED] for k in alive} if sanitizer else {}
        verdicts = _ordered(Order(str(library), alive, rung, jobs, SECONDS[bool(chosen)], ops=ops), progress)
        yield from ((mutants[k], verdict.how) for k, verdict in verdicts.items() if verdict.how)
        alive = tuple(k for k, verdict in verdicts.items() if not verdict.how)
        chosen = chosen or {k: verdict.jobs for k, verdict in verdicts.items()}
    yield from ((mutants[k], "") for k in alive)


def run_triton(
    path: Path, tree: Path, progress: Progress, only: Collection[str] | None = None, pattern: str = ""
) -> Iterator[tuple[Mutant, str]]:
    """Mutants of Triton kernels, all or those with these keys, and what kills each, on rows with this in their name."""
    mutants = interpreted_mutants.write_folders(path, name_of(path), tree)
    text, named = path.read_text(), _named(mutants)
    functions = {
        k: f"{path.stem}.{interpreted_mutants.function_at(text, mutant.line)}"
        for k, mutant in enumerate(mutants, 1)
        if only is None or named[mutant] in only
    }
    order = Order(str(tree), tuple(functions), "interpreter", {}, INTERPRETED, functions, pattern)
    # In their order: mutants of one place are told apart by it.
    yield from ((mutants[k - 1], verdict.how) for k, verdict in sorted(_ordered(order, progress).items()))


def _ordered(order: Order, progress: Progress) -> dict[int, Verdict]:
    """Verdicts on all mutants of an order. Rows that are red without any mutant are left out, which is said."""
    task = progress.add_task(order.rung, total=len(order.mutants))
    verdicts = {}
    for verdict in mutant_runs.run(order):
        if verdict.mutant:
            verdicts[verdict.mutant] = verdict
            progress.advance(task)
        elif verdict.how:
            progress.print(f"red without any mutant: {verdict.why}")
    return verdicts


def reasons() -> dict[str, str]:
    """Why survivors are no gap: `SURVIVORS` of the modules in fastseg/testing/gates, by file and key."""
    found = [getattr(module, "SURVIVORS", {}) for module in gate_modules()]
    return {f"{file} {key}": why for one in found for file, keys in one.items() for key, why in keys.items()}


def _named(mutants: Iterable[Mutant]) -> dict[Mutant, str]:
    return keys(sorted(mutants, key=lambda mutant: mutant.place))


def row_of(path: Path, verdicts: Sequence[tuple[Mutant, str]], before: Row | None = None) -> Row:
    """The line of one file; of a Triton file that had one `before`, whose survivors alone were judged again."""
    known, survivors = reasons(), [mutant for mutant, how in verdicts if not how]
    every = [mutant for mutant, _ in verdicts]
    if before:
        every = [mutant for mutant, _ in interpreted_mutants.find_mutants(path.read_text(), name_of(path))]
    named = _named(every)
    killed = Counter(how for _, how in verdicts if how) + Counter(before["killed"] if before else {})
    return {
        "file": name_of(path),
        "sha256": digest(path),
        "mutants": len(every),
        "killed": dict(sorted(killed.items())),
        "survivors": [
            {"key": named[m], "line": m.line, "reason": known.get(f"{m.file} {named[m]}", "")} for m in survivors
        ],
    }


def load(path: Path = RESULTS) -> dict[str, Row]:
    """The stored lines by file."""
    return {row["file"]: row for row in results.load(path)}


def save(rows: Iterable[Row], path: Path = RESULTS) -> None:
    """The whole file or nothing."""
    results.write(path, "".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["file"])))


def tally(rows: Iterable[Row]) -> tuple[int, int]:
    """How many mutants are killed, of how many."""
    counts = [(row["mutants"] - len(row["survivors"]), row["mutants"]) for row in rows]
    return sum(killed for killed, _ in counts), sum(mutants for _, mutants in counts)


def stale(rows: dict[str, Row], files: Sequence[Path] | None = None) -> list[str]:
    """Lines that lack, are of other sources, or of files that are gone."""
    files = kernel_files() if files is None else files
    found = []
    for path in files:
        row = rows.get(name_of(path))
        if not row:
            found.append(f"{name_of(path)} has no line: {COMMAND}")
        elif row["sha256"] != digest(path):
            found.append(f"{name_of(path)} or a file that it includes changed after its mutants were run: {COMMAND}")
    gone = rows.keys() - {name_of(path) for path in files}
    return found + [f"{file} has a line and is gone: {COMMAND}" for file in sorted(gone)]


def _is_judged(file: str, rows: dict[str, Row]) -> bool:
    """Whether the report speaks of a file, or the file is gone."""
    return file in rows or not (ROOT / file).exists()


def faults(rows: dict[str, Row], files: Sequence[Path] | None = None) -> list[str]:
    """What is wrong with a report: what is stale, gaps without a reason, too many of them."""
    known = reasons()
    gaps = [
        f"{row['file']}:{one['line']} survives without a reason: {one['key']}"
        for row in rows.values()
        for one in row["survivors"]
        if not known.get(f"{row['file']} {one['key']}")
    ]
    alive = {f"{row['file']} {one['key']}" for row in rows.values() for one in row["survivors"]}
    idle = [name for name in sorted(known.keys() - alive) if _is_judged(name.split(" ")[0], rows)]
    gaps += [f"{name}: has a reason and is killed, or gone" for name in idle]
    killed, mutants = tally(rows.values())
    few = mutants and killed < SHARE * mutants
    share = [f"{killed / mutants:.1%} of {mutants} mutants are killed, not {SHARE:.0%}"] if few else []
    return stale(rows, files) + gaps + share


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what changed, or everything, and judge the report."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--stem", help="only files of this stem")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="files that have not changed, too")
    which.add_argument("--survivors", action="store_true", help="of Triton files that have not changed, what lived on")
    parser.add_argument("--case", default="", help="part of the names of the rows that survivors meet")
    asked = parser.parse_args(arguments)
    if asked.case and not asked.survivors:
        parser.error("--case is for --survivors: others are to meet every row")
    rows = load()

    def is_asked(path: Path) -> bool:
        fresh = rows.get(name_of(path), {}).get("sha256") == digest(path)
        return asked.all or (fresh and path.suffix == ".py" if asked.survivors else not fresh)

    stems = ((path, path.parent.name if path.suffix == ".cuh" else path.stem) for path in kernel_files())
    chosen = [path for path, stem in stems if asked.stem in (None, stem) and is_asked(path)]
    cuda = [path for path in chosen if path.suffix == ".cuh"]
    if reason := (cuda and host.why_not()) or (chosen != cuda and _triton.why_not):
        print(f"fastseg::mutation: {reason}", file=sys.stderr)
        return 3
    judged: dict[str, Row] = {}
    with Progress() as progress:
        verdicts = list(run_cuda(cuda, ROOT / "build" / "mutants", progress)) if cuda else []
        for path in chosen:
            before = rows[name_of(path)] if asked.survivors else None
            if path.suffix == ".py":
                only = {one["key"] for one in before["survivors"]} if before else None
                verdicts += run_triton(path, ROOT / "build" / "mutants" / path.stem, progress, only, asked.case)
            judged[name_of(path)] = row_of(path, [v for v in verdicts if v[0].file == name_of(path)], before)
    # Lines may have come in the meantime, of other stems.
    rows = {file: row for file, row in {**load(), **judged}.items() if (ROOT / file).exists()}
    for row in rows.values():  # reasons may be newer than the runs
        for one in row["survivors"]:
            one["reason"] = reasons().get(f"{row['file']} {one['key']}", "")
    save(rows.values())
    for name, of in [*((file, [row]) for file, row in sorted(rows.items())), ("all", list(rows.values()))]:
        print("{}: {} of {} killed".format(name, *tally(of)))
    wrong = faults(rows)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
