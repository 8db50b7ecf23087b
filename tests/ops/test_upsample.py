"""The upsample family: its truth by another road, and what the documentation promises."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg import ops, testing
from fastseg.testing import bands
from fastseg.testing.signals import logits
from fastseg.testing.tolerances import floor

SIZES = [(5, 10), (7, 17), (65, 513), (33, 512), (16, 8), (31, 10), (1, 7), (9, 1), (2, 2000), (11, 11)]


def weights(source: int, out: int, align_corners: bool) -> Tensor:
    """The [out, source] matrix of exact weights, in rational arithmetic, rounded to float64 once."""
    matrix = torch.zeros(out, source, dtype=torch.float64)
    for p in range(out):
        if align_corners:
            s = Fraction(p * (source - 1), max(out - 1, 1))
        else:
            s = max(Fraction((2 * p + 1) * source, 2 * out) - Fraction(1, 2), Fraction(0))
        low = int(s)
        matrix[p, low] += float(1 - (s - low))
        matrix[p, min(low + 1, source - 1)] += float(s - low)
    return matrix


def upsampled(x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Upsampling by two matrix products."""
    rows, columns = (weights(n, m, align_corners) for n, m in zip(x.shape[2:], size, strict=True))
    return rows @ x @ columns.T


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("source, out", SIZES)
def test_truth_and_kernels_agree_with_exact_weights(source: int, out: int, align_corners: bool) -> None:
    x = logits((1, 3, source, 4), "noise", 0)
    want = upsampled(x, (out, 9), align_corners)
    allowed = floor(torch.float64, source) * x.abs().max()
    with fastseg.backend("reference"):
        assert (ops.upsample_bilinear(x, (out, 9), align_corners=align_corners) - want).abs().max() <= allowed
    for isa in testing.isas():
        with testing.use_isa(isa):
            assert (ops.upsample_bilinear(x, (out, 9), align_corners=align_corners) - want).abs().max() <= allowed


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("source, out", SIZES)
def test_corners_are_where_the_exact_weights_are(source: int, out: int, align_corners: bool) -> None:
    low, high = bands.corners(source, out, align_corners)
    matrix = weights(source, out, align_corners)
    inside = torch.zeros_like(matrix, dtype=torch.bool)
    inside[torch.arange(out), low] = inside[torch.arange(out), high] = True
    assert not matrix[~inside].any()


def test_a_band_excuses_no_more_than_a_tie() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0 - 1e-3]], dtype=torch.float64).view(1, 2, 1, 2)
    assert bands.argmax(x, (1, 2), False, torch.float32).undecided.tolist() == [[[True, False]]]
    x[0, 0] = float("nan")
    assert not bands.argmax(x, (1, 2), False, torch.float32).undecided.any()
    assert not bands.threshold(x[:, 1:], (1, 2), False, torch.float32, 1.5).undecided.any()


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("kind", ["noise", "smooth", "ties"])
def test_backward_is_the_adjoint(kind: str, isa: str) -> None:
    """<upsample(x), g> = <x, backward(g)>, exactly so for small integers at a scale of two."""
    x = logits((2, 3, 6, 11), kind, 1).requires_grad_()
    g = logits((2, 3, 12, 22), kind, 2)
    with testing.use_isa(isa):
        out = ops.upsample_bilinear(x, (12, 22))
        (grad,) = torch.autograd.grad(out, x, g)
    left, right = (out * g).sum(), (x * grad).sum()
    assert left == right if kind == "ties" else torch.isclose(left, right, rtol=1e-13)


def test_identity_size_is_the_identity() -> None:
    for dtype in testing.FLOATS:
        x = torch.randn(2, 3, 5, 7).to(dtype)
        assert torch.equal(ops.upsample_bilinear(x, (5, 7)), x)
        assert torch.equal(ops.upsample_argmax(x, (5, 7)), x.argmax(1).to(torch.uint8))


