"""The examples run, and say what is true."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import fastseg
from fastseg.data.formats.images import read_image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def plain_deeplab() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "plain_deeplab.py"))


def test_the_head_gives_the_labels_of_plain_layers(plain_deeplab: dict[str, Any]) -> None:
    ours, theirs = fastseg.create_model("deeplab_v3_plus_lite0_ccp7"), plain_deeplab["lite0"]().eval()
    x = ours.preprocess(torch.from_numpy(read_image(ROOT / "docs" / "images" / "astronaut.png"))[None])
    with torch.inference_mode():
        got, want = ours(x), theirs(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    first, second = want.topk(2, 1).values.unbind(1)
    differ = got.argmax(1) != want.argmax(1)
    assert not differ[first - second > 1e-4].any() and got.argmax(1).unique().numel() > 2


def test_nothing_of_ours_is_left_in_the_plain_head(plain_deeplab: dict[str, Any]) -> None:
    model = plain_deeplab["lite0"]()
    assert not [m for m in model.modules() if isinstance(m, fastseg.nn.AtrousConv2d | fastseg.nn.ASPP)]
