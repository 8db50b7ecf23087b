"""Scores of a segmentation, all of them from one confusion matrix over the data set."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fastseg import ops

POISON = torch.iinfo(torch.int64).max  # of every entry, after a label that is no class was met on a GPU


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of a confusion matrix; a class that neither truth nor prediction has is nan and left out of the means.

    Args:
        pixel_accuracy: share of pixels with the right class.
        mean_accuracy: mean over classes of ``accuracy``.
        mean_iou: mean over classes of ``iou``.
        frequency_weighted_iou: mean of ``iou`` weighted by the classes' shares of the truth.
        mean_dice: mean over classes of ``dice``.
        accuracy: float64 ``[C]``, share of each true class that is found (recall).
        iou: float64 ``[C]``, intersection over union.
        dice: float64 ``[C]``, twice the intersection over the sum of both areas.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    mean_dice: float
    accuracy: Tensor
    iou: Tensor
    dice: Tensor


def _poisoned(matrix: Tensor) -> Tensor:
    """Whether a matrix holds what are no counts: poison, or sums with it, which wrap around."""
    return (matrix < 0).any() | (matrix == POISON).any() if matrix.dtype == torch.int64 else (matrix < 0).any()


def _counts(name: str, matrix: Tensor) -> Tensor:
    """A matrix of counts, or an error."""
    if _poisoned(matrix):
        raise ValueError(
            f"fastseg::{name}: matrix must hold counts, got {matrix.min().item()} to {matrix.max().item()}; on a GPU a "
            "label that is no class makes such entries, and FASTSEG_CHECK=1 says which it was"
        )
    return matrix


def scores(matrix: Tensor) -> SegmentationScores:
    """Compute the scores of a confusion matrix in float64.

    With ``n_ij`` pixels of class i predicted as j, ``t_i = sum_j n_ij`` and ``p_j = sum_i n_ij``: pixel accuracy
    ``sum_i n_ii / sum_ij n_ij``, accuracy ``n_ii / t_i``, IoU ``n_ii / (t_i + p_i - n_ii)``, Dice ``2 n_ii / (t_i +
    p_i)`` and frequency-weighted IoU ``sum_i t_i IoU_i / sum_i t_i``. A class that is only predicted has IoU 0 and
    counts.

    Args:
        matrix: ``[C, C]`` counts, rows are the truth.

    Returns:
        The scores; all nan for an empty matrix.

    Raises:
        ValueError: an entry is negative, or the largest integer, which a GPU writes where a label was no class.
    """
    matrix = _counts("scores", matrix).double()
    right, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    accuracy = right / truth
    iou = right / (truth + predicted - right)
    dice = 2 * right / (truth + predicted)
    return SegmentationScores(
        pixel_accuracy=(right.sum() / truth.sum()).item(),
        mean_accuracy=accuracy.nanmean().item(),
        mean_iou=iou.nanmean().item(),
        frequency_weighted_iou=((truth * iou.nan_to_num(0.0)).sum() / truth.sum()).item(),
        mean_dice=dice.nanmean().item(),
        accuracy=accuracy,
        iou=iou,
        dice=dice,
    )


def foreground(matrix: Tensor, background: int = 0) -> Tensor:
    """Merge all classes but one: ``[C, C]`` counts to ``[2, 2]`` counts of background (0) against the rest (1).

    Raises:
        ValueError: as `scores`.
    """
    matrix = _counts("foreground", matrix)
    total, row, column = matrix.sum(), matrix[background].sum(), matrix[:, background].sum()
    both = matrix[background, background]
    return torch.stack([both, row - both, column - both, total - row - column + both]).view(2, 2)


class ConfusionMatrix:
    """Confusion matrix that is filled batch by batch, exactly (int64).

    Args:
        num_classes: number of classes C.
        ignore_index: label in the truth whose pixels count for nothing; None as in `confusion_matrix`.
        device: where the matrix lives.
    """

    def __init__(
        self, num_classes: int, *, ignore_index: int | None = None, device: torch.device | str | None = None
    ) -> None:
        self.ignore_index = ignore_index
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor, *, size: tuple[int, int] | None = None) -> None:
        """Count a batch.

        Args:
            prediction: labels ``[N, H, W]``, or logits ``[N, C, h, w]`` of any resolution.
            target: labels ``[N, H, W]`` of any integer type.
            size: size that logits are resized to; the target's by default.
        """
        ops.confusion_matrix(
            prediction, target, len(self.matrix), ignore_index=self.ignore_index, size=size, out=self.matrix
        )

    def compute(self) -> SegmentationScores:
        """Compute the scores of everything counted so far, or raise ValueError after a bad label on a GPU."""
        return scores(self.matrix)

    def reset(self) -> None:
        """Forget everything."""
        self.matrix.zero_()

    def all_reduce(self) -> None:
        """Add up the matrices of all processes of the default group; nothing happens where there is none.

        Where one of them met a bad label on a GPU, none has scores afterwards.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            poisoned = _poisoned(self.matrix).to(torch.int64)
            torch.distributed.all_reduce(poisoned, torch.distributed.ReduceOp.MAX)
            torch.distributed.all_reduce(self.matrix)
            self.matrix.masked_fill_(poisoned.bool(), POISON)
