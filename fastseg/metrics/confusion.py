"""Scores of a segmentation, all of them from confusion matrices; any leading dimensions are matrices of their own."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastseg.metrics.averages import Absent, Average, checked_average, mean, quotient
from fastseg.ops.arguments import brief, is_whole

POISON = torch.iinfo(torch.int64).max  # of every entry, after a label that is no class was met on a GPU


class SegmentationScores(NamedTuple):
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
        mean_precision: mean over classes of ``precision``.
        precision: float64 ``[C]``, share of each predicted class that is right.
        absent_classes: how many classes neither truth nor prediction has.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    mean_dice: float
    accuracy: Tensor
    iou: Tensor
    dice: Tensor
    mean_precision: float
    precision: Tensor
    absent_classes: int


def poisoned(matrix: Tensor) -> Tensor:
    """Whether counts are none: poison, or sums with it, which wrap around."""
    return (matrix < 0).any() | (matrix == POISON).any() if matrix.dtype == torch.int64 else (matrix < 0).any()


def counts(name: str, matrix: Tensor) -> Tensor:
    """Matrices of counts, or an error."""
    if not isinstance(matrix, Tensor) or matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"fastseg::{name}: matrix must be counts [..., C, C], got {brief(matrix)}")
    if poisoned(matrix):
        raise ValueError(
            f"fastseg::{name}: matrix must hold counts, got {matrix.min().item()} to {matrix.max().item()}; on a GPU a "
            "label that is no class makes such entries, and FASTSEG_CHECK=1 says which it was"
        )
    return matrix


def _sides(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each class that are right, true, predicted; summed as integers."""
    return matrix.diagonal(dim1=-2, dim2=-1), matrix.sum(-1), matrix.sum(-2)


def _score(
    name: str, matrix: Tensor, average: str, absent: str, class_weights: Sequence[float] | Tensor | None
) -> Tensor:
    right, truth, predicted = _sides(counts(name, matrix))
    weights = checked_average(name, average, absent, class_weights, matrix.shape[-1])
    if average == "micro":
        right, truth, predicted = (side.sum(-1, keepdim=True) for side in (right, truth, predicted))
    part, whole = {
        "iou": lambda: (right, truth + predicted - right),
        "dice": lambda: (2 * right.long(), truth + predicted),
        "precision": lambda: (right, predicted),
        "recall": lambda: (right, truth),
    }[name]()
    value = quotient(part, whole, truth, predicted, absent)
    if average == "micro":
        return value.squeeze(-1)
    return value if average == "none" else mean(value, truth if average == "weighted" else weights)


