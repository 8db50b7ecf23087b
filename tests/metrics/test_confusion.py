"""Scores of confusion matrices: golden numbers, averages and absent classes by name, brute force, bugs of others."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastseg.metrics import (
    ConfusionMatrix,
    MeanIoU,
    PerImageMeanIoU,
    dice,
    foreground,
    frequency_weighted_iou,
    iou,
    mean_accuracy,
    mean_dice,
    mean_iou,
    mean_precision,
    merge_classes,
    per_image_mean_iou,
    pixel_accuracy,
    precision,
    recall,
    scores,
)
from fastseg.metrics.averages import ABSENT, AVERAGES

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


@pytest.mark.parametrize(
    ("rule", "golden"),
    [
        ({"average": "macro"}, 0.557143),  # torchmetrics "macro", mmseg, scikit-learn of the labels that occur
        ({"average": "micro"}, 0.571429),
        ({"average": "weighted"}, 0.568831),
        ({"average": "macro", "absent": "zero"}, 0.417857),  # scikit-learn with labels=range(4)
        ({"average": "macro", "absent": "one"}, 0.667857),  # segmentation_models_pytorch
        ({"average": "macro", "class_weights": [1, 0, 3, 5]}, (0.6 + 1.5) / 4),
    ],
)
def test_golden_averages(rule, golden):
    assert iou(MATRIX, **rule).item() == pytest.approx(golden, abs=5e-7)
    metric = MeanIoU(4, **rule)
    metric.update(PREDICTION, TRUTH)
    assert metric.compute().item() == pytest.approx(golden, abs=5e-7)


def test_golden_of_three_images():
    """The worked example of Hugging Face's mean_iou."""
    metric = ConfusionMatrix(10)
    for prediction, target in (
        ([[1, 2], [3, 4], [5, 255]], [[0, 3], [5, 4], [6, 255]]),
        ([[2, 7], [9, 2], [3, 6]], [[1, 7], [9, 2], [3, 6]]),
        ([[2, 2, 3], [8, 2, 4], [3, 255, 2]], [[1, 2, 2], [8, 2, 1], [3, 255, 1]]),
    ):
        metric.update(torch.tensor([prediction]), torch.tensor([target]))
    result = metric.compute()
    assert result.mean_iou == pytest.approx(0.4775) and result.mean_accuracy == pytest.approx(0.591667, abs=5e-7)
    assert result.pixel_accuracy == pytest.approx(0.526316, abs=5e-7) and result.absent_classes == 0
    assert result.iou.tolist() == pytest.approx([0, 0, 0.375, 0.4, 0.5, 0, 0.5, 1, 1, 1])


