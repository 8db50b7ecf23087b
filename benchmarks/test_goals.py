"""Every row that a goal speaks of, against its rivals."""

from collections.abc import Callable

import pytest

from fastseg.testing import Case
from fastseg.testing.goals import GOALS

ROWS = [(case, goal.mode, layout) for goal in GOALS for case in goal.cases() for layout in goal.layouts]


@pytest.mark.parametrize("case, mode, layout", ROWS, ids=[f"{c.name}-{mode}-{layout}" for c, mode, layout in ROWS])
def test_goal(versus: Callable[[Case, str, str], None], case: Case, mode: str, layout: str) -> None:
    versus(case, mode, layout)
