"""The plugin: each benchmark proves its row right, times it against its rivals, and appends what it measured."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastseg.testing import FLOATS, Case
from fastseg.testing.bed import cpu_bed
from fastseg.testing.bench import best_rival, measure_row
from fastseg.testing.case import stem_of
from fastseg.testing.contenders import OURS, contender
from fastseg.testing.results import commit, store

RESULTS = Path(__file__).parent / "results"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--allow-dirty", action="store_true", help="record from a dirty tree; the rows say so")
    parser.addoption("--bench-seconds", type=float, default=6.0, help="how long to measure each row")


def pytest_sessionstart(session: pytest.Session) -> None:
    if commit()[1] and not session.config.getoption("--allow-dirty"):
        raise pytest.UsageError("the tree is dirty: commit first, or pass --allow-dirty and the rows will say so")


@pytest.fixture
def versus(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Measure one row of the table against its rivals and record it under its stem."""

    def run(case: Case, mode: str, layout: str, threads: int) -> None:
        seconds = request.config.getoption("--bench-seconds")
        rows = measure_row(case, mode, bed=cpu_bed(threads), layout=layout, seconds=seconds)
        RESULTS.mkdir(exist_ok=True)
        store(RESULTS / f"{stem_of(case.op)}.jsonl", rows)
        rival = best_rival(rows)
        benchmark.extra_info.update(rival=rival["backend"], speedup=round(rival["ms"] / rows[0]["ms"], 2))
        # For pytest-benchmark's own table and comparisons; what is recorded was measured in turns, above.
        benchmark.pedantic(contender(case, OURS, mode, FLOATS[0], layout).call, rounds=7, warmup_rounds=1)

    return run
