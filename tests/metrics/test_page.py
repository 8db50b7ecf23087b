"""The page of the metrics and the examples of their docstrings say what comes out."""

import doctest
import re
from pathlib import Path

import pytest
import torch

from fastseg import metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
WITH_EXAMPLES = [name for name in metrics.__all__ if ">>>" in (getattr(metrics, name).__doc__ or "")]


def run(test: doctest.DocTest) -> str:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    return "".join(said)


def test_worked_numbers() -> None:
    text = "\n".join(re.findall(r"```pycon\n(.*?)```", PAGE.read_text(), re.DOTALL))
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 20
    assert run(test) == ""


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings(name: str) -> None:
    found = doctest.DocTestFinder(recurse=False).find(
        getattr(metrics, name), name, globs={"torch": torch, **{n: getattr(metrics, n) for n in metrics.__all__}}
    )
    assert found and found[0].examples
    assert "".join(map(run, found)) == ""


def test_the_page_names_what_is_there() -> None:
    text = PAGE.read_text()
    missing = [name for name in metrics.__all__ if f"`{name}`" not in text and f"`{name}(" not in text]
    # The results, whose fields the docstrings explain, what means are of, and bases.
    assert set(missing) <= {
        "BoundaryScores",
        "ImageMetric",
        "ImageScores",
        "InstanceCounts",
        "InstanceScores",
        "Metric",
        "PanopticCounts",
        "PanopticQuality",
        "SegmentationScores",
        "SurfaceMetric",
        "mean_dice",
        "mean_precision",
    }
