"""Every GPU kernel as machine code for every architecture: rows of what the compilers made, judged by the gates."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import results
from . import toolchain
from .crosscompile import Compilation, compile_all
from .devices import ARCHS
from .gate import DRIFT, Gate, Row, drift, find_gates, gate_of, judge, unused
from .occupancy import occupancies
from .sources import ROOT, Source, digest, find_sources

RESULTS = ROOT / "benchmarks" / "results" / "gpu_static.jsonl"
COMMAND = "fastseg gpu-report --compile"


@dataclass
class Report:
    """Rows of what was compiled, faults of the gates, and notes: what is worth a line but breaks no promise."""

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(path: Path = RESULTS) -> list[Row]:
    """The stored rows; none where there is no file."""
    return results.load(path)


def save(rows: Iterable[Row], path: Path = RESULTS) -> None:
    """Write rows sorted, the whole file or nothing."""
    results.write(path, "".join(json.dumps(row) + "\n" for row in sorted(rows, key=_key)))


def _key(row: Row) -> tuple[str, int]:
    return row["kernel"], row["arch"]


def check(
    sources: Sequence[Source] | None = None,
    archs: Sequence[int] = ARCHS,
    *,
    gates: Sequence[Gate] | None = None,
    stored: Sequence[Row] = (),
    done: Callable[[Compilation], None] = lambda _: None,
) -> Report:
    """Compile sources (all of the tree) and judge them.

    Args:
        sources: what to compile.
        archs: for which architectures.
        gates: the promises (those of every stem); one that holds for no kernel is a fault.
        stored: rows whose baseline the number of instructions is compared with, and which is kept; a row of another
            compiler gives a note, not a fault, and a new baseline.
        done: hears of every compilation as it ends.
    """
    sources = find_sources() if sources is None else sources
    gates = find_gates() if gates is None else gates
    report = Report()
    compilations = sorted(compile_all(sources, archs, done), key=lambda c: (str(c.source.path), c.arch))
    for one in compilations:
        if one.fault:
            report.faults.append(f"{one.source.path.name} sm_{one.arch}: does not compile: {one.fault}")
    report.rows = rows_of(compilations, gates)
    old = {_key(row): row for row in stored}
    for row in report.rows:
        gate, name = gate_of(row["kernel"], gates), f"{row['kernel']} sm_{row['arch']}"
        if gate is None:
            report.faults.append(f"{name}: no gate in fastseg/testing/gates matches it")
            continue
        report.faults += [f"{name}: {fault}" for fault in judge(row, gate)]
        before = old.get(_key(row))
        if not before:
            continue
        same = before["compiler"] == row["compiler"]
        moved = f"{name}: {before['baseline']} instructions became {row['instructions']}"
        if drift(row, before) >= DRIFT:
            (report.faults if same else report.notes).append(
                moved if same else f"{moved} ({before['compiler']} became {row['compiler']})"
            )
        if same:  # small steps add up
            row["baseline"] = before["baseline"]
    if not any(one.fault for one in compilations):
        kernels = {row["kernel"] for row in report.rows}
        report.faults += [f"{pattern}: the gate holds for no kernel" for pattern in unused(kernels, gates)]
    return report


def rows_of(compilations: Iterable[Compilation], gates: Sequence[Gate]) -> list[Row]:
    """One row per kernel and architecture; a kernel that several sources instantiate is one."""
    found = {(kernel.name, one.arch): (one, kernel) for one in compilations for kernel in one.kernels}
    rows: list[Row] = []
    for (name, arch), (one, kernel) in sorted(found.items()):
        gate, code = gate_of(name, gates), kernel.code
        rows.append(
            {
                "kernel": name,
                "arch": arch,
                "language": one.source.language,
                "ops": list(gate.ops) if gate else [],
                "threads": kernel.threads or (gate.threads if gate else 0),
                "registers": code.registers,
                "shared": code.shared,
                "dynamic": kernel.dynamic or (gate.dynamic if gate else 0),
                "local": code.local,
                "spills": code.spills,
                "occupancy": 0.0,
                "instructions": code.instructions,
                "baseline": code.instructions,
                "loop_instructions": code.loop_instructions,
                "loop_flops": code.loop_flops,
                "loads": {str(width): count for width, count in code.loads.items()},
                "stores": {str(width): count for width, count in code.stores.items()},
                "atomics": code.atomics,
                "barriers": code.barriers,
                "tensor_cores": code.tensor_cores,
                "compiler": toolchain.version(one.source.language),
                "source": one.source.path.relative_to(ROOT).as_posix()
                if one.source.path.is_relative_to(ROOT)
                else one.source.path.name,
                "sha256": digest(one.source.path),
            }
        )
    known = [row for row in rows if row["threads"]]
    launches = [(r["arch"], r["threads"], r["registers"], r["shared"], r["dynamic"]) for r in known]
    for row, occupancy in zip(known, occupancies(launches) if launches else (), strict=True):
        row["occupancy"] = round(occupancy, 4)
    return rows


def stale(rows: Iterable[Row], sources: Iterable[Source] | None = None) -> list[str]:
    """What the stored rows lack or know of another version of the sources, one line for each source."""
    sources = find_sources() if sources is None else list(sources)
    faults = []
    stored: dict[str, dict[str, set[int]]] = {}
    hashes: dict[str, set[str]] = {}
    for row in rows:
        hashes.setdefault(row["source"], set()).add(row["sha256"])
        stored.setdefault(row["source"], {}).setdefault(row["kernel"], set()).add(row["arch"])
    for source in sources:
        name = source.path.relative_to(ROOT).as_posix()
        if name not in stored:
            faults.append(f"{name} has no rows: {COMMAND}")
        elif hashes[name] != {digest(source.path)}:
            faults.append(f"{name} or a file that it includes changed after its rows were made: {COMMAND}")
        for kernel, archs in sorted(stored.get(name, {}).items()):
            if missing := sorted(set(ARCHS) - archs):
                faults.append(f"{kernel} has no row for {', '.join(f'sm_{a}' for a in missing)}: {COMMAND}")
    gone = stored.keys() - {source.path.relative_to(ROOT).as_posix() for source in sources}
    return faults + [f"{name} has rows and is gone: {COMMAND}" for name in sorted(gone)]
