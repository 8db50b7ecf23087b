"""DeepLab v3+ as `fastseg profile` times it, with the modules of `fastseg.nn` and, of the same weights, plain layers:
the head by itself, and the whole model."""

import statistics
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from fastseg.profiler.models import resolve
from fastseg.profiler.report import Report, measure, smooth_noise
from fastseg.testing.bed import cpu_bed
from fastseg.testing.bench import assert_same_job
from fastseg.testing.contenders import OURS
from fastseg.testing.results import ROOT, commit, store

PLAIN = "examples/plain_deeplab.py"
MODELS = {
    "lite0": {OURS: "deeplab_v3_plus_lite0_ccp7", "plain layers": f"{PLAIN}:lite0"},
    "resnet50": {OURS: f"{PLAIN}:dense_resnet50", "plain layers": f"{PLAIN}:resnet50"},
}
TURNS = 5
SIZE = (512, 512)


@pytest.mark.parametrize("name", MODELS)
def test_head(name: str, request: pytest.FixtureRequest) -> None:
    bed, before = cpu_bed(), torch.get_num_threads()
    torch.set_num_threads(bed.threads)
    try:
        stages = resolve("deeplab_v3_plus", 21).stages
        targets = {b: replace(resolve(model, 21), stages=stages) for b, model in MODELS[name].items()}
        with torch.inference_mode():
            ours, plain = (target.model(smooth_noise(SIZE)) for target in targets.values())
        assert_same_job(ours, plain, name)
        seconds = request.config.getoption("--bench-seconds") / TURNS
        turns = [{backend: measure(target, SIZE, seconds) for backend, target in targets.items()}
                 for _ in range(TURNS)]  # fmt: skip
    finally:
        torch.set_num_threads(before)
    rows = [row for mode in ("head", "model") for backend in targets
            for row in [row_of(name, mode, backend, [turn[backend] for turn in turns])]]  # fmt: skip
    store(ROOT / "benchmarks" / "results" / "heads.jsonl", rows)


def row_of(name: str, mode: str, backend: str, reports: list[Report]) -> dict[str, Any]:
    """Medians over the turns, of a stage or of the whole."""
    bed, (revision, dirty) = cpu_bed(), commit()
    whole = mode == "model"
    timings = [r.total if whole else next(s.timing for s in r.stages if s.name == mode) for r in reports]
    return {
        "op": "deeplab_v3_plus",
        "case": f"{name}_{SIZE[0]}x{SIZE[1]}",
        "mode": mode,
        "backend": backend,
        "isa": bed.isas[backend != OURS],
        "threads": reports[0].threads,
        "dtype": "float32",
        "layout": "contiguous",
        **{ms: round(statistics.median(getattr(t, ms) for t in timings), 4) for ms in ("ms", "ms20", "ms80")},
        "share_of_ceiling": None,
        "peak_mib": round(reports[0].peak_bytes / 2**20, 2) if whole else None,
        **bed.facts(),
        "torch": str(torch.__version__),
        "commit": revision,
        "dirty": dirty,
        "when": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
