"""`fastseg demo` leaves pictures that show what it says, and numbers that add up."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from fastseg.cli import charts, comparison, demo, pictures
from fastseg.cli.comparison import Contest, compare
from fastseg.data.formats.images import read_image
from fastseg.models.deeplab_v3_plus import DeepLabV3Plus
from fastseg.profiler.stages import Resize

Run = Callable[..., Result]


@pytest.fixture
def small_portrait(monkeypatch: pytest.MonkeyPatch, photos: list[Path]) -> Path:
    """A small photo in the place of the portraits."""
    monkeypatch.setattr(demo, "_portraits", lambda console: [("small", photos[0])])
    return photos[0]


def test_real_portraits(run: Run, network: DeepLabV3Plus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CASES", (("as it is", 1, False), ("in full", 1, True)))
    result = run("demo", "-o", tmp_path / "out", "--seconds", 0)
    assert result.exit_code == 0 and "labels equal: " in result.stdout
    assert "left out, because this machine is busy or slow" in result.stdout
    names = ["astronaut.png", "astronaut_crf.png", "grace_hopper.png", "grace_hopper_crf.png", "stages.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    photo = next(path for title, path in demo._portraits(None) if title == "grace_hopper")
    image = read_image(photo)
    height, width = image.shape[:2]
    labels = network.predict(torch.from_numpy(image)).numpy()
    picture = read_image(tmp_path / "out" / "grace_hopper.png")
    assert picture.shape == (height + 100, 3 * width + 64, 3)
    panels = [picture[44 : 44 + height, 16 + i * (width + 16) :][:, :width] for i in range(3)]
    expected = (image, pictures.overlay(image, labels, pictures.palette(7)), pictures.blur_background(image, labels))
    for shown, wanted in zip(panels, expected, strict=True):
        np.testing.assert_array_equal(shown, wanted)


def test_every_size_and_json(run: Run, small_portrait: Path, tmp_path: Path) -> None:
    report = json.loads(run("demo", "-o", tmp_path / "out", "--seconds", 8, "--json").stdout)
    assert set(report) == {"model", "pictures", "chart", "cases"} and len(report["cases"]) == 4
    assert [case["photo"] for case in report["cases"]] == [[180, 240], [45, 60], [45, 60], [90, 120]]
    assert [case["network"] for case in report["cases"]] == [[48, 64], [48, 64], [45, 60], [90, 120]]
    for case in report["cases"]:
        assert list(case["shared"]) == ["load", "backbone", "head"] and case["rounds"] >= 3
        assert case["labels_different"] == 0 or case["tie_gap"] < 1e-4
        for side in ("stock", "ours"):
            assert case[side]["total"]["ms"] > case[side]["last"]["ms"] > 0
            assert case[side]["peak_bytes"] >= case[side]["last_peak_bytes"] > 0
        assert case["gain"] == pytest.approx(case["stock"]["last"]["ms"] / case["ours"]["last"]["ms"])
    with Image.open(report["chart"]) as chart:
        colours = {colour for _, colour in chart.convert("RGB").getcolors(1 << 24)}
    assert {(0, 119, 187), (238, 119, 51)} <= colours, "bars of backbone and last stage"


def test_labels_that_differ_are_told(
    network: DeepLabV3Plus, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(last: Resize) -> torch.Tensor:
        labels = last.plain()
        labels[0, 3, 5] = (labels[0, 3, 5] + 1) % 7
        return labels

    monkeypatch.setattr(Resize, "fused", wrong)
    monkeypatch.setattr(comparison, "trace", lambda: __import__("contextlib").nullcontext(["upsample_argmax:mutant"]))
    case = compare(Contest(network), photos[0], 64, "mutant", 0)
    assert case.labels_different == 1 and case.tie_gap > 0
    assert demo._verdict(case).startswith("labels equal: no, 1 of 2,700 differ")


def test_tie_gap_is_the_difference_in_exact_logits() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    for align_corners in (False, True):
        last = Resize(logits, (17, 23), align_corners)
        full = torch.nn.functional.interpolate(logits, (17, 23), mode="bilinear", align_corners=align_corners)
        plain, other = last.plain(), last.plain()
        other[0, 7, 11] = (other[0, 7, 11] + 1) % 4
        count, gap = comparison._differences(last, plain, other)
        expected = full[0, plain[0, 7, 11], 7, 11] - full[0, other[0, 7, 11], 7, 11]
        assert count == 1 and gap == pytest.approx(float(expected))


def test_without_portraits_or_with_one(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "PORTRAITS", {"ghost": ("no_such_package", "ghost.jpg")})
    result = run("demo", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "no portrait found" in result.stderr
    assert "ghost: skipped, because no_such_package is not installed" in result.stdout


def test_the_close_up_is_where_most_labels_changed() -> None:
    changed = np.zeros((60, 90), bool)
    changed[2, 3] = True
    changed[33:41, 61:75] = True
    top, left, side = charts.busiest(changed)
    assert side == 20 and changed[top : top + side, left : left + side].sum() == 8 * 14
    assert charts.busiest(np.zeros((4, 4), bool)) == (0, 0, 1)
