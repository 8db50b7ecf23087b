"""The numbers of the papers and of the libraries, by the options that stand for each."""

import math

import pytest
import torch
from torch import Tensor

from fastseg import losses, ops

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.5, 0.4, 0.1]]).double()
LOGITS = PROBABILITIES.log().T.reshape(1, 3, 1, 4)
LABELS = torch.tensor([0, 1, 2, 1]).view(1, 1, 4)
IGNORED = torch.tensor([0, 1, 2, 255]).view(1, 1, 4)
ABSENT = torch.tensor([0, 1, 0, 1]).view(1, 1, 4)
WEIGHT = torch.tensor([1.0, 2.0, 3.0])
BINARY = torch.tensor([2.0, -1.0, 0.5, -2.0]).double().view(1, 1, 1, 4)
TRUTH = torch.tensor([1, 0, 0, 1]).view(1, 1, 4)

SMP = {"absent": "zero"}
SMP_SMOOTH = {**SMP, "smooth_numerator": 2.0, "smooth_denominator": 2.0}
MONAI = {"average": "sample", "absent": "keep", "smooth_numerator": 1e-5, "smooth_denominator": 1e-5}
MONAI_JACCARD = {**MONAI, "smooth_numerator": 5e-6, "smooth_denominator": 5e-6}

# Loss, options, target, factor, the spec's number.
GOLDEN = [
    ("cross_entropy", {}, LABELS, 1, 0.619235),
    ("cross_entropy", {"weight": WEIGHT}, LABELS, 1, 0.661294),
    ("cross_entropy", {"weight": WEIGHT, "normalizer": "count"}, LABELS, 1, 1.322587),
    ("cross_entropy", {}, IGNORED, 1, 0.520216),
    ("cross_entropy", {"label_smoothing": 0.1}, LABELS, 1, 0.687843),
    ("focal", {}, LABELS, 1, 0.154246),
    ("focal", {}, LABELS, 1 / 3, 0.051415),
    ("focal", {"alpha": 0.25}, LABELS, 1 / 3, 0.014191),
    ("focal", {"activation": "sigmoid"}, LABELS, 1, 0.158492),
    ("focal", {"activation": "sigmoid", "alpha": 0.25}, LABELS, 1, 0.043136),
    ("dice", SMP, LABELS, 1, 0.457090),
    ("dice", SMP_SMOOTH, LABELS, 1, 0.256267),
    ("dice", SMP, IGNORED, 1, 0.401797),
    ("dice", {**SMP, "log": True}, LABELS, 1, 0.612665),
    ("dice", MONAI, LABELS, 1, 0.457088),
    ("dice", {**MONAI, "squared": True}, LABELS, 1, 0.243219),
    ("jaccard", MONAI_JACCARD, LABELS, 1, 0.626707),
    ("generalized_dice", MONAI, LABELS, 1, 0.464202),
    ("dice", {"average": "micro"}, LABELS, 1, 0.45),
    ("dice", {"average": "sample"}, LABELS, 1, 0.457090),
    ("dice", {"average": "micro"}, IGNORED, 1, 0.4),
    ("jaccard", SMP, LABELS, 1, 0.626708),
    ("tversky", {**SMP, "alpha": 0.3, "beta": 0.7}, LABELS, 1, 0.451394),
    ("tversky", {**MONAI, "alpha": 0.3, "beta": 0.7}, LABELS, 1, 0.451391),
    ("focal_tversky", {**SMP, "power_of": "mean", "exponent": 0.75}, LABELS, 1, 0.550702),
    ("lovasz_softmax", {}, LABELS, 1, 0.466667),
    ("lovasz_softmax", {"classes": "all"}, LABELS, 1, 0.466667),
    ("lovasz_softmax", {}, ABSENT, 1, 0.529167),
    ("lovasz_softmax", {"classes": "all"}, ABSENT, 1, 0.519444),
    ("dice", SMP, ABSENT, 1, 0.295026),
    ("dice", MONAI, ABSENT, 1, 0.628355),
    ("dice", {"average": "sample"}, ABSENT, 1, 0.442539),
]
BINARY_GOLDEN = [
    ("cross_entropy", {"activation": "sigmoid"}, 0.885299),
    ("dice", {**SMP, "activation": "sigmoid"}, 0.486046),
    ("focal", {"activation": "sigmoid"}, 0.512988),
    ("focal", {"activation": "sigmoid", "alpha": 0.25}, 0.178256),
    ("lovasz_hinge", {}, 1.75),
]
SIX = {"abs": 5.1e-7}  # the spec's numbers have six decimals


