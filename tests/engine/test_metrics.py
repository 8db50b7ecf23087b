"""Scores: golden numbers, empty and absent classes, streaming."""

import math
import subprocess
import sys

import pytest
import torch

from fastseg.metrics import ConfusionMatrix, foreground, scores

TRUTH = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 255], [2, 2, 1, 1]])[None]
PREDICTION = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 2], [2, 1, 1, 1]])[None]
POISON = torch.iinfo(torch.int64).max
MATRIX = torch.tensor([[3, 1, 0, 0], [1, 4, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_golden(dtype):
    metric = ConfusionMatrix(4)
    metric.update(PREDICTION.to(dtype), TRUTH.to(dtype))
    assert torch.equal(metric.matrix, MATRIX)
    result = metric.compute()
    assert result.pixel_accuracy == pytest.approx(8 / 11)
    assert result.mean_accuracy == pytest.approx(0.683333, abs=1e-6)
    assert result.mean_iou == pytest.approx(0.557143, abs=1e-6)
    assert result.frequency_weighted_iou == pytest.approx(0.568831, abs=1e-6)
    assert result.mean_dice == pytest.approx(0.714646, abs=1e-6)
    expected = torch.tensor([0.6, 4 / 7, 0.5, math.nan], dtype=torch.float64)
    torch.testing.assert_close(result.iou, expected, equal_nan=True)
    expected = torch.tensor([0.75, 8 / 11, 2 / 3, math.nan], dtype=torch.float64)
    torch.testing.assert_close(result.dice, expected, equal_nan=True)


def test_streaming_reset_and_logits():
    metric = ConfusionMatrix(4)
    metric.update(PREDICTION[:, :1], TRUTH[:, :1])
    metric.update(PREDICTION[:, 1:], TRUTH[:, 1:])
    assert torch.equal(metric.matrix, MATRIX)
    metric.all_reduce()
    assert torch.equal(metric.matrix, MATRIX)
    metric.reset()
    assert metric.matrix.sum() == 0
    logits = torch.nn.functional.one_hot(PREDICTION, 4).permute(0, 3, 1, 2).float()
    metric.update(logits, TRUTH)
    assert torch.equal(metric.matrix, MATRIX)


def test_empty_and_only_predicted():
    empty = scores(torch.zeros(3, 3, dtype=torch.int64))
    assert math.isnan(empty.mean_iou)
    assert math.isnan(empty.pixel_accuracy)
    result = scores(torch.tensor([[2, 2], [0, 0]]))
    assert result.iou.tolist() == [0.5, 0.0]
    assert result.mean_accuracy == 0.5


def test_foreground():
    matrix = torch.arange(9).view(3, 3)
    assert foreground(matrix).tolist() == [[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]]
    assert foreground(matrix, background=1).tolist() == [[4, 3 + 5], [1 + 7, 0 + 2 + 6 + 8]]


def test_what_a_gpu_writes_for_a_bad_label_has_no_scores():
    poison = torch.full((3, 3), POISON)
    for matrix in (poison, poison + MATRIX[:3, :3], poison * 2, -MATRIX):
        for function in (scores, foreground):
            with pytest.raises(
                ValueError, match=f"fastseg::{function.__name__}: matrix must hold counts, got .*no class"
            ):
                function(matrix)
    assert scores(torch.full((2, 2), 255, dtype=torch.uint8)).pixel_accuracy == 0.5


RANK = """
import sys, torch
from fastseg.metrics import ConfusionMatrix
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=3)
metric = ConfusionMatrix(3)
metric.matrix.fill_(int(sys.argv[3]))
metric.all_reduce()
print(*metric.matrix.unique().tolist())
"""


@pytest.mark.parametrize(("entries", "expected"), [((0, 1, 2), 3), ((POISON,) * 3, POISON), ((POISON, 0, 5), POISON)])
def test_all_reduce_adds_counts_and_keeps_poison(tmp_path, entries, expected):
    # Three times the largest integer wraps around to a number that could be a count.
    commands = [[sys.executable, "-c", RANK, tmp_path / "store", str(i), str(n)] for i, n in enumerate(entries)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    assert [rank.communicate(timeout=120)[0].split() for rank in ranks] == [[str(expected)]] * 3
