"""The confusion matrix from logits against PyTorch and torchmetrics."""

from collections.abc import Callable

import pytest
from goals import GOALS

ROWS = [(goal, case) for goal in GOALS if goal.op == "confusion_matrix" for case in goal.cases()]


@pytest.mark.parametrize("goal, case", ROWS, ids=[case for _, case in ROWS])
def test_confusion(versus: Callable[..., None], goal: object, case: str) -> None:
    versus(goal.op, f"logits_{case}", goal.mode, "contiguous")