@pytest.mark.parametrize("name, options, target, factor, want", GOLDEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_four_pixels_of_three_classes(
    name: str, options: dict, target: Tensor, factor: float, want: float, dtype: torch.dtype
) -> None:
    got = getattr(losses, name)(LOGITS.to(dtype), target, **options) * factor
    assert got.dtype == dtype
    # Sums of four float32 terms: rounding is below the seventh decimal.
    assert got.item() == pytest.approx(want, **SIX)


@pytest.mark.parametrize("name, options, want", BINARY_GOLDEN)
def test_four_pixels_of_one_class(name: str, options: dict, want: float) -> None:
    assert getattr(losses, name)(BINARY, TRUTH, **options).item() == pytest.approx(want, **SIX)


def test_no_pixel_counts_is_nan_in_torch_and_here_zero() -> None:
    ignored = torch.full_like(LABELS, 255)
    assert ops.upsample_cross_entropy(LOGITS, ignored).isnan()
    assert losses.cross_entropy(LOGITS, ignored) == 0


def test_four_probabilities_by_hand() -> None:
    p = torch.tensor([0.9, 0.6, 0.3, 0.2], dtype=torch.float64)
    z, y = p.logit().view(1, 1, 1, 4), torch.tensor([1, 1, 0, 0]).view(1, 1, 4)
    s = losses.statistics(z, y, activation="sigmoid")
    got = {
        "TP": s.tp,
        "FP": s.predicted - s.tp,
        "FN": s.target - s.tp,
        "Dice": 1 - losses.dice(s),
        "squared": 1 - losses.dice(s, squared=True),
        "IoU": 1 - losses.jaccard(s),
        "Tversky": 1 - losses.tversky(s),
        "focal Tversky": losses.focal_tversky(s),
    }
    want = {"TP": 1.5, "FP": 0.5, "FN": 0.5, "Dice": 0.75, "squared": 3 / 3.3, "IoU": 0.6, "Tversky": 0.75,
            "focal Tversky": 0.25**0.75}  # fmt: skip
    assert {k: v.item() for k, v in got.items()} == pytest.approx(want, abs=1e-12)
    for gamma, mean in ((0, 0.299001), (1, 0.091624), (2, 0.030953)):
        assert losses.focal(z, y, activation="sigmoid", gamma=gamma).item() == pytest.approx(mean, **SIX)
    # Lovász of the same: two channels whose softmax is (1 - p, p), the foreground class alone.
    two = torch.cat([torch.zeros_like(z), z], 1)
    both = losses.lovasz_softmax(two, y)
    other = losses.lovasz_softmax(two.flip(1), 1 - y)
    assert both.item() == pytest.approx(other.item(), abs=1e-12)
    errors, gradient = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.5, 1 / 6, 1 / 12, 0.25])
    foreground = errors @ gradient
    # Of the background the sorted truth is 0, 1, 1, 0: Jaccard losses 1/3, 2/3, 1, 1.
    background = errors @ torch.tensor([1 / 3, 1 / 3, 1 / 3, 0])
    assert foreground.item() == pytest.approx(0.291667, **SIX)
    assert both.item() == pytest.approx((foreground + background).item() / 2, abs=1e-6)


def test_the_hausdorff_loss_of_four_pixels() -> None:
    z, y = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[None, None], torch.tensor([[1, 0], [1, 1]])[None]
    got = losses.hausdorff_dt(z.double(), y, activation="sigmoid")
    assert got.item() == pytest.approx(0.509329, **SIX)
    near, far = torch.tensor([1.0, -1.0]).double().sigmoid().sub(1).square().tolist()
    assert got.item() == pytest.approx((3 * 2 * near + 3 * far) / 4, abs=1e-12)
    got = losses.hausdorff_dt(z.double(), y, activation="sigmoid", one_sided=True)
    assert got.item() == pytest.approx((3 * near + 2 * far) / 4, abs=1e-12)


def test_the_erosion_loss_of_two_squares() -> None:
    p, y = torch.zeros(1, 1, 7, 7).double(), torch.zeros(1, 7, 7, dtype=torch.uint8)
    p[..., 2:5, 3:6], y[:, 2:5, 2:5] = 1, 1
    got = losses.hausdorff_erosion((2 * p - 1) * 1e3, y, activation="sigmoid")
    assert got.item() == pytest.approx(2 / 49, abs=1e-12)


def test_the_signed_distance_of_a_square() -> None:
    """With all of the probability at one pixel, the loss is its distance over the number of pixels."""
    y = torch.zeros(1, 5, 5, dtype=torch.uint8)
    y[:, 1:4, 1:4] = 1
    phi = torch.empty(5, 5)
    for place in range(25):
        z = torch.full((25,), -1e4)
        z[place] = 1e4
        phi.view(-1)[place] = losses.boundary(z.view(1, 1, 5, 5), y, activation="sigmoid") * 25
    root, one = math.sqrt(2), 1.0
    want = torch.tensor([
        [root, one, one, one, root], [one, 0, 0, 0, one], [one, 0, -1, 0, one], [one, 0, 0, 0, one],
        [root, one, one, one, root],
    ])  # fmt: skip
    torch.testing.assert_close(phi, want)


def test_the_weights_between_two_instances() -> None:
    row = torch.tensor([[[1, 1, 1, 0, 0, 0, 2, 2, 2]]])
    got = losses.border_weight_map(row)[0, 0].tolist()
    want = [4.86752, 6.06531, 7.26149, 7.26149, 7.26149, 7.26149, 7.26149, 6.06531, 4.86752]
    assert got == pytest.approx(want, abs=5.1e-6)  # five decimals
