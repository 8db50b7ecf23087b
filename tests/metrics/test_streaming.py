"""Streaming: with torchmetrics and without it, in one process and in several, the same numbers."""

import copy
import json
import math
import pickle
import subprocess
import sys

import pytest
import torch
import torchmetrics

from fastseg import metrics, ops
from fastseg.metrics import names
from fastseg.metrics.metric import PlainMetric

# Six batches, of which the first of two processes has four; of rankings the second has none.
SCRIPT = """
import json, sys
if sys.argv[1] == "without":
    sys.modules["torchmetrics"] = None  # as if it was not installed
import torch
from fastseg import metrics
from fastseg.metrics.metric import Metric, PlainMetric
rank, world = int(sys.argv[3]), int(sys.argv[4])
if world > 1:
    torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=world)

def stream(sync):
    torch.manual_seed(0)
    kinds = [metrics.MeanIoU(3, sync_on_compute=sync), metrics.PerImageMeanIoU(3, sync_on_compute=sync),
             metrics.BoundaryF1(3, sync_on_compute=sync), metrics.AveragePrecision(sync_on_compute=sync),
             metrics.InstanceAveragePrecision(2, sync_on_compute=sync), metrics.PanopticMetric(3, sync_on_compute=sync),
             metrics.InstanceIoU(3, sync_on_compute=sync)]
    for batch in range(6):
        coarse = torch.randint(0, 3, (2, 5, 7)).repeat_interleave(4, 1).repeat_interleave(4, 2)
        labels, wrong = coarse, torch.where(torch.rand(coarse.shape) < 0.1, 1, coarse)
        inputs = [(wrong, labels)] * 3 + [(torch.rand(50), torch.rand(50) < 0.5)]
        masks = torch.rand(4, 6, 6) < 0.5
        inputs.append((masks, torch.rand(4), torch.randint(0, 2, (4,)), masks[:3], torch.randint(0, 2, (3,))))
        inputs += [((wrong, wrong), (labels, labels)), (wrong, labels, labels)]
        if world > 1 and rank != (batch >= 4):
            continue
        for kind, given in zip(kinds, inputs):
            if batch < 4 or not isinstance(kind, (metrics.AveragePrecision, metrics.InstanceAveragePrecision)):
                kind.update(*given)
    return kinds

def numbers(result):
    if isinstance(result, torch.Tensor):
        return numbers(result.tolist())
    return [numbers(x) for x in result] if isinstance(result, (list, tuple)) else result

synced, reduced = stream(True), stream(False)
if world > 1:
    for kind in reduced:
        kind.all_reduce()
found = [[numbers(kind.compute()) for kind in kinds] for kinds in (synced, synced, reduced)]
base = "torchmetrics" if not issubclass(Metric, PlainMetric) else "plain"
print(json.dumps({"base": base, "found": found}))
"""


def streamed(kind, store, world):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, kind, str(store)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(world)], stdout=subprocess.PIPE, text=True) for rank in range(world)
    ]
    return [json.loads(rank.communicate(timeout=300)[0]) for rank in ranks]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    store = tmp_path_factory.mktemp("stores")
    jobs = [("with", 1), ("without", 1), ("with", 2), ("without", 2)]
    return {job: streamed(job[0], store / f"{job[0]}{job[1]}", job[1]) for job in jobs}


def flat(x):
    return [y for z in x for y in flat(z)] if isinstance(x, list) else [x]


def test_numbers_do_not_depend_on_torchmetrics_or_processes(runs):
    """Three ways to compute in each run: synchronised, the same again, and after all_reduce."""
    want = flat(runs["with", 1][0]["found"][0])
    assert sum(not math.isnan(x) for x in want) > 50
    for (kind, _), ranks in runs.items():
        for rank in ranks:
            assert rank["base"] == {"with": "torchmetrics", "without": "plain"}[kind]
            for found in rank["found"]:
                assert flat(found) == pytest.approx(want, rel=1e-12, nan_ok=True)  # sums of processes: another order


def test_synchronising_twice_is_refused():
    with pytest.raises(ValueError, match="fastseg::all_reduce: sync_on_compute must be False"):
        metrics.MeanIoU(2, sync_on_compute=True).all_reduce()


LABELS = torch.tensor([[[0, 1, 1, 0]]]), torch.tensor([[[0, 1, 0, 0]]])


def test_is_a_metric_of_torchmetrics():
    assert issubclass(metrics.Metric, torchmetrics.Metric)
    together = torchmetrics.MetricCollection([metrics.MeanIoU(2), metrics.PixelAccuracy(2)])
    together.update(*LABELS)
    assert together.compute()["PixelAccuracy"].item() == 0.75
    metric = metrics.MeanIoU(2)
    first = metric(*LABELS)
    assert first.item() == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metric(LABELS[1], LABELS[1]) == 1  # of the batch
    assert metric.compute().item() == pytest.approx((5 / 6 + 2 / 3) / 2)  # of both
    ranking = metrics.AveragePrecision()
    torch.manual_seed(0)
    scores, target = torch.rand(4, 30), torch.rand(4, 30) < 0.5
    for row in range(3):
        assert ranking(scores[row], target[row]) == metrics.average_precision(scores[row], target[row])
    ranking.update(scores[3], target[3])  # after what the calls have put together
    assert ranking.compute() == metrics.average_precision(scores.flatten(), target.flatten())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_copies_go_on_by_themselves(again):
    metric = metrics.AveragePrecision()
    metric.update(torch.tensor([0.9, 0.1]), torch.tensor([1, 0]))
    other = again(metric)
    other.update(torch.tensor([0.95, 0.2, 0.3]), torch.tensor([0, 1, 1]))
    assert metric.compute() == 1
    want = metrics.average_precision(torch.tensor([0.9, 0.1, 0.95, 0.2, 0.3]), torch.tensor([1, 0, 0, 1, 1]))
    assert other.compute() == want


def test_room_for_rows_doubles():
    metric = metrics.AveragePrecision()
    sizes = set()
    for _ in range(100):
        metric.update(torch.rand(1), torch.tensor([True]))
        sizes.add(len(metric.ranked))
    assert sizes == {1, 2, 4, 8, 16, 32, 64, 128} and len(metric.rows("ranked")) == 100


def test_update_passes_on_the_very_tensors(monkeypatch):
    """No copies: the op reads the labels where they lie, and adds to the state in place."""
    seen = []
    monkeypatch.setattr(ops, "confusion_matrix", lambda *args, **options: seen.append((*args, options["out"])))
    metric = metrics.MeanIoU(2)
    metric.update(*LABELS)
    assert seen[0][0] is LABELS[0] and seen[0][1] is LABELS[1] and seen[0][3] is metric.matrix


def test_plain_metric_resets_and_moves():
    metric = PlainMetric(sync_on_compute=False)
    metric.add_state("count", torch.tensor([1]), "sum")
    metric.count += 1
    assert metric.to("cpu").count == 2
    metric.reset()
    metric.count += 5
    metric.reset()
    assert metric.count == 1


def test_torchmetrics_is_imported_for_streaming_alone():
    code = (
        "import sys, fastseg, fastseg.metrics, fastseg.metrics.names, fastseg.engine, fastseg.cli.main;"
        "print('torchmetrics' in sys.modules); fastseg.metrics.MeanIoU; print('torchmetrics' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_every_name_is_there():
    assert all(getattr(metrics, name) for name in metrics.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        metrics.nothing  # noqa: B018
    assert all(issubclass(getattr(metrics, name), metrics.ImageMetric) for name in names.OF_IMAGES.values())
