"""A model's profile: what every stage costs, and what fusing the last one would save."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastseg.profiler.models import Target
from fastseg.profiler.stages import OTHER, Pass, peak_bytes, quiet_profiler


@dataclass(frozen=True)
class Spread:
    """Median and the 20th and 80th percentile of a time, in milliseconds."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """Summarise samples given in seconds."""
        p20, median, p80 = np.percentile(1e3 * np.array(seconds), (20, 50, 80)).tolist()
        return cls(median, p20, p80)

    def __str__(self) -> str:
        return f"{_digits(self.median)} [{_digits(self.p20)}-{_digits(self.p80)}]"


def _digits(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 1 else f"{ms:.2f}"


@dataclass(frozen=True)
class Stage:
    """One row: time, share of the whole, work, parameters and the bytes of the tensors it creates."""

    name: str
    ms: Spread
    share: float
    flops: float
    parameters: int
    activation_bytes: float

    @property
    def gflops(self) -> float:
        """Rate in 1e9 floating-point operations per second."""
        return self.flops / self.ms.median / 1e6 if self.ms.median else 0.0


@dataclass(frozen=True)
class Replacement:
    """The last resize and the argmax, as plain PyTorch and as `upsample_argmax`, timed alternately."""

    plain_ms: Spread
    fused_ms: Spread
    plain_peak_bytes: int
    fused_peak_bytes: int
    labels_different: int
    labels: int
    path: str
    in_use: bool


@dataclass(frozen=True)
class Report:
    """What `fastseg profile` found out about a model."""

    model: str
    size: tuple[int, int]
    threads: int
    rounds: int
    total_ms: Spread
    peak_bytes: int
    ceiling_flops: float | None
    stages: list[Stage]
    replacement: Replacement | None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and strings, for JSON."""
        rows = [{**asdict(stage), "gflops_per_second": stage.gflops} for stage in self.stages]
        return {**asdict(self), "stages": rows}


def measure(target: Target, size: tuple[int, int], seconds: float = 8.0) -> Report:
    """Profile a model on one random image.

    Rounds of (the model by stage, the last stage as plain PyTorch, the last stage fused) are repeated until the time is
    up, so that a change of the machine's speed meets all of them.

    Args:
        target: what to profile.
        size: height and width of the image.
        seconds: time for the rounds; at least 3 are run.
    """
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            way = Pass(target.model, x, target.stages, target.fused)
        except Exception as error:  # the user's own model, which may raise anything
            reason = str(error).split("\n")[0]
            raise ValueError(f"fastseg::profile: model must run on 1x3x{size[0]}x{size[1]}, got {reason}") from error
        samples: defaultdict[str, list[float]] = defaultdict(list)
        totals, plain, fused = [], [], []
        stop = time.perf_counter() + seconds
        while len(totals) < 3 or (time.perf_counter() < stop and len(totals) < 100):
            spent = way.record()
            totals.append(sum(spent.values()))
            for name, value in spent.items():
                samples[name].append(value)
            if way.resize is not None:
                plain.append(_timed(way.resize.plain))
                fused.append(_timed(way.resize.fused))
        flops, activations, parameters = way.flops(), way.activation_bytes(), way.parameters()
        replacement = _replacement(way, plain, fused) if way.resize is not None else None
        peak = peak_bytes(way.run)
    whole = sum(map(sum, samples.values()))
    rows = [
        Stage(
            name,
            Spread.of(spent),
            sum(spent) / whole,
            flops.get(name, 0.0),
            parameters.get(name, 0),
            activations.get(name, 0.0),
        )
        for name, spent in samples.items()
    ]
    rows.sort(key=lambda row: row.name == OTHER)
    threads = torch.get_num_threads()
    return Report(target.name, size, threads, len(totals), Spread.of(totals), peak, _ceiling(), rows, replacement)


def _replacement(way: Pass, plain: list[float], fused: list[float]) -> Replacement:
    from fastseg import trace

    last = way.resize
    assert last is not None
    with trace() as paths:
        different = last.plain() != last.fused()
    return Replacement(
        Spread.of(plain),
        Spread.of(fused),
        peak_bytes(last.plain),
        peak_bytes(last.fused),
        int(different.sum()),
        different.numel(),
        paths[0].partition(":")[2],
        way.fused and way.inside is None,
    )


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _ceiling() -> float | None:
    """Fused-multiply-add rate of this machine at torch's thread count, in FLOP/s; None without `fastseg._C`."""
    try:
        from fastseg import _C  # type: ignore[attr-defined]
    except ImportError:
        return None
    return float(_C.measure_fma(torch.get_num_threads()))


def write_trace(target: Target, size: tuple[int, int], path: Path) -> None:
    """Write a Chrome trace of one pass with the stages as named ranges, for ui.perfetto.dev.

    Args:
        target: what to run.
        size: height and width of the image.
        path: JSON file to write.
    """
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        way = Pass(target.model, x, target.stages, target.fused)
        with quiet_profiler() as profiler:
            way.record(ranges=True)
    profiler.export_chrome_trace(str(path))
