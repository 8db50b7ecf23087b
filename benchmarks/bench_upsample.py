"""The upsample family against PyTorch on the sizes of the goals."""

from collections.abc import Callable

import pytest
from goals import GOALS

ROWS = [
    (goal.op, case, goal.mode, layout)
    for goal in GOALS
    if goal.op.startswith("upsample_")
    for case in goal.cases()
    for layout in goal.layouts
]


@pytest.mark.parametrize("op, case, mode, layout", ROWS, ids=map("-".join, ROWS))
def test_upsample(versus: Callable[..., None], op: str, case: str, mode: str, layout: str) -> None:
    versus(op, case, mode, layout)
