"""Measure one row of the table against its rivals, after the row has been proved right."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..profiler import measure
from . import tolerances
from .case import Case
from .check import assert_paths, judge, run
from .contenders import OURS, contender, contender_names
from .isa import best_isa, expected_path, use_isa

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]


def commit() -> tuple[str, bool]:
    """Commit of the checkout and whether it is dirty (results and the table made of them aside)."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    own = (":!benchmarks/results", ":!README.md", ":!docs")
    return git("rev-parse", "--short=12", "HEAD") or "none", bool(git("status", "--porcelain", "--", ".", *own))


def gate(case: Case, dtype: torch.dtype, layout: str) -> None:
    """Raise AssertionError unless our result is right and came from where it should."""
    got = run(case, dtype, layout)
    judge(case, dtype, got)
    assert_paths(got, expected_path(best_isa()))


def assert_same_job(ours: Any, other: Any, name: str) -> None:
    """Raise AssertionError unless a rival's result is ours, up to its rounding."""
    pairs = zip(_tensors(ours), _tensors(other), strict=True)
    for a, b in pairs:
        a, b = a.double(), b.double()
        if a.shape != b.shape:
            raise AssertionError(f"{name}: result {list(b.shape)} instead of {list(a.shape)}")
        difference = (a - b).abs().sum() / a.abs().sum()
        if not difference <= tolerances.RIVAL:
            raise AssertionError(f"{name}: differs from ours by {difference:.2g} of the sum of magnitudes")


def measure_row(
    case: Case,
    mode: str = "forward",
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    threads: int = 2,
    seconds: float = 6.0,
    compiled: bool = True,
    peaks: Sequence[str] = (OURS, "eager"),
) -> list[Row]:
    """Gate, then time ours and its rivals in turns.

    Args:
        case: the row of the table.
        mode: `forward`, `backward` or `both`.
        dtype, layout, threads: of the call.
        seconds: of measuring, about; slow rivals take longer for their seven rounds.
        compiled: whether torch.compile competes; it costs its compilation.
        peaks: contenders whose peak memory is measured, each in a process of its own.

    Returns:
        One row for each contender, ours first. `bytes` and `flops` are what the operation needs at least, and
        `share_of_ceiling` is the time that they need on this machine over the time taken.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with use_isa(best_isa()):
            gate(case, dtype, layout)
            names = contender_names(case.op, compiled=compiled)
            contenders = {name: contender(case, name, mode, dtype, layout) for name in names}
            with FlopCounterMode(display=False) as counter:
                result = contenders[OURS].call()
            for name, other in contenders.items():
                assert_same_job(result, other.call(), name)
            timings = measure.interleaved({n: c.call for n, c in contenders.items()}, seconds=seconds)
    finally:
        torch.set_num_threads(before)
    flops, moved = counter.get_total_flops(), contenders[OURS].bytes
    ceilings = measure.ceilings(threads)
    revision, dirty = commit()
    capability = torch.backends.cpu.get_cpu_capability().lower()
    prepared = "fastseg.testing.contenders:prepared"
    rows = []
    for name, timing in timings.items():
        arguments = (case.op, case.id, name, mode, str(dtype).removeprefix("torch."), layout)
        peak = measure.peak_bytes(prepared, *arguments, threads=threads) / 2**20 if name in peaks else None
        floor = ceilings.shortest_ms(moved, flops) / timing.ms if ceilings else None
        rows.append(
            {
                "op": case.op,
                "case": case.id,
                "mode": mode,
                "backend": name,
                "path": expected_path(best_isa()) if name == OURS else "inductor" if "compile" in name else "aten",
                "isa": best_isa() if name == OURS else capability,
                "threads": threads,
                "dtype": str(dtype).removeprefix("torch."),
                "layout": layout,
                "ms": round(timing.ms, 4),
                "ms20": round(timing.ms20, 4),
                "ms80": round(timing.ms80, 4),
                "bytes": moved,
                "flops": flops,
                "gbps": round(moved / timing.ms / 1e6, 3),
                "share_of_ceiling": None if floor is None else round(floor, 4),
                "peak_mib": None if peak is None else round(peak, 2),
                "cpu": measure.machine(),
                "torch": str(torch.__version__),
                "commit": revision,
                "dirty": dirty,
                "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )
    return rows


def best_rival(rows: Sequence[Row]) -> Row:
    """The fastest row that is not ours."""
    return min((row for row in rows if row["backend"] != OURS), key=lambda row: float(row["ms"]))


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)
