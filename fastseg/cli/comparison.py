"""The demo's measurement: stock PyTorch against fastseg, from an image file to its labels, stage by stage."""

import copy
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastseg import trace
from fastseg.data.formats.images import read_image
from fastseg.profiler.measure import Timing, timing_of
from fastseg.profiler.models import OUR_STAGES
from fastseg.profiler.stages import Recorder, Resize, allocator_peak

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SHARED = ("load", "backbone", "head")


@dataclass(frozen=True)
class Variant:
    """One way to the labels: the whole, its last stage, and the most that each of the two holds in memory."""

    total: Timing
    last: Timing
    peak_bytes: int
    last_peak_bytes: int


@dataclass(frozen=True)
class Case:
    """One photo shown to the network at one size. The `shared` stages run the same code on both sides.

    `tie_gap` is the largest difference, in exact logits, of the two classes at a pixel where the labels differ.
    """

    title: str
    photo: tuple[int, int]
    network: tuple[int, int]
    rounds: int
    layout: str
    trial_ms: dict[str, float]
    shared: dict[str, Timing]
    stock: Variant
    ours: Variant
    labels_different: int
    tie_gap: float
    path: str

    @property
    def gain(self) -> float:
        """How many times faster the last stage is."""
        return self.stock.last.ms / self.ours.last.ms


class Contest:
    """A network in both memory layouts.

    Args:
        network: one of our models, in evaluation mode.
    """

    def __init__(self, network: Any) -> None:
        self.networks = {name: copy.deepcopy(network).to(memory_format=form) for name, form in LAYOUTS.items()}
        self.preprocess = network.preprocess
        self.warm: set[tuple[str, torch.Size]] = set()

    def run(self, photo: Path, longer_side: int | None, layout: str) -> tuple[dict[str, float], Resize]:
        """Go from an image file to the logits once: seconds by stage, and what is left to do.

        Args:
            photo: image file.
            longer_side: longer side at which the network sees it; None is the photo's own.
            layout: one of :data:`LAYOUTS`.
        """
        network = self.networks[layout]
        with Recorder(network, OUR_STAGES) as recorder:
            recorder.begin("load")
            image = torch.from_numpy(read_image(photo))
            x = replace(self.preprocess, longer_side=longer_side)(image[None])
            x = x.contiguous(memory_format=LAYOUTS[layout])
            recorder.end()
            logits = network(x)
        last = Resize(logits, (int(image.shape[0]), int(image.shape[1])), network.align_corners)
        if (layout, x.shape) not in self.warm:
            # The first run of a shape also sets up oneDNN, which is not to be timed.
            self.warm.add((layout, x.shape))
            return self.run(photo, longer_side, layout)
        return {stage: recorder.totals[stage] for stage in SHARED}, last


def _labels(last: Resize, fused: bool) -> Tensor:
    return last.fused() if fused else last.plain()


def _timed(last: Resize, fused: bool) -> float:
    start = time.perf_counter()
    _labels(last, fused)
    return time.perf_counter() - start


@torch.inference_mode()
def compare(contest: Contest, photo: Path, longer_side: int | None, title: str, seconds: float) -> Case:
    """Time the network, and on its logits both last stages in turn, so that a change of the machine's pace meets both.

    The layout is that in which stock PyTorch was the faster one in a trial of the whole.

    Args:
        contest: the network.
        photo, longer_side: what it sees, as in :meth:`Contest.run`.
        title: what to call it.
        seconds: time for it all; at least 3 rounds are run.
    """
    start = time.perf_counter()
    trials = {}
    for name in LAYOUTS:
        spent, last = contest.run(photo, longer_side, name)
        trials[name] = 1e3 * (sum(spent.values()) + _timed(last, False))
    layout = min(trials, key=lambda name: trials[name])
    shared: defaultdict[str, list[float]] = defaultdict(list)
    lasts: dict[bool, list[float]] = {False: [], True: []}
    totals: dict[bool, list[float]] = {False: [], True: []}
    while (rounds := len(totals[True])) < 3 or (time.perf_counter() - start < seconds and rounds < 50):
        spent, last = contest.run(photo, longer_side, layout)
        for stage, value in spent.items():
            shared[stage].append(value)
        for fused in (False, True) if rounds % 2 else (True, False):
            lasts[fused].append(_timed(last, fused))
            totals[fused].append(sum(spent.values()) + lasts[fused][-1])

    network_peak = allocator_peak(lambda: contest.run(photo, longer_side, layout))

    def variant(fused: bool) -> Variant:
        alone = allocator_peak(lambda: _labels(last, fused))
        # The last stage begins with nothing held but the logits.
        whole = max(network_peak, last.logits.nbytes + alone)
        return Variant(timing_of(totals[fused]), timing_of(lasts[fused]), whole, alone)

    with trace() as paths:
        labels = last.fused()
    different, gap = _differences(last, last.plain(), labels)
    stages = {stage: timing_of(values) for stage, values in shared.items()}
    shown = replace(contest.preprocess, longer_side=longer_side).size(*last.size)
    path = paths[-1].partition(":")[2]
    sides = variant(False), variant(True)
    return Case(title, last.size, shown, rounds, layout, trials, stages, *sides, different, gap, path)


def _differences(last: Resize, plain: Tensor, fused: Tensor) -> tuple[int, float]:
    """How many labels differ, and how far apart the two classes are at most there, interpolated in float64."""
    _, rows, columns = torch.nonzero(plain != fused, as_tuple=True)
    weights = []
    for places, size, pixels in zip((rows, columns), last.size, last.logits.shape[2:], strict=True):
        if last.align_corners:
            source = places.double() * (pixels - 1) / max(1, size - 1)
        else:
            source = ((places.double() + 0.5) * pixels / size - 0.5).clamp(0, pixels - 1)
        weights.append((1 - (source[:, None] - torch.arange(pixels)).abs()).clamp(min=0))
    values = torch.einsum("py,px,cyx->pc", *weights, last.logits[0].double())
    pair = torch.stack([plain[0, rows, columns], fused[0, rows, columns].to(plain.dtype)], 1)
    gaps = values.gather(1, pair).diff(dim=1).abs()
    return len(rows), float(gaps.max()) if len(rows) else 0.0
