"""Measure one row of the table against its rivals, after the row has been proved right."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .._trace import trace
from ..profiler import measure
from . import tolerances
from .bed import Bed, cpu_bed
from .case import Case, tensors_of
from .check import judge, run
from .contenders import OURS, contender, contender_names, has_other_numbers, rival_tolerance
from .isa import best_isa, use_isa
from .results import Row, commit
from .selftest import strays

# Rivals that do as `eager` does, and need as much memory.
LAID_OUT = ("eager channels_last", "torch.compile")


def gate(case: Case, dtype: torch.dtype, layout: str, bed: Bed) -> None:
    """Raise AssertionError unless our result is right and came from where it should."""
    got = run(case, dtype, layout, bed.device)
    judge(case, dtype, got)
    wrong = strays(got.paths, bed.path)
    if wrong or not got.paths:
        raise AssertionError(wrong or "took no path at all")


def assert_same_job(ours: Any, other: Any, name: str, tolerance: float = tolerances.RIVAL) -> None:
    """Raise AssertionError unless a rival's result is ours, up to its rounding."""
    pairs = zip(tensors_of(ours), tensors_of(other), strict=True)
    for a, b in pairs:
        a, b = a.double(), b.double()
        if a.shape != b.shape:
            raise AssertionError(f"{name}: result {list(b.shape)} instead of {list(a.shape)}")
        other = ~((a == b) | (a.isnan() & b.isnan()))
        difference = (a - b)[other].abs().sum() / a[a.isfinite()].abs().sum()
        if not difference <= tolerance:
            raise AssertionError(f"{name}: differs from ours by {difference:.2g} of the sum of magnitudes")


def measure_row(
    case: Case,
    mode: str = "forward",
    *,
    bed: Bed | None = None,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    seconds: float = 6.0,
    compiled: bool = True,
) -> list[Row]:
    """Gate, then time ours and its rivals in turns.

    Args:
        case: the row of the table.
        mode: `forward`, `backward` or `both`.
        bed: the device; None takes the CPU with two threads.
        dtype, layout: of the call.
        seconds: of measuring, about; slow rivals take longer for their seven rounds.
        compiled: whether torch.compile competes; it costs its compilation.

    Returns:
        One row for each contender, ours first, with its peak memory, measured by itself. `bytes` and `flops` are what
        the operation needs at least, and `share_of_ceiling` is the time that they need on this device over the time
        taken.
    """
    bed = bed or cpu_bed()
    before = torch.get_num_threads()
    torch.set_num_threads(bed.threads)
    try:
        with use_isa(best_isa()):
            gate(case, dtype, layout, bed)
            names = contender_names(case.op, compiled=compiled)
            contenders = {name: contender(case, name, mode, dtype, layout, bed.device) for name in names}
            with FlopCounterMode(display=False) as counter, trace() as paths:
                result = contenders[OURS].call()
            for name, other in contenders.items():
                if not has_other_numbers(case.op, name):
                    assert_same_job(result, other.call(), name, rival_tolerance(case.op))
            calls = {name: one.call for name, one in contenders.items()}
            timings = measure.interleaved(calls, seconds=seconds, warmup=bed.warmup, clock=bed.clock)
            facts = bed.facts()
            number = str(dtype).removeprefix("torch.")
            peak = {
                n: bed.peak(calls[n], (case.op, case.id, n, mode, number, layout)) for n in names if n not in LAID_OUT
            }
    finally:
        torch.set_num_threads(before)
    flops, moved = counter.get_total_flops(), contenders[OURS].bytes
    ceilings = bed.ceilings(dtype)
    taken = "+".join(dict.fromkeys(path.split(":", 1)[1] for path in paths))
    revision, dirty = commit()
    prediction = bed.predict(case, mode, dtype)
    return [
        {
            "op": case.op,
            "case": case.id,
            "mode": mode,
            "backend": name,
            "path": taken if name == OURS else "inductor" if "compile" in name else "aten",
            "isa": bed.isas[name != OURS],
            "threads": bed.threads,
            "dtype": number,
            "layout": layout,
            "ms": round(timing.ms, 4),
            "ms20": round(timing.ms20, 4),
            "ms80": round(timing.ms80, 4),
            "bytes": moved,
            "flops": flops,
            "gbps": round(moved / timing.ms / 1e6, 3),
            "share_of_ceiling": round(ceilings.shortest_ms(moved, flops) / timing.ms, 4) if ceilings else None,
            "peak_mib": round(peak[name] / 2**20, 2) if name in peak else None,
            **(prediction if name == OURS else dict.fromkeys(prediction)),
            **facts,
            "torch": str(torch.__version__),
            "commit": revision,
            "dirty": dirty,
            "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for name, timing in timings.items()
    ]


def best_rival(rows: Sequence[Row]) -> Row:
    """The fastest row that is not ours."""
    return min((row for row in rows if row["backend"] != OURS), key=lambda row: float(row["ms"]))
