"""The losses against the libraries that people use today: the table of docs/losses.md, row by row."""

import re
from pathlib import Path
from typing import Any

import kornia.losses
import monai.losses
import pytest
import segmentation_models_pytorch.losses
import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor

from fastseg import losses

pytestmark = pytest.mark.parity

PAGE = (Path(__file__).parents[2] / "docs/losses.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", PAGE.split("## What other libraries say")[1], re.MULTILINE)
# smp cuts logarithms and denominators off at 1e-7 and kornia adds 1e-8; the rest is the order of the sums.
CLOSE = {"rtol": 2e-6, "atol": 2e-7}


def inputs(shape: tuple[int, int, int], kinds: int, seed: int) -> dict[str, Any]:
    """The names of the table; of three classes so many are in the labels."""
    n, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(kinds, (n, h, w), generator=generator)
    ignored = torch.rand(n, h, w, generator=generator) < 0.3
    ignored[:, 0, 0] = False  # an image without a valid pixel is a number of its own in each library
    logits = 2 * torch.randn(n, 4, h, w, generator=generator)
    return {
        "z": logits[:, :3],
        "b": logits[:, 3:],
        "y": labels,
        "v": labels.masked_fill(ignored, 255),
        "m": (labels == 0).long(),
        "masks": torch.rand(n, 3, h, w, generator=generator) < (0.5 if kinds == 3 else 0.0),
        "soft": torch.randn(n, 3, h, w, generator=generator).softmax(1),
        "w": torch.tensor([1.0, 2.0, 0.5]),
        "keep": {"average": "sample", "absent": "keep", "smooth_numerator": 1e-5, "smooth_denominator": 1e-5},
    }


THEIRS = {
    "torch": torch,
    "F": F,
    "torchvision": torchvision.ops,
    "smp": segmentation_models_pytorch.losses,
    "monai": monai.losses,
    "kornia": kornia.losses,
}
INPUTS = {
    "three classes": inputs((2, 13, 9), 3, 0),
    "two of three classes": inputs((2, 7, 12), 2, 1),
    "one class": inputs((1, 5, 8), 1, 2),
    "one pixel": inputs((1, 1, 1), 3, 3),
    "two images of one pixel": inputs((2, 1, 1), 3, 4),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("theirs, ours", ROWS, ids=[theirs for theirs, _ in ROWS])
def test_the_same_number_and_gradient(theirs: str, ours: str, kind: str) -> None:
    names = INPUTS[kind]

    def run(expression: str, space: dict[str, Any]) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        z, b = (names[name].clone().requires_grad_() for name in ("z", "b"))
        value = eval(expression, {**names, "z": z, "b": b, **space})
        return value.detach(), torch.autograd.grad(value, (z, b), allow_unused=True)

    want, want_gradients = run(theirs, THEIRS)
    got, gradients = run(ours, {"torch": torch, **{name: getattr(losses, name) for name in losses.__all__}})
    torch.testing.assert_close(got, want, **CLOSE)
    for gradient, expected in zip(gradients, want_gradients, strict=True):
        assert (gradient is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_every_library_has_rows() -> None:
    assert {theirs.split(".")[0] for theirs, _ in ROWS} == THEIRS.keys() - {"torch"}
    table = PAGE.split("| theirs | ours |")[1].split("\n\n")[0]
    assert len(ROWS) == table.count("\n| ")  # none that the pattern does not match
