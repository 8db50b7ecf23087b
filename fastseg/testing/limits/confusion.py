"""Limits of the confusion matrix: more than 2^31 labels, of which the first and the last block count theirs."""

import torch
from torch import Tensor

from ... import ops
from ..data_errors import checked
from ..limit import Limit, zeros_but_ends

SHAPE = (513, 2048, 2048)  # the last run of 16 labels belongs to the last of 1,024 blocks
COUNTED = 2 * 256 * 16 * 513 - 2
# The same number of pixels in rows of 513 tiles of 256, each row of the source one of the result. The first and the
# last tile have the other prediction.
ROWS, COLUMNS = 16384, 513 * 256


def _counts(dtype: torch.dtype) -> Tensor:
    prediction, target = (zeros_but_ends(1, *SHAPE, dtype=dtype) for _ in range(2))
    return ops.confusion_matrix(prediction, target, 2)


def _fused() -> Tensor:
    logits = zeros_but_ends(1, 1, 2, ROWS, 2, dtype=torch.float16)
    return ops.confusion_matrix(logits, zeros_but_ends(1, 1, ROWS, COLUMNS, dtype=torch.uint8), 2)


def _place() -> Tensor:
    """Whether the error names the last label."""
    labels = zeros_but_ends(7, *SHAPE, dtype=torch.uint8)
    labels[0, 0, 0] = 0
    with checked():
        try:
            ops.confusion_matrix(labels, labels, 2)
        except RuntimeError as error:
            return torch.tensor([0, f"got 7 at {[n - 1 for n in SHAPE]}" in str(error)])
    return torch.zeros(2)


LIMITS = (
    Limit("confusion_matrix", "labels of a byte", lambda: _counts(torch.uint8), COUNTED, 2),
    Limit("confusion_matrix", "wider labels", lambda: _counts(torch.int16), COUNTED, 2),
    Limit("confusion_matrix", "place of a data error", _place, 0, 1),
    Limit("upsample_confusion_matrix", "labels", _fused, 2 * ROWS * COLUMNS / 1024 - 512, 2),
)
