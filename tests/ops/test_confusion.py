"""The confusion matrix: exact counts, and the same ones from labels and from logits."""

import pytest
import torch

from fastseg import ops, testing
from fastseg.testing.signals import labels, logits


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("kind", ["smooth", "noise", "ties", "nan"])
@pytest.mark.parametrize("dtype", testing.FLOATS)
def test_from_logits_it_counts_the_labels_of_upsample_argmax(dtype: torch.dtype, kind: str, isa: str) -> None:
    x = logits((2, 19, 12, 17), kind, 0).to(dtype)
    target = labels((2, 48, 68), 19, torch.uint8, 1, 255)
    with testing.use_isa(isa):
        direct = ops.confusion_matrix(x, target, 19)
        assert torch.equal(direct, ops.confusion_matrix(ops.upsample_argmax(x, (48, 68)), target, 19))
    assert direct.sum() == (target != 255).sum()


def test_rows_are_the_target_and_columns_the_prediction() -> None:
    target, prediction = torch.tensor([[[0, 0, 1, 2]]]), torch.tensor([[[0, 1, 1, 0]]])
    want = [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert ops.confusion_matrix(prediction, target, 3).tolist() == want


def test_out_is_added_to_and_returned() -> None:
    target = labels((1, 9, 31), 5, torch.uint8, 2, 255)
    once = ops.confusion_matrix(target, target, 5)
    out = torch.full((5, 5), 2**40)
    assert ops.confusion_matrix(target, target, 5, out=out) is out
    assert torch.equal(out, once + 2**40)
    for _ in range(3):
        ops.confusion_matrix(target, target, 5, out=out)
    assert torch.equal(out, 4 * once + 2**40)


@pytest.mark.parametrize("isa", testing.isas())
def test_batches_add_up(isa: str) -> None:
    x, target = logits((3, 7, 6, 9), "noise", 3), labels((3, 23, 35), 7, torch.int64, 4, 255)
    with testing.use_isa(isa):
        parts = sum(ops.confusion_matrix(x[i : i + 1], target[i : i + 1], 7) for i in range(3))
        assert torch.equal(ops.confusion_matrix(x, target, 7), parts)


@pytest.mark.parametrize("classes", [1, 2, 19, 256, 1000])
def test_one_pixel_lands_in_its_cell(classes: int) -> None:
    for truth, guess in ((0, classes - 1), (classes - 1, 0), (classes // 2, classes // 3)):
        target, prediction = torch.tensor([[[truth]]]), torch.tensor([[[guess]]])
        matrix = ops.confusion_matrix(prediction, target, classes, ignore_index=-1)
        assert matrix[truth, guess] == 1 and matrix.sum() == 1


def test_many_counts_of_one_cell_do_not_wrap() -> None:
    """Per-thread counters narrower than the matrix would."""
    target = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(1, 4096, 20000)
    assert ops.confusion_matrix(target, target, 2)[0, 0] == 4096 * 20000