@pytest.mark.parametrize("isa", testing.isas())
def test_the_lowest_index_wins_a_tie_and_nan_wins_over_all(isa: str) -> None:
    x = torch.zeros(1, 40, 4, 5)
    with testing.use_isa(isa):
        assert not ops.upsample_argmax(x, (16, 20)).any()
        x[0, 7:] = 1
        assert (ops.upsample_argmax(x, (16, 20)) == 7).all()
        x[0, 33] = x[0, 35] = float("nan")
        x[0, 21] = 1e30
        assert (ops.upsample_argmax(x, (16, 20)) == 33).all()


@pytest.mark.parametrize("value", [0.5, -2.0, 0.0, -0.0])
def test_a_value_at_the_threshold_is_false(value: float) -> None:
    x = torch.full((1, 2, 3, 4), value)
    assert not ops.upsample_threshold(x, (6, 8), value).any()
    assert ops.upsample_threshold(x, (6, 8), value - 0.25).all()
    assert not ops.upsample_threshold(torch.full_like(x, float("nan")), (6, 8), value).any()


def test_probabilities_are_the_softmax_and_the_confidence_is_their_maximum() -> None:
    x = logits((1, 19, 9, 13), "noise", 3)
    p = ops.upsample_softmax(x, (36, 52))
    labels, confidence = ops.upsample_argmax(x, (36, 52), return_confidence=True)
    best = p.max(1)
    assert torch.equal(labels.long(), best.indices)
    assert torch.allclose(confidence, best.values, rtol=1e-14, atol=0)
    assert torch.allclose(p.sum(1), torch.ones_like(best.values), rtol=1e-14, atol=0)
    assert torch.equal(labels, ops.upsample_argmax(x, (36, 52)))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}, {"reduction": "none"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_torch(options: dict[str, object], weighted: bool) -> None:
    x = logits((2, 7, 6, 9), "noise", 4)
    target = torch.randint(0, 7, (2, 23, 35))
    target[0, :3] = 255
    weight = torch.rand(7, dtype=torch.float64) if weighted else None
    full = F.interpolate(x, size=(23, 35), mode="bilinear")
    want = F.cross_entropy(full, target, weight, ignore_index=255, **options)
    assert torch.allclose(ops.upsample_cross_entropy(x, target, weight=weight, **options), want, rtol=1e-12, atol=1e-14)


def test_with_everything_ignored_the_loss_is_that_of_torch() -> None:
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    target = torch.full((1, 8, 10), 255)
    assert ops.upsample_cross_entropy(x, target).isnan()
    assert ops.upsample_cross_entropy(x, target, reduction="sum") == 0
    loss = ops.upsample_cross_entropy(x, target, reduction="none")
    assert not loss.any()
    assert not torch.autograd.grad(loss.sum(), x)[0].any()


@pytest.mark.parametrize("isa", testing.isas())
def test_of_one_class_loss_and_gradient_are_zero(isa: str) -> None:
    x = logits((1, 1, 5, 6), "noise", 6).float().requires_grad_()
    with testing.use_isa(isa):
        loss = ops.upsample_cross_entropy(x, torch.zeros(1, 13, 19, dtype=torch.uint8), reduction="sum")
        (grad,) = torch.autograd.grad(loss, x)
    # The largest term that cancels is 1 for each of the 13 * 19 pixels.
    assert loss.abs() <= 13 * 19 * floor(torch.float32, 6) and grad.abs().max() <= 13 * 19 * floor(torch.float32, 6)


def test_pixel_weights_of_zero_are_as_good_as_ignoring() -> None:
    x = logits((1, 5, 4, 6), "noise", 5)
    target = torch.randint(0, 5, (1, 16, 24))
    ignored = target.masked_fill(torch.rand(1, 16, 24) < 0.3, 255)
    weighted = ops.upsample_cross_entropy(x, target, pixel_weight=(ignored != 255).double())
    assert torch.allclose(weighted, ops.upsample_cross_entropy(x, ignored), rtol=1e-13)


def test_no_result_is_a_view_of_the_input() -> None:
    x = torch.randn(1, 3, 5, 7)
    assert ops.upsample_bilinear(x, (5, 7)).data_ptr() != x.data_ptr()
