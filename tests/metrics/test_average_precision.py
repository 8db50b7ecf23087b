"""Average precision: the golden numbers of each convention, ties, and brute force."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.metrics import AveragePrecision, average_precision
from fastseg.metrics.average_precision import CONVENTIONS

TARGET = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0])
SCORES = torch.arange(8, 0, -1).float()
GOLDEN = {
    "step": 0.747024,
    "trapezoid": 0.706845,
    "voc_all": 0.767857,
    "voc_11": 0.769481,
    "coco_101": 0.770156,
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_golden(convention):
    assert average_precision(SCORES, TARGET, convention=convention).item() == pytest.approx(
        GOLDEN[convention], abs=5e-7
    )


def test_equal_scores_are_one_point_of_the_curve():
    """A loop over samples that breaks the tie positives first gives .830357, negatives first .705357."""
    target, scores = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.8, 0.6, 0.5, 0.4, 0.3, 0.1])
    for order in (torch.arange(8), torch.tensor([7, 2, 1, 0, 4, 3, 6, 5])):
        assert average_precision(scores[order], target[order]).item() == pytest.approx(0.747024, abs=5e-7)
        value = average_precision(scores[order], target[order], convention="trapezoid")
        assert value.item() == pytest.approx(0.769345, abs=5e-7)


def test_low_precision_scores_tie_as_they_are():
    scores = torch.tensor([1.0, 1.0001, 0.5], dtype=torch.bfloat16)  # the first two are equal in it
    assert average_precision(scores, torch.tensor([0, 1, 1])).item() == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 3)


def brute_force(scores, target, convention):
    """From the definitions, in fractions, one threshold after another."""
    positives = sum(target)
    points = [(Fraction(0), Fraction(1))]
    for limit in sorted(set(scores), reverse=True):
        found = [t for s, t in zip(scores, target, strict=True) if s >= limit]
        points.append((Fraction(sum(found), positives), Fraction(sum(found), len(found))))
    steps = list(itertools.pairwise(points))
    best = lambda least: max([p for r, p in points[1:] if r >= least], default=Fraction(0))  # noqa: E731
    if convention == "step":
        return sum((b[0] - a[0]) * b[1] for a, b in steps)
    if convention == "trapezoid":
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in steps)
    if convention == "voc_all":
        return sum((b[0] - a[0]) * best(b[0]) for a, b in steps)
    if convention == "voc_11":
        return sum(best(Fraction(i, 10)) for i in range(11)) / 11
    # As pycocotools: 101 rounded products, compared with rounded recalls.
    level = lambda t: max([p for r, p in points[1:] if float(r) >= t], default=Fraction(0))  # noqa: E731
    return sum(level(i * 0.01) for i in range(101)) / 101


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_is_that_of_brute_force(convention, samples):
    scores, target = [s for s, _ in samples], [t for _, t in samples]
    value = average_precision(torch.tensor(scores).float(), torch.tensor(target), convention=convention).item()
    if not any(target):
        assert math.isnan(value)
    else:
        assert value == pytest.approx(float(brute_force(scores, target, convention)), rel=1e-12)


def test_recalls_of_coco_are_its_rounded_products():
    """35 * 0.01 is above 7 / 20 in float64, so that the 36th point is the precision after it."""
    target = [1] * 7 + [0] * 13 + [1] * 13
    scores = list(range(len(target), 0, -1))
    value = average_precision(torch.tensor(scores).float(), torch.tensor(target), convention="coco_101")
    assert value.item() == pytest.approx((35 + 66 * 20 / 33) / 101, rel=1e-12)
    assert value.item() == pytest.approx(float(brute_force(scores, target, "coco_101")), rel=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_rows_are_rankings_of_their_own(convention):
    torch.manual_seed(0)
    scores, target = torch.randint(0, 5, (3, 4, 20)).float(), torch.rand(3, 4, 20) < 0.4
    batched = average_precision(scores, target, convention=convention)
    for i in range(3):
        for j in range(4):
            assert batched[i, j] == average_precision(scores[i, j], target[i, j], convention=convention)


def test_averages():
    scores = torch.stack([SCORES, SCORES.flip(0), SCORES])
    target = torch.stack([TARGET, TARGET, TARGET * 0])
    target[1, 2] = 0
    of_class = average_precision(scores, target)
    assert math.isnan(of_class[2])
    assert average_precision(scores, target, average="macro") == of_class[:2].mean()
    weighted = average_precision(scores, target, average="weighted")
    assert weighted.item() == pytest.approx((4 * of_class[0] + 3 * of_class[1]).item() / 7)
    micro = average_precision(scores, target, average="micro")
    assert micro == average_precision(scores.flatten(), target.flatten())
    zero = average_precision(scores, target, average="macro", absent="zero")
    assert zero.item() == pytest.approx(of_class[:2].sum().item() / 3)
    one = average_precision(scores, target, average="macro", absent="one")
    assert one.item() == pytest.approx((of_class[:2].sum().item() + 1) / 3)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_ignored_samples_are_not_ranked(convention):
    target = torch.tensor([1, 255, 0, 1, 255, 1, 0, 0])
    scores = SCORES.clone()
    scores[4] = math.nan  # of an ignored sample it may be anything
    kept = target != 255
    value = average_precision(scores, target, ignore_index=255, convention=convention)
    assert value == average_precision(scores[kept], target[kept], convention=convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_small_and_extreme(convention):
    nothing = average_precision(torch.zeros(0), torch.zeros(0, dtype=torch.int64), convention=convention)
    assert math.isnan(nothing)
    one = average_precision(torch.tensor([-math.inf]), torch.tensor([True]), convention=convention)
    assert one == 1
    assert average_precision(torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.bool), convention=convention).shape == (
        0,
    )


@pytest.mark.parametrize(
    ("scores", "target", "options", "message"),
    [
        (SCORES, TARGET[:5], {}, "target must be boolean or integer"),
        (SCORES, TARGET.float(), {}, "target must be boolean or integer"),
        (SCORES.long(), TARGET, {}, "scores must be a floating tensor"),
        (SCORES, TARGET * 2, {}, "target must be 0 or 1, got 2"),
        (SCORES * math.nan, TARGET, {}, "scores must be numbers, got nan"),
        (SCORES, TARGET, {"convention": "voc"}, "convention must be one of step, trapezoid, voc_all"),
        (SCORES, TARGET, {"average": "macro"}, r"scores must be \[C, N\] with average 'macro'"),
        (SCORES, TARGET, {"absent": "skip_unseen"}, "absent must be one of skip, zero, one"),
        (SCORES, TARGET, {"ignore_index": 1}, "ignore_index must be a number other than 0 and 1"),
    ],
)
def test_errors(scores, target, options, message):
    with pytest.raises(ValueError, match=f"fastseg::average_precision: {message}"):
        average_precision(scores, target, **options)


def test_streamed_is_that_of_all_samples():
    torch.manual_seed(1)
    scores, target = torch.rand(3, 300), torch.randint(0, 3, (3, 300))
    metric = AveragePrecision(3, ignore_index=2, average="macro")
    for part in torch.split(torch.randperm(300), [1, 0, 120, 7, 172]):
        metric.update(scores[:, part], target[:, part])
    want = average_precision(scores, target, ignore_index=2, average="macro")
    assert metric.compute().item() == pytest.approx(want.item(), rel=1e-12)
    metric.reset()
    metric.update(scores, target)
    assert metric.compute() == want
    with pytest.raises(ValueError, match=r"fastseg::AveragePrecision: scores must be \[3, N\]"):
        metric.update(scores[0], target[0])
    single = AveragePrecision()
    assert math.isnan(single.compute())
    single.update(SCORES, TARGET)
    assert single.compute().item() == pytest.approx(0.747024, abs=5e-7)
