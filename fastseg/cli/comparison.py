"""The demo's measurement: stock PyTorch against fastseg, from an image file to its labels, stage by stage."""

import copy
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastseg import trace
from fastseg.data.formats.images import read_image
from fastseg.profiler.models import OUR_STAGES
from fastseg.profiler.report import Spread
from fastseg.profiler.stages import LABELS, Recorder, Resize, peak_bytes

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SHARED = ("load", "backbone", "head")


@dataclass(frozen=True)
class Variant:
    """One way to the labels: the whole, its last stage, and the most that each of the two holds in memory."""

    total: Spread
    last: Spread
    peak_bytes: int
    last_peak_bytes: int


@dataclass(frozen=True)
class Case:
    """One photo shown to the network at one size. The `shared` stages run the same code on both sides."""

    title: str
    photo: tuple[int, int]
    network: tuple[int, int]
    rounds: int
    layout: str
    trial_ms: dict[str, float]
    shared: dict[str, Spread]
    stock: Variant
    ours: Variant
    labels_different: int
    path: str

    @property
    def gain(self) -> float:
        """How many times faster the last stage is."""
        return self.stock.last.median / self.ours.last.median


class Contest:
    """A network in both memory layouts, run on one image file.

    Args:
        network: one of our models, in evaluation mode.
        photo: image file.
        longer_side: longer side at which the network sees the photo; None is the photo's own.
    """

    def __init__(self, network: Any, photo: Path, longer_side: int | None) -> None:
        self.networks = {name: copy.deepcopy(network).to(memory_format=form) for name, form in LAYOUTS.items()}
        self.preprocess = replace(network.preprocess, longer_side=longer_side)
        self.photo = photo

    def run(self, layout: str) -> tuple[dict[str, float], Resize]:
        """Go from the file to the logits once: seconds by stage, and what is left to do."""
        network = self.networks[layout]
        with Recorder(network, OUR_STAGES) as recorder:
            recorder.begin("load")
            image = torch.from_numpy(read_image(self.photo))
            x = self.preprocess(image[None]).contiguous(memory_format=LAYOUTS[layout])
            recorder.end()
            logits = network(x)
        last = Resize(logits, (int(image.shape[0]), int(image.shape[1])), network.align_corners)
        return {stage: recorder.totals[stage] for stage in SHARED}, last


def _labels(last: Resize, fused: bool) -> torch.Tensor:
    return last.fused() if fused else last.plain()


@torch.inference_mode()
def compare(contest: Contest, title: str, seconds: float) -> Case:
    """Time the network, and on its logits both last stages in turn, so that a change of the machine's pace meets both.

    The layout is that in which stock PyTorch was the faster one in a trial of the whole.

    Args:
        contest: network and photo.
        title: what to call it.
        seconds: time for it all; at least 3 rounds are run.
    """
    start = time.perf_counter()
    trials = {layout: _trial(contest, layout) for layout in LAYOUTS}
    layout = min(trials, key=lambda name: trials[name])
    shared: defaultdict[str, list[float]] = defaultdict(list)
    lasts: dict[bool, list[float]] = {False: [], True: []}
    totals: dict[bool, list[float]] = {False: [], True: []}
    while (rounds := len(totals[True])) < 3 or (time.perf_counter() - start < seconds and rounds < 50):
        spent, last = contest.run(layout)
        for stage, value in spent.items():
            shared[stage].append(value)
        for fused in (False, True) if rounds % 2 else (True, False):
            before = time.perf_counter()
            _labels(last, fused)
            lasts[fused].append(time.perf_counter() - before)
            totals[fused].append(sum(spent.values()) + lasts[fused][-1])

    def variant(fused: bool) -> Variant:
        whole = peak_bytes(lambda: _labels(contest.run(layout)[1], fused))
        return Variant(Spread.of(totals[fused]), Spread.of(lasts[fused]), whole, peak_bytes(lambda: _labels(last, fused)))

    with trace() as paths:
        different = int((last.plain() != last.fused()).sum())
    stages = {stage: Spread.of(values) for stage, values in shared.items()}
    shown = contest.preprocess.size(*last.size)
    path = paths[-1].partition(":")[2]
    return Case(
        title, last.size, shown, rounds, layout, trials, stages, variant(False), variant(True), different, path
    )


def _trial(contest: Contest, layout: str) -> float:
    """Milliseconds of stock PyTorch in a layout; the first run of a shape, which sets up oneDNN, does not count."""
    contest.run(layout)
    spent, last = contest.run(layout)
    before = time.perf_counter()
    last.plain()
    return 1e3 * (sum(spent.values()) + time.perf_counter() - before)