def iou(
    matrix: Tensor,
    *,
    average: Average = "none",
    absent: Absent = "skip",
    class_weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    r"""Compute intersection over union (Jaccard index) of each class, or an average over classes.

    .. math:: \text{IoU}_i = \frac{n_{ii}}{t_i + p_i - n_{ii}}, \quad t_i = \sum_j n_{ij}, \quad p_j = \sum_i n_{ij}

    Args:
        matrix: counts [..., C, C] of pixels of class i (row) predicted as j (column).
        average: "none", a value for each class; "macro", their mean; "micro", of all classes' pixels together;
            "weighted", the mean weighted by the classes' shares of the truth.
        absent: the value of a class that there is nothing to divide by. "skip": nan, and left out of means;
            "skip_unseen": nan where neither truth nor prediction has the class, otherwise 0; "skip_without_truth": nan
            wherever the truth has no pixel of the class, whatever is predicted; "zero" and "one": that number.
        class_weights: C weights of a "macro" mean, normalised over the classes that are not left out.

    Returns:
        float64 [..., C], or [...] of an average; nan where nothing is averaged.

    Gradient: none. Devices: all. Errors: `ValueError` for a matrix that is not square, has a negative entry, or the
    largest integer, which a GPU writes where a label was no class.

    Example:
        >>> matrix = torch.tensor([[3, 1, 0, 0], [1, 4, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
        >>> iou(matrix)
        tensor([0.6000, 0.5714, 0.5000,    nan], dtype=torch.float64)
        >>> iou(matrix, average="macro")
        tensor(0.5571, dtype=torch.float64)
    """
    return _score("iou", matrix, average, absent, class_weights)


def dice(
    matrix: Tensor,
    *,
    average: Average = "none",
    absent: Absent = "skip",
    class_weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    r"""Compute Dice (F1) of each class, :math:`2 n_{ii} / (t_i + p_i)`, or an average over classes.

    Args, returns and errors as `iou`.

    Example:
        >>> dice(torch.tensor([[3, 1, 0], [1, 4, 0], [0, 1, 1]]))
        tensor([0.7500, 0.7273, 0.6667], dtype=torch.float64)
    """
    return _score("dice", matrix, average, absent, class_weights)


def precision(
    matrix: Tensor,
    *,
    average: Average = "none",
    absent: Absent = "skip",
    class_weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    r"""Compute the share of the pixels predicted as each class that are right, :math:`n_{ii} / p_i`.

    Args, returns and errors as `iou`. By "skip" a class that is never predicted is left out of means, by "skip_unseen"
    it counts as 0 where the truth has it.

    Example:
        >>> precision(torch.tensor([[3, 1, 0], [1, 4, 0], [0, 1, 1]]))
        tensor([0.7500, 0.6667, 1.0000], dtype=torch.float64)
    """
    return _score("precision", matrix, average, absent, class_weights)


def recall(
    matrix: Tensor,
    *,
    average: Average = "none",
    absent: Absent = "skip",
    class_weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    r"""Compute the share of the pixels of each class that are found, :math:`n_{ii} / t_i`: the accuracy of the class.

    Args, returns and errors as `iou`.

    Example:
        >>> recall(torch.tensor([[3, 1, 0], [1, 4, 0], [0, 1, 1]]))
        tensor([0.7500, 0.8000, 0.5000], dtype=torch.float64)
    """
    return _score("recall", matrix, average, absent, class_weights)


def pixel_accuracy(matrix: Tensor) -> Tensor:
    r"""Compute the share of pixels with the right class, :math:`\sum_i n_{ii} / \sum_{ij} n_{ij}`: float64 [...].

    Example:
        >>> pixel_accuracy(torch.tensor([[3, 1, 0], [1, 4, 0], [0, 1, 1]]))
        tensor(0.7273, dtype=torch.float64)
    """
    right, truth, _ = _sides(counts("pixel_accuracy", matrix))
    return right.sum(-1).double() / truth.sum(-1).double()


def mean_accuracy(matrix: Tensor, *, absent: Absent = "skip") -> Tensor:
    """Average `recall` over classes: float64 [...]."""
    return recall(matrix, average="macro", absent=absent)


def mean_iou(matrix: Tensor, *, absent: Absent = "skip") -> Tensor:
    """Average `iou` over classes, of a matrix over the whole data set: float64 [...]. See `per_image_mean_iou`."""
    return iou(matrix, average="macro", absent=absent)


def frequency_weighted_iou(matrix: Tensor) -> Tensor:
    """Average `iou` over classes, weighted by their shares of the truth: float64 [...]."""
    return iou(matrix, average="weighted")


def mean_dice(matrix: Tensor, *, absent: Absent = "skip") -> Tensor:
    """Average `dice` over classes: float64 [...]."""
    return dice(matrix, average="macro", absent=absent)


def mean_precision(matrix: Tensor, *, absent: Absent = "skip") -> Tensor:
    """Average `precision` over classes: float64 [...]."""
    return precision(matrix, average="macro", absent=absent)


def per_image_mean_iou(matrices: Tensor, *, absent: Absent = "skip") -> Tensor:
    """Average `iou` over the classes of each image, then over images: float64 scalar.

    Not `mean_iou` of the sum of the matrices: here a small object in one image weighs as much as a large one elsewhere.

    Args:
        matrices: counts [N, C, C], one matrix for each image.
        absent: as in `iou`. An image all of whose classes are left out is left out.

    Example:
        >>> matrices = torch.tensor([[[8, 0], [1, 1]], [[4, 0], [0, 0]]])
        >>> per_image_mean_iou(matrices), mean_iou(matrices.sum(0))
        (tensor(0.8472, dtype=torch.float64), tensor(0.7115, dtype=torch.float64))
    """
    if not isinstance(matrices, Tensor) or matrices.dim() != 3:
        raise ValueError(f"fastseg::per_image_mean_iou: matrices must be counts [N, C, C], got {brief(matrices)}")
    return mean(mean_iou(matrices, absent=absent))


def scores(matrix: Tensor) -> SegmentationScores:
    """Compute all scores of a confusion matrix in float64, with the default rules.

    Args:
        matrix: ``[C, C]`` counts, rows are the truth.

    Returns:
        The scores; all nan for an empty matrix. A class that is only predicted has IoU 0 and counts.

    Raises:
        ValueError: an entry is negative, or the largest integer, which a GPU writes where a label was no class.
    """
    _, truth, predicted = _sides(counts("scores", matrix))
    return SegmentationScores(
        pixel_accuracy=pixel_accuracy(matrix).item(),
        mean_accuracy=mean_accuracy(matrix).item(),
        mean_iou=mean_iou(matrix).item(),
        frequency_weighted_iou=frequency_weighted_iou(matrix).item(),
        mean_dice=mean_dice(matrix).item(),
        accuracy=recall(matrix),
        iou=iou(matrix),
        dice=dice(matrix),
        mean_precision=mean_precision(matrix).item(),
        precision=precision(matrix),
        absent_classes=int((truth + predicted == 0).sum()),
    )


def merge_classes(matrix: Tensor, categories: Sequence[int]) -> Tensor:
    """Merge classes into categories, as Cityscapes does: counts [..., C, C] to [..., K, K].

    Args:
        matrix: counts.
        categories: the category of each class, from 0 to K - 1.

    Example:
        >>> merge_classes(torch.tensor([[3, 1, 0], [1, 4, 0], [0, 1, 1]]), [0, 1, 1])
        tensor([[3, 1],
                [1, 6]])
    """
    name, given = "merge_classes", list(categories) if isinstance(categories, Sequence) else []
    matrix = counts(name, matrix)
    if len(given) != matrix.shape[-1] or not all(is_whole(c) and c >= 0 for c in given):
        raise ValueError(f"fastseg::{name}: categories must be {matrix.shape[-1]} numbers from 0, got {categories!r}")
    index, count = torch.tensor(given, device=matrix.device), max(given, default=-1) + 1
    rows = matrix.new_zeros((*matrix.shape[:-2], count, matrix.shape[-1])).index_add_(-2, index, matrix)
    return rows.new_zeros((*matrix.shape[:-2], count, count)).index_add_(-1, index, rows)


def foreground(matrix: Tensor, background: int = 0) -> Tensor:
    """Merge all classes but one: ``[C, C]`` counts to ``[2, 2]`` counts of background (0) against the rest (1).

    Raises:
        ValueError: as `scores`.
    """
    matrix = counts("foreground", matrix)
    total, row, column = matrix.sum(), matrix[background].sum(), matrix[:, background].sum()
    both = matrix[background, background]
    return torch.stack([both, row - both, column - both, total - row - column + both]).view(2, 2)
