"""`fastseg segment` does what it can, says in one line what it cannot, and overwrites nothing of the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from fastseg.cli import pictures
from fastseg.data.formats.images import read_image
from fastseg.models import refine
from fastseg.models.deeplab_v3_plus import DeepLabV3Plus
from fastseg.ops.dense_crf_presets import dense_crf_preset

Run = Callable[..., Result]


def index(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_labels_equal_predict(run: Run, network: DeepLabV3Plus, photos: list[Path], tmp_path: Path) -> None:
    result = run("segment", *photos, "-o", tmp_path / "new" / "out")
    assert result.exit_code == 0 and result.stderr == ""
    found = set()
    for photo in photos:
        labels = index(tmp_path / "new" / "out" / f"{photo.stem}.png")
        expected = network.predict(torch.from_numpy(read_image(photo))).numpy()
        np.testing.assert_array_equal(labels, expected)
        found |= set(labels.ravel())
    assert len(found) > 1, "the photos must show more than one class"
    assert "one.png" in result.stdout and "60 x 45" in result.stdout


def test_names_with_brackets_are_printed_as_they_are(run: Run, photos: list[Path], tmp_path: Path) -> None:
    photo = photos[0].rename(tmp_path / "[red]a.png")
    assert "[red]a.png" in run("segment", photo, "-o", tmp_path / "out").stdout.replace("\n", "")


def test_pictures(run: Run, photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("segment", photos[0], "-o", out, "--labels", "--overlay", "--blur-background").exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "one_blurred.jpg", "one_overlay.jpg"]
    photo, labels = read_image(photos[0]), index(out / "one.png")
    shown, blurred = read_image(out / "one_overlay.jpg"), read_image(out / "one_blurred.jpg")
    # JPEG moves every value a little, more so in a picture as small and as bright as this.
    assert np.abs(shown.astype(int) - pictures.overlay(photo, labels, pictures.palette(7))).mean() < 6
    assert np.abs(blurred.astype(int) - pictures.blur_background(photo, labels)).mean() < 6


def test_json(run: Run, network: DeepLabV3Plus, photos: list[Path], tmp_path: Path) -> None:
    result = run("segment", *photos, tmp_path / "missing.png", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert report["failed"] == [str(tmp_path / "missing.png")]
    first = report["images"][0]
    assert first["file"] == str(photos[0]) and (first["width"], first["height"]) == (60, 45) and first["ms"] > 0
    assert set(first["classes"]) <= set(network.classes) and sum(first["classes"].values()) == pytest.approx(1)
    assert first["outputs"] == {"labels": str(tmp_path / "out" / "one.png")}


def test_one_bad_file_does_not_stop_the_others(run: Run, photos: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photos[0].read_bytes()[:100])
    result = run("segment", tmp_path / "missing.jpg", photos[0], bad, photos[1], "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
    assert "missing.jpg: no such file" in lines[0] and "bad.png: is " in lines[1]


def test_folder_is_read_one_level_in_order(run: Run, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a photo")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "three.png").write_bytes(photos[0].read_bytes())
    result = run("segment", tmp_path, photos[0], "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0
    assert [row["file"] for row in json.loads(result.stdout)["images"]] == [str(p) for p in photos]


def test_folder_without_photos(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("segment", tmp_path / "empty", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "holds no images" in result.stderr


def test_two_photos_of_one_stem_do_not_share_a_result(run: Run, photos: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "b" / "one.jpg"
    other.parent.mkdir()
    Image.new("RGB", (8, 8)).save(other)
    result = run("segment", photos[0], other, "-o", tmp_path / "out")
    assert result.exit_code == 2 and f"{other}: its result" in result.stderr and "already" in result.stderr
    assert index(tmp_path / "out" / "one.png").shape == (45, 60)


def test_a_given_photo_is_never_overwritten(run: Run, photos: list[Path], tmp_path: Path) -> None:
    before = photos[0].read_bytes()
    result = run("segment", *photos, "-o", tmp_path)
    assert result.exit_code == 2 and "would overwrite a given photo" in result.stderr
    assert photos[0].read_bytes() == before
    assert index(tmp_path / "two.png").shape == (70, 40)


def test_a_photo_that_does_not_fit_into_memory(
    run: Run, network: DeepLabV3Plus, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = network.predict

    def starved(image: torch.Tensor, crf: None) -> torch.Tensor:
        if image.shape[1] == 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return predict(image)

    monkeypatch.setattr(network, "predict", starved)
    result = run("segment", *photos, "-o", tmp_path / "out")
    assert result.exit_code == 2 and result.stderr == f"error: {photos[0]}: does not fit into memory\n"
    assert (tmp_path / "out" / "two.png").exists()


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        (["--crf"], "pydensecrf_readme"),
        (["--crf", "--labels"], "pydensecrf_readme"),
        (["--crf", "deeplab_vgg"], "deeplab_vgg"),
        (["--crf=crfrnn"], "crfrnn"),
    ],
)
def test_crf(
    run: Run, network: DeepLabV3Plus, photos: list[Path], tmp_path: Path, words: list[str], preset: str
) -> None:
    # An option or a photo after --crf is what it would be without.
    result = run("segment", *words, photos[0], "-o", tmp_path / "out", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["crf"] == preset and len(report["images"]) == 1
    labels, image = index(tmp_path / "out" / "one.png"), torch.from_numpy(read_image(photos[0]))
    np.testing.assert_array_equal(labels, network.predict(image, dense_crf_preset(preset)).numpy())
    assert (labels != network.predict(image).numpy()).any(), "the CRF must change something"
    assert f"edges by the CRF of {preset}" in " ".join(
        run("segment", *words, photos[0], "-o", tmp_path / "on").stdout.split()
    )


@pytest.mark.parametrize("words", [["--crf=best"], ["--crf", "best"]])
def test_crf_of_no_preset(run: Run, photos: list[Path], tmp_path: Path, words: list[str]) -> None:
    result = run("segment", *words, photos[0], "-o", tmp_path / "out")
    assert result.exit_code == 2 and result.stderr.startswith("error: --crf best: must be one of deeplab_vgg, ")


def test_a_large_photo_is_refined_at_a_size_of_its_own(
    network: DeepLabV3Plus, monkeypatch: pytest.MonkeyPatch, photos: list[Path]
) -> None:
    monkeypatch.setattr(refine, "SIDE", 30)
    image = torch.from_numpy(read_image(photos[0]))
    labels = network.predict(image, dense_crf_preset("crfrnn"))
    assert labels.shape == image.shape[:2] and labels.dtype == torch.uint8
    batch = network.predict(torch.stack([image, image.flip(1)]), dense_crf_preset("crfrnn"))
    assert torch.equal(batch[0], labels)
    with pytest.raises(ValueError, match="fastseg::predict: crf must be None"):
        network.predict(image.permute(2, 0, 1).float(), dense_crf_preset("crfrnn"))


def test_pixel_limit(run: Run, photos: list[Path], tmp_path: Path) -> None:
    result = run("segment", photos[0], "-o", tmp_path / "out", "--max-pixels", 2000)
    assert result.exit_code == 2 and "60 x 45 pixels, over the limit of 2,000" in result.stderr


def test_output_that_cannot_be_a_folder(run: Run, photos: list[Path]) -> None:
    result = run("segment", photos[0], "-o", photos[1])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "cannot be made a folder" in result.stderr


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300)])
def test_extreme_shapes(run: Run, tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "white").save(tmp_path / "x.png")
    assert run("segment", tmp_path / "x.png", "-o", tmp_path / "out", "--blur-background", "--labels").exit_code == 0
    assert index(tmp_path / "out" / "x.png").shape == size[::-1]