def test_the_rules_for_what_there_is_nothing_of():
    """Class 0 is right, 1 is only predicted, 2 is only true, 3 is nowhere."""
    matrix = torch.tensor([[4, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    nan = math.nan
    table = {
        "iou": {"skip": [0.5, 0, 0, nan], "skip_without_truth": [0.5, nan, 0, nan], "zero": [0.5, 0, 0, 0]},
        "precision": {"skip": [4 / 7, 0, nan, nan], "skip_unseen": [4 / 7, 0, 0, nan], "one": [4 / 7, 0, 1, 1]},
        "recall": {"skip": [0.8, nan, 0, nan], "skip_unseen": [0.8, 0, 0, nan], "one": [0.8, 1, 0, 1]},
    }
    functions = {"iou": iou, "precision": precision, "recall": recall}
    for name, rules in table.items():
        for absent, want in rules.items():
            value = functions[name](matrix, absent=absent)
            assert value.tolist() == pytest.approx(want, nan_ok=True), (name, absent)
            counted = [x for x in want if not math.isnan(x)]
            average = functions[name](matrix, absent=absent, average="macro")
            assert average.item() == pytest.approx(sum(counted) / len(counted))
    assert scores(matrix).absent_classes == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40), st.sampled_from(ABSENT))
def test_is_that_of_sets_of_pixels(pairs, absent):
    target, prediction = (torch.tensor([p[side] for p in pairs], dtype=torch.int64)[None, None] for side in (0, 1))
    metric = ConfusionMatrix(4)
    metric.update(prediction, target)
    parts = {name: [] for name in ("iou", "dice", "precision", "recall")}
    for label in range(4):
        truth = {i for i, (t, _) in enumerate(pairs) if t == label}
        found = {i for i, (_, p) in enumerate(pairs) if p == label}
        both = len(truth & found)
        for name, part, whole in (("iou", both, len(truth | found)), ("dice", 2 * both, len(truth) + len(found)),
                                  ("precision", both, len(found)), ("recall", both, len(truth))):  # fmt: skip
            nothing = {"zero": 0.0, "one": 1.0, "skip_unseen": 0.0 if truth | found else math.nan}.get(absent, math.nan)
            skipped = absent == "skip_without_truth" and not truth
            parts[name].append(math.nan if skipped else part / whole if whole else nothing)
    for function in (iou, dice, precision, recall):
        want = torch.tensor(parts[function.__name__], dtype=torch.float64)
        torch.testing.assert_close(function(metric.matrix, absent=absent), want, equal_nan=True, rtol=1e-15, atol=0)
        macro = function(metric.matrix, absent=absent, average="macro")
        torch.testing.assert_close(macro, want.nanmean(), equal_nan=True, rtol=1e-14, atol=0)
    right = sum(t == p for t, p in pairs)
    assert pixel_accuracy(metric.matrix).item() == pytest.approx(right / len(pairs) if pairs else math.nan, nan_ok=True)


def test_leading_dimensions_are_matrices_of_their_own():
    matrices = torch.randint(0, 9, (2, 3, 5, 5)) * (torch.rand(2, 3, 5, 1) < 0.7)
    for function in (iou, dice, precision, recall):
        for average in AVERAGES:
            batched = function(matrices, average=average)
            for i in range(6):
                one = function(matrices[i // 3, i % 3], average=average)
                torch.testing.assert_close(batched[i // 3, i % 3], one, equal_nan=True, rtol=1e-15, atol=0)
    for function in (pixel_accuracy, mean_iou, mean_accuracy, mean_dice, mean_precision, frequency_weighted_iou):
        assert function(matrices).shape == (2, 3)


def test_per_image_is_not_the_data_set():
    """What torchmetrics' MeanIoU and MONAI average, and what mmseg, Cityscapes and Hugging Face do."""
    target = torch.tensor([[[0] * 8 + [1] * 2], [[0] * 4 + [255] * 6], [[255] * 10]])
    prediction = torch.tensor([[[0] * 9 + [1]], [[0] * 10], [[2] * 10]])
    metric, whole = PerImageMeanIoU(3), MeanIoU(3)
    metric.update(prediction, target)
    whole.update(prediction, target)
    result = metric.compute()
    assert result.mean.item() == pytest.approx(((8 / 9 + 1 / 2) / 2 + 1) / 2)
    assert whole.compute().item() == pytest.approx((12 / 13 + 1 / 2) / 2)
    assert result.images.tolist() == [2, 1, 0] and result.empty == (6, 0, 0)
    matrices = torch.stack([ConfusionMatrix(3).matrix for _ in target])
    assert math.isnan(per_image_mean_iou(matrices)) and per_image_mean_iou(matrices, absent="one") == 1


def test_merge_classes():
    matrix = torch.arange(16).view(4, 4)
    assert merge_classes(matrix, [0, 1, 1, 1]).tolist() == foreground(matrix).tolist()
    assert merge_classes(matrix, [0, 1, 2, 3]).tolist() == matrix.tolist()
    assert merge_classes(matrix.expand(2, 4, 4), [1, 1, 0, 2])[1].tolist() == [[10, 8 + 9, 11], [2 + 6, 10, 3 + 7],
                                                                               [14, 12 + 13, 15]]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iou(MATRIX[:3]), r"iou: matrix must be counts \[..., C, C\]"),
        (lambda: iou(MATRIX, average="mean"), "iou: average must be one of none, macro, micro, weighted, got 'mean'"),
        (lambda: dice(MATRIX, absent="nan"), "dice: absent must be one of skip, skip_unseen"),
        (lambda: iou(MATRIX, class_weights=[1, 2, 3, 4]), "iou: class_weights must be None unless average is macro"),
        (lambda: iou(MATRIX, average="macro", class_weights=[1, 2]), "iou: class_weights must be 4 finite numbers"),
        (lambda: iou(MATRIX, average="macro", class_weights=[1, 2, 3, -4]), "iou: class_weights must be 4 finite"),
        (lambda: MeanIoU(3, average="mean"), "iou: average must be one of"),
        (lambda: per_image_mean_iou(MATRIX), r"per_image_mean_iou: matrices must be counts \[N, C, C\]"),
        (lambda: merge_classes(MATRIX, [0, 1]), "merge_classes: categories must be 4 numbers from 0"),
        (lambda: merge_classes(MATRIX, [0, 1, 2, -1]), "merge_classes: categories must be 4 numbers from 0"),
        (lambda: precision(-MATRIX), "precision: matrix must hold counts"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"fastseg::{message}"):
        call()


def test_weights_divide_once_unlike_segmentation_models_pytorch():
    """Its "macro" with class_weights divides by the number of classes twice: .15625 here."""
    matrix = torch.diag(torch.tensor([1, 1, 1, 0]))
    matrix[0, 1] = matrix[1, 2] = matrix[2, 0] = 1
    matrix[torch.arange(3), torch.arange(3)] = 2
    assert iou(matrix, absent="one").tolist() == [0.5, 0.5, 0.5, 1.0]
    for weights in (None, [1, 1, 1, 1], [0.25] * 4):
        assert iou(matrix, average="macro", absent="one", class_weights=weights).item() == 0.625


def test_an_absent_class_is_nan_unlike_torchmetrics():
    """Its per-class Jaccard index is 0.0 there, which looks like a class that was missed."""
    assert math.isnan(iou(MATRIX)[3]) and iou(MATRIX, absent="zero")[3] == 0


def test_a_false_positive_counts_unlike_monai():
    """Its DiceMetric is nan, and dropped, for every empty truth, whatever was predicted."""
    matrix = torch.tensor([[5, 3], [0, 0]])
    assert dice(matrix)[1] == 0 and math.isnan(dice(matrix, absent="skip_without_truth")[1])


def test_predictions_out_of_range_are_refused_unlike_mmseg():
    """Its histogram drops them from the area predicted, so that they cost nothing."""
    metric = MeanIoU(2)
    with pytest.raises((ValueError, RuntimeError), match="fastseg::confusion_matrix: prediction must"):
        metric.update(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0, 1, 1]]]))
    assert metric.matrix.sum() == 0


def test_counts_above_2_24_unlike_a_float32_histogram():
    count = 2**24
    assert torch.tensor(float(count)) + 1 == count
    metric = ConfusionMatrix(2)
    metric.matrix.copy_(torch.tensor([[count, 0], [0, 2**40]]))
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]))
    assert metric.matrix.tolist() == [[count + 1, 1], [0, 2**40]]
    assert iou(metric.matrix)[0].item() == (count + 1) / (count + 2)


def test_void_is_ignored_unlike_torchmetrics_segmentation():
    """Its MeanIoU has no ignore_index, and fails on 255."""
    metric = MeanIoU(2)
    metric.update(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 1, 255]]]))
    assert metric.compute() == 1


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
