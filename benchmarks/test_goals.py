"""Every row that a goal speaks of, against its rivals."""

from collections.abc import Callable

import pytest

from fastseg.testing import Case
from fastseg.testing.goals import GOALS

ROWS = [
    pytest.param(case, goal.mode, layout, threads, id=f"{case.name}-{goal.mode}-{layout}-{threads}")
    for goal in GOALS
    for case in goal.cases()
    for layout in goal.layouts
    for threads in goal.threads
]


@pytest.mark.parametrize("case, mode, layout, threads", ROWS)
def test_goal(versus: Callable[[Case, str, str, int], None], case: Case, mode: str, layout: str, threads: int) -> None:
    versus(case, mode, layout, threads)
