"""The ops against the libraries that people use today."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchvision.transforms.v2 import functional as vision

from fastseg import ops, testing
from fastseg.metrics import scores
from fastseg.testing.bench import assert_same_job
from fastseg.testing.contenders import OURS, contender, contender_names
from fastseg.testing.signals import labels, logits

pytestmark = pytest.mark.parity
# What no rival has: the confidence beside the labels.
ROWS = [
    case
    for case in testing.find_cases(None, "smoke", "paper")
    if case.dtypes == testing.FLOATS
    and "confidence" not in case.id
    and "ties" not in case.id
    and "bench" not in case.tags
]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_every_rival_does_the_same_job(case: testing.Case) -> None:
    """So that a benchmark compares like with like: eager in both layouts, and the libraries."""
    ours = contender(case, OURS, "forward", torch.float32, "contiguous").call()
    for name in contender_names(case.op, compiled=False)[1:]:
        assert_same_job(ours, contender(case, name, "forward", torch.float32, "contiguous").call(), name)


def test_all_rivals_are_here() -> None:
    assert "torchmetrics" in contender_names("confusion_matrix")


@pytest.mark.parametrize("size", [(36, 52), (17, 23), (4, 5), (9, 13)])
def test_bilinear_is_the_resize_of_torchvision(size: tuple[int, int]) -> None:
    x = logits((2, 3, 9, 13), "noise", 0).float()
    want = vision.resize(x, list(size), interpolation=vision.InterpolationMode.BILINEAR, antialias=False)
    assert torch.allclose(ops.upsample_bilinear(x, size), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ignore_index", [255, 3])
def test_confusion_matrix_is_that_of_torchmetrics(ignore_index: int) -> None:
    x = logits((2, 7, 12, 17), "noise", 1)
    target = labels((2, 48, 68), 7, torch.int64, 2, 255).masked_fill_(torch.rand(2, 48, 68) < 0.1, ignore_index)
    target[target == 255] = ignore_index
    metric = MulticlassConfusionMatrix(7, ignore_index=ignore_index)
    jaccard = MulticlassJaccardIndex(7, ignore_index=ignore_index, average="none")
    matrix = torch.zeros(7, 7, dtype=torch.int64)
    for one, truth in zip(x.split(1), target.split(1), strict=True):
        full = F.interpolate(one, size=(48, 68), mode="bilinear")
        metric.update(full, truth)
        jaccard.update(full, truth)
        ops.confusion_matrix(one, truth, 7, ignore_index=ignore_index, out=matrix)
    assert torch.equal(matrix, metric.compute())
    assert torch.allclose(scores(matrix).iou.nan_to_num(0).float(), jaccard.compute(), rtol=1e-6)


def test_confusion_matrix_is_that_of_scikit_learn() -> None:
    target, prediction = labels((1, 97, 101), 21, torch.uint8, 3), labels((1, 97, 101), 21, torch.uint8, 4)
    want = sklearn_confusion_matrix(target.flatten().numpy(), prediction.flatten().numpy(), labels=range(21))
    assert ops.confusion_matrix(prediction, target, 21).tolist() == want.tolist()
