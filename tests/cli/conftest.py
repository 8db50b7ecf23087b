"""A small network in the place of the shipped one, and photos to segment."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from fastseg.cli.main import app
from fastseg.models.deeplab_v3_plus import DeepLabV3Plus
from fastseg.models.preprocess import LITE

CLASSES = ("background", "skin", "hair", "upper clothes", "lower clothes", "shoes", "accessories")


class Backbone(nn.Module):
    """Two convolutions, at strides 4 and 16."""

    low_level_channels = 8
    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.rest = nn.Conv2d(8, 8, 5, stride=4, padding=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.stem(x)
        return low, self.rest(low)


@pytest.fixture(scope="session")
def network() -> DeepLabV3Plus:
    torch.manual_seed(3)
    preprocess = replace(LITE, longer_side=64)
    model = DeepLabV3Plus(Backbone(), 7, rates=(1, 2, 3), preprocess=preprocess, classes=CLASSES).eval()
    with torch.no_grad():
        model.classifier.bias -= model(torch.randn(1, 3, 64, 64)).mean((0, 2, 3))  # every class has its chance
    return model


Run = Callable[..., Result]


@pytest.fixture
def run(network: DeepLabV3Plus, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb in this process with the small network as the shipped one."""
    monkeypatch.setattr("fastseg.cli.network.load_network", lambda *_: ("tiny", network))
    monkeypatch.setenv("COLUMNS", "100")
    torch.set_num_threads(1)  # the networks here are too small for two

    def call(*arguments: Any) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two photos with structure, so that more than one class is found."""
    rng = np.random.default_rng(0)
    paths = []
    for name, size in (("one.png", (60, 45)), ("two.jpg", (40, 70))):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(tmp_path / name)
        paths.append(tmp_path / name)
    return paths
