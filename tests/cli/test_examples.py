"""The examples run, and do what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from fastseg.models import create_model, deeplab_v3_plus, save_weights


def example(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_segment_photo(photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    names = ("background", "person")
    save_weights(deeplab_v3_plus("mobilenet_v2", 2, longer_side=64, classes=names), tmp_path / "w.safetensors")
    example("segment_photo").main(str(photos[0]), str(tmp_path / "out"), str(tmp_path / "w.safetensors"))
    with Image.open(tmp_path / "out" / "labels.png") as image, Image.open(photos[0]) as photo:
        labels = np.array(image)
        expected = create_model("deeplab_v3_plus", tmp_path / "w.safetensors").predict(np.array(photo))
    np.testing.assert_array_equal(labels, expected.numpy())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"labels.png", "overlay.jpg", "blurred.jpg"}
    assert f"background: {(labels == 0).mean():.1%}" in capsys.readouterr().out


def test_drop_in(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("drop_in")
    module.main(64, 96)
    said = capsys.readouterr().out
    assert "after: " in said and "torch.uint8" in said
    assert int(said.split("\n")[2].split()[0]) <= 2
