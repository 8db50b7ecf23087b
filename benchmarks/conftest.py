"""The plugin: each benchmark proves its row right, times it against its rivals, and appends what it measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastseg.testing import FLOATS, Case
from fastseg.testing.bench import Row, best_rival, commit, measure_row
from fastseg.testing.case import stem_of
from fastseg.testing.contenders import OURS, contender

RESULTS = Path(__file__).parent / "results"
KEY = ("op", "case", "mode", "backend", "isa", "threads", "dtype", "layout", "cpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--allow-dirty", action="store_true", help="record from a dirty tree; the rows say so")
    parser.addoption("--bench-seconds", type=float, default=6.0, help="how long to measure each row")


def pytest_sessionstart(session: pytest.Session) -> None:
    if commit()[1] and not session.config.getoption("--allow-dirty"):
        raise pytest.UsageError("the tree is dirty: commit first, or pass --allow-dirty and the rows will say so")


def store(path: Path, rows: list[Row]) -> None:
    """Append rows; a row with the same key is replaced."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = {key_of(row): row for row in (*map(json.loads, lines), *rows)}
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept.values()))
    partial.replace(path)


def key_of(row: Row) -> tuple[Any, ...]:
    """What makes a row the same measurement."""
    return tuple(row[k] for k in KEY)


@pytest.fixture
def versus(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Measure one row of the table against its rivals and record it under its stem."""

    def run(case: Case, mode: str, layout: str) -> None:
        rows = measure_row(case, mode, layout=layout, seconds=request.config.getoption("--bench-seconds"))
        store(RESULTS / f"{stem_of(case.op)}.jsonl", rows)
        rival = best_rival(rows)
        benchmark.extra_info.update(rival=rival["backend"], speedup=round(rival["ms"] / rows[0]["ms"], 2))
        # For pytest-benchmark's own table and comparisons; what is recorded was measured in turns, above.
        benchmark.pedantic(contender(case, OURS, mode, FLOATS[0], layout).call, rounds=7, warmup_rounds=1)

    return run
