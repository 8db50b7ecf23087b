"""What a stem promises of the machine code of its GPU kernels, and the judgement."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from .devices import MULTIPROCESSORS

Row = dict[str, Any]
DRIFT = 0.2  # of the number of instructions, against the stored baseline
SHARED = 48 << 10  # bytes of shared memory of a block, static and dynamic, that need not be asked for; Triton asks
TENSOR_CORES_FROM = 80


@dataclass(frozen=True)
class Gate:
    """Promises of the kernels whose name matches `pattern`, on every architecture.

    Args:
        pattern: of names such as `upsample/argmax<float32,uint8>`; of several gates that match, the first holds.
        ops: the registered ops that launch them.
        registers: at most, per thread.
        occupancy: resident warps over the most that a multiprocessor holds, at least.
        threads: per block; Triton's kernels know theirs.
        dynamic: bytes of dynamic shared memory, the most that is asked for; Triton's kernels know theirs.
        barriers: instructions that wait for the block, at most.
        loads, stores: width in bits -> the share of the instructions on global memory that are at least as wide.
        tensor_cores: whether tensor-core instructions must be there (from sm_80).
        since: the first architecture that they are launched on; what compilers make for older ones is not judged.
        library: whether most FLOPs of these ops are a library's products, of which the kernels' code says nothing.
        prepares: whether it runs once, before the FLOPs that are counted: they say nothing of its instructions.
    """

    pattern: str
    ops: tuple[str, ...]
    registers: int
    occupancy: float
    threads: int = 0
    dynamic: int = 0
    barriers: int = 0
    loads: Mapping[int, float] = field(default_factory=dict)
    stores: Mapping[int, float] = field(default_factory=dict)
    tensor_cores: bool = False
    since: int = 0
    library: bool = False
    prepares: bool = False


def gate_modules() -> list[ModuleType]:
    """Those of fastseg/testing/gates."""
    from .. import gates as stems

    names = sorted(module.name for module in pkgutil.iter_modules(stems.__path__))
    return [importlib.import_module(f"{stems.__name__}.{name}") for name in names]


def find_gates() -> tuple[Gate, ...]:
    """The gates of every stem."""
    return tuple(gate for module in gate_modules() for gate in module.GATES)


def gate_of(kernel: str, gates: Iterable[Gate]) -> Gate | None:
    """The first gate whose pattern matches."""
    return next((gate for gate in gates if fnmatchcase(kernel, gate.pattern)), None)


def unused(kernels: Iterable[str], gates: Iterable[Gate]) -> list[str]:
    """Patterns that hold for no kernel: the kernel is gone, or another gate comes first."""
    gates = tuple(gates)
    used = {gate.pattern for kernel in kernels if (gate := gate_of(kernel, gates))}
    return [gate.pattern for gate in gates if gate.pattern not in used]


def judge(row: Row, gate: Gate) -> list[str]:
    """What one kernel breaks on one architecture."""
    if row["arch"] < gate.since:
        return []
    faults = []
    if row["spills"] or row["local"]:
        faults.append(f"uses local memory: {row['local']} bytes, {row['spills']} spill instructions")
    if row["registers"] > gate.registers:
        faults.append(f"takes {row['registers']} registers, promised {gate.registers}")
    if row["occupancy"] < gate.occupancy:
        faults.append(f"reaches an occupancy of {row['occupancy']:.2f}, promised {gate.occupancy:.2f}")
    granted = MULTIPROCESSORS[row["arch"]].block_shared if row["language"] == "triton" else SHARED
    if row["shared"] + row["dynamic"] > granted:
        faults.append(f"takes {row['shared'] + row['dynamic']} bytes of shared memory, a launch grants {granted}")
    if row["barriers"] > gate.barriers:
        faults.append(f"has {row['barriers']} barriers, promised {gate.barriers}")
    for what in ("loads", "stores"):
        for width, promised in getattr(gate, what).items():
            share = wide_share(row[what], width)
            if share < promised:
                faults.append(f"has {share:.0%} of its {what} {width} bits wide, promised {promised:.0%}")
    if gate.tensor_cores and row["arch"] >= TENSOR_CORES_FROM and not row["tensor_cores"]:
        faults.append("has no tensor-core instruction, promised some")
    return faults


def wide_share(counts: Mapping[str, int], width: int) -> float:
    """Share of the instructions that move at least `width` bits in each lane; 0 where there are none."""
    total = sum(counts.values())
    return sum(count for bits, count in counts.items() if int(bits) >= width) / total if total else 0.0


def drift(row: Row, stored: Row) -> float:
    """How far the number of instructions is from the baseline of the stored row, relative to that."""
    return float(abs(row["instructions"] - stored["baseline"]) / stored["baseline"])
