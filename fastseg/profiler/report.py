"""A model's profile: what every stage costs, and what fusing the last one would save."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.profiler.measure import Timing, ceilings, timing_of
from fastseg.profiler.models import Target
from fastseg.profiler.stages import OTHER, Pass, Resize, allocator_peak, quiet_profiler


@dataclass(frozen=True)
class Stage:
    """One row: time, share of the whole, work, parameters and the bytes of the tensors it creates."""

    name: str
    timing: Timing
    share: float
    flops: float
    parameters: int
    activation_bytes: float

    @property
    def gflops(self) -> float:
        """Rate in 1e9 floating-point operations per second."""
        return self.flops / self.timing.ms / 1e6 if self.timing.ms else 0.0


@dataclass(frozen=True)
class Replacement:
    """The last resize and the argmax, as plain PyTorch and as `upsample_argmax`, timed alternately."""

    plain: Timing
    fused: Timing
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
    total: Timing
    peak_bytes: int
    ceiling_flops: float | None
    stages: list[Stage]
    replacement: Replacement | None

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers and strings, for JSON."""
        rows = [{**asdict(stage), "gflops_per_second": stage.gflops} for stage in self.stages]
        return {**asdict(self), "stages": rows}


def measure(target: Target, size: tuple[int, int], seconds: float = 8.0) -> Report:
    """Profile a model on one random image, as smooth as a photo.

    Rounds of (the model by stage, the last stage as plain PyTorch, the last stage fused) are repeated until the time is
    up, so that a change of the machine's speed meets all of them.

    Args:
        target: what to profile.
        size: height and width of the image.
        seconds: time for the rounds; at least 3 are run.
    """
    x = smooth_noise(size)
    with torch.inference_mode():
        try:
            way = Pass(target.model, x, target.stages, target.fused)
        except Exception as error:  # the user's own model, which may raise anything
            reason = str(error).split("\n")[0]
            raise ValueError(f"fastseg::profile: model must run on 1x3x{size[0]}x{size[1]}, got {reason}") from error
        last = way.resize
        if last is not None:
            # Else a model without training would name one class everywhere, where fusing has the least to do.
            last = replace(last, logits=last.logits - last.logits.mean((2, 3), keepdim=True))
        samples: defaultdict[str, list[float]] = defaultdict(list)
        totals: list[float] = []
        plain: list[float] = []
        fused: list[float] = []
        stop = time.perf_counter() + seconds
        while len(totals) < 3 or (time.perf_counter() < stop and len(totals) < 100):
            spent = way.record()
            totals.append(sum(spent.values()))
            for name, value in spent.items():
                samples[name].append(value)
            if last is not None:
                plain.append(_timed(last.plain))
                fused.append(_timed(last.fused))
        flops, activations, parameters = way.flops(), way.activation_bytes(), way.parameters()
        in_use = way.fused and way.inside is None
        replacement = None if last is None else _replacement(last, plain, fused, in_use)
        peak = allocator_peak(way.run)
    whole = sum(map(sum, samples.values()))
    rows = [
        Stage(
            name,
            timing_of(spent),
            sum(spent) / whole,
            flops.get(name, 0.0),
            parameters.get(name, 0),
            activations.get(name, 0.0),
        )
        for name, spent in samples.items()
    ]
    rows.sort(key=lambda row: row.name == OTHER)
    threads = torch.get_num_threads()
    limits = ceilings(threads)
    ceiling = limits.flops_per_second if limits else None
    return Report(target.name, size, threads, timing_of(totals), peak, ceiling, rows, replacement)


def smooth_noise(size: tuple[int, int]) -> Tensor:
    """A random image with blobs of many sizes, as smooth as a photo: float32 ``[1, 3, H, W]``."""
    generator = torch.Generator().manual_seed(0)
    layers = [
        F.interpolate(torch.randn(1, 3, cells, cells, generator=generator), size, mode="bilinear")
        for cells in (4, 16, 64)
    ]
    return torch.stack(layers).sum(0)


def _replacement(last: Resize, plain: list[float], fused: list[float], in_use: bool) -> Replacement:
    from fastseg import trace

    with trace() as paths:
        different = last.plain() != last.fused()
    return Replacement(
        timing_of(plain),
        timing_of(fused),
        allocator_peak(last.plain),
        allocator_peak(last.fused),
        int(different.sum()),
        different.numel(),
        paths[0].partition(":")[2],
        in_use,
    )


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def write_trace(target: Target, size: tuple[int, int], path: Path) -> None:
    """Write a Chrome trace of one pass with the stages as named ranges, for ui.perfetto.dev.

    Args:
        target: what to run.
        size: height and width of the image.
        path: JSON file to write.
    """
    x = smooth_noise(size)
    with torch.inference_mode():
        way = Pass(target.model, x, target.stages, target.fused)
        with quiet_profiler() as profiler:
            way.record(ranges=True)
    profiler.export_chrome_trace(str(path))
