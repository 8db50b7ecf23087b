"""Streamed surface metrics: means of what `surface_metrics` has, ignored pixels, missed objects."""

import math

import pytest
import torch

from fastseg import ops
from fastseg.metrics import ASSD, HD95, SurfaceDice


def maps(seed):
    numbers = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 3, (2, 6, 8), generator=numbers).repeat_interleave(4, 1).repeat_interleave(4, 2)
    wrong = torch.randint(0, 3, coarse.shape, generator=numbers)
    return torch.where(torch.rand(coarse.shape, generator=numbers) < 0.05, wrong, coarse), coarse


@pytest.mark.parametrize(
    ("metric", "name", "options"),
    [
        (HD95, "hd95", {}),
        (HD95, "hd95", {"convention": "area_weighted", "boundary": "dual", "spacing": (2.0, 0.5)}),
        (ASSD, "assd", {"spacing": (2.0, 0.5)}),
        (SurfaceDice, "surface_dice", {"tolerance": 2.0}),
    ],
)
def test_streamed_means(metric, name, options):
    stream = metric(3, **options)
    pairs = [maps(seed) for seed in range(3)]
    for prediction, target in pairs:
        stream.update(prediction, target)
    prediction, target = (torch.cat(side) for side in zip(*pairs, strict=True))
    found = ops.surface_metrics(prediction, target, [name], classes=range(3), **{"spacing": (1, 1), **options})
    result = stream.compute()
    torch.testing.assert_close(result.of_class, found.values[name].mean(0), rtol=1e-12, atol=0)
    assert result.mean.item() == pytest.approx(found.values[name].mean().item(), rel=1e-12)
    assert result.images.tolist() == [6, 6, 6]


def test_ignored_pixels_are_of_no_object():
    prediction, target = maps(0)
    clean = HD95(3)
    clean.update(target, target)
    assert clean.compute().mean == 0
    target = target.clone()
    target[:, :5] = 255
    prediction = target.clone()
    prediction[:, :5] = torch.randint(0, 3, prediction[:, :5].shape, generator=torch.Generator().manual_seed(1))
    stream = HD95(3)
    stream.update(prediction, target)
    assert stream.compute().mean == 0


def test_a_missed_object_is_infinitely_far_unless_the_policy_says_otherwise():
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    target[:, 2:4, 2:4] = 1
    prediction = torch.zeros_like(target)
    for empty, expected in (("default", math.inf), (10.0, 10.0)):
        stream = HD95(3, empty=empty)
        stream.update(prediction, target)
        result = stream.compute()
        assert result.of_class[1] == expected and result.empty.prediction == 1 and result.empty.both == 1
    dice = SurfaceDice(2)
    dice.update(prediction, target)
    assert dice.compute().of_class[1] == 0
