"""What other libraries get wrong or leave open, one test each, with the answer that is defined here."""

import pytest
import torch
from torch import Tensor

from fastseg import losses

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.5, 0.4, 0.1]]).double()
LOGITS = P.log().T.reshape(1, 3, 1, 4)
LABELS = torch.tensor([0, 1, 2, 1]).view(1, 1, 4)
IGNORED = torch.tensor([0, 1, 2, 255]).view(1, 1, 4)
CUT = LOGITS[..., :3], LABELS[..., :3]  # without the ignored pixel


def near(value: Tensor, want: float) -> bool:
    return value.item() == pytest.approx(want, abs=5.1e-7)  # six decimals


def test_soft_cross_entropy_of_smp_divides_by_ignored_pixels() -> None:
    """SoftCrossEntropyLoss says .390162 (segmentation_models_pytorch #852): a sum over 3 pixels, divided by 4."""
    got = losses.cross_entropy(LOGITS, IGNORED)
    assert near(got, 0.520216) and near(got * 3 / 4, 0.390162)
    torch.testing.assert_close(losses.cross_entropy(LOGITS, IGNORED, label_smoothing=0.1),
                               losses.cross_entropy(*CUT, label_smoothing=0.1))  # fmt: skip


def test_soft_bce_of_smp_divides_by_ignored_pixels() -> None:
    masks = torch.tensor([1.0, 0.0, 1.0, 255.0]).view(1, 1, 1, 4)
    logits = torch.tensor([2.0, -1.0, 0.5, -2.0]).view(1, 1, 1, 4)
    want = torch.nn.functional.binary_cross_entropy_with_logits(logits[..., :3], masks[..., :3])
    torch.testing.assert_close(losses.cross_entropy(logits, masks, activation="sigmoid"), want)


def test_focal_loss_of_kornia_divides_by_ignored_pixels() -> None:
    torch.testing.assert_close(losses.focal(LOGITS, IGNORED), losses.focal(*CUT))


def test_class_weights_of_mmseg_are_not_normalised() -> None:
    """Logits (100, -100) of class 1 with weights (.8, .2): mmseg says 40, torch 200; each by its name."""
    logits, label = torch.tensor([100.0, -100.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1).long()
    weight = torch.tensor([0.8, 0.2])
    assert losses.cross_entropy(logits, label, weight=weight) == 200
    assert losses.cross_entropy(logits, label, weight=weight, normalizer="count") == 40


def test_cross_entropy_of_mmseg_averages_over_ignored_pixels() -> None:
    """Without avg_non_ignore it divides by every pixel; `count` here counts those that count."""
    weight = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(losses.cross_entropy(LOGITS, IGNORED, weight=weight, normalizer="count"),
                               losses.cross_entropy(*CUT, weight=weight, normalizer="count"))  # fmt: skip


def test_dice_of_mmseg_counts_ignored_pixels() -> None:
    """Its ignore_index drops a channel and keeps the pixels (mmseg #1088)."""
    for options in ({}, {"average": "micro"}, {"average": "sample"}, {"squared": True}, {"log": True}):
        torch.testing.assert_close(losses.dice(LOGITS, IGNORED, **options), losses.dice(*CUT, **options))
    got = losses.dice(LOGITS, LABELS, ignore_index=1)  # the class goes with its pixels
    kept = LABELS[0, 0] != 1
    torch.testing.assert_close(got, losses.dice(LOGITS[..., kept], LABELS[..., kept]))


def test_an_image_without_valid_pixels_is_a_loss_of_one_in_kornia() -> None:
    """Here it is no member of the mean, and alone it is 0."""
    batch = torch.cat([LOGITS, LOGITS]), torch.cat([LABELS, torch.full_like(LABELS, 255)])
    for average in ("micro", "sample", "class"):
        one = losses.dice(LOGITS, LABELS, average=average)
        torch.testing.assert_close(losses.dice(*batch, average=average), one)
        assert losses.dice(LOGITS, torch.full_like(LABELS, 255), average=average) == 0
    torch.testing.assert_close(losses.tversky(*batch, average="sample"), losses.tversky(LOGITS, LABELS))


def test_lovasz_without_ignore_index_takes_minus_100_for_a_label() -> None:
    """kornia computes something, even below 0; here it is ignored where it is said so, and refused otherwise."""
    odd = torch.where(IGNORED == 255, -100, IGNORED)
    got = losses.lovasz_softmax(LOGITS, odd, ignore_index=-100)
    torch.testing.assert_close(got, losses.lovasz_softmax(*CUT))
    binary = torch.tensor([1, 0, 0, -100]).view(1, 1, 4)
    got = losses.lovasz_hinge(LOGITS[:, :1], binary, ignore_index=-100)
    torch.testing.assert_close(got, losses.lovasz_hinge(LOGITS[:, :1, :, :3], binary[..., :3]))
    assert got >= 0
    for function, logits, labels in (
        (losses.lovasz_softmax, LOGITS, odd),
        (losses.lovasz_hinge, LOGITS[:, :1], binary),
    ):
        with pytest.raises(RuntimeError, match="got -100 at"):
            function(logits, labels)


def test_an_image_of_ignored_pixels_is_a_lovasz_loss_of_zero_in_the_mean_of_smp() -> None:
    batch = torch.cat([LOGITS, LOGITS]), torch.cat([LABELS, torch.full_like(LABELS, 255)])
    torch.testing.assert_close(losses.lovasz_softmax(*batch, per_image=True), losses.lovasz_softmax(LOGITS, LABELS))


def test_an_absent_class_is_one_in_monai_and_zero_in_smp() -> None:
    """Neither is hidden: the rule has a name, and by default the class is left out of the mean."""
    labels = torch.tensor([0, 1, 0, 1]).view(1, 1, 4)
    smooth = {"smooth_numerator": 1e-5, "smooth_denominator": 1e-5}
    each = losses.dice(LOGITS, labels, absent="keep", reduction="none", **smooth)
    assert each[2].item() == pytest.approx(0.99999, abs=1.1e-5)
    assert losses.dice(LOGITS, labels, absent="zero", reduction="none")[2] == 0
    torch.testing.assert_close(losses.dice(LOGITS, labels), each[:2].mean(), rtol=1e-4, atol=0)


def test_a_dice_loss_without_a_true_pixel_has_no_gradient_only_where_the_class_is_left_out() -> None:
    logits, labels = LOGITS.clone().requires_grad_(), torch.tensor([0, 1, 0, 1]).view(1, 1, 4)
    loss = losses.dice(logits, labels, absent="keep", smooth_numerator=1.0, smooth_denominator=1.0, reduction="none")[2]
    assert (torch.autograd.grad(loss, logits)[0][:, 2] > 0).all()
    for absent in ("skip", "zero"):
        loss = losses.dice(logits, labels, absent=absent, reduction="none")[2]
        assert not torch.autograd.grad(loss, logits)[0].any()


def test_focal_losses_that_are_called_multiclass_are_sigmoids() -> None:
    """segmentation_models_pytorch and MONAI by default: .158492; the softmax .154246; by its name here."""
    assert near(losses.focal(LOGITS, LABELS, activation="sigmoid"), 0.158492)
    assert near(losses.focal(LOGITS, LABELS), 0.154246)


def test_the_hausdorff_loss_of_mmseg_compares_probabilities_with_labels() -> None:
    """Each class has its own mask and distances here, so that the names of the classes do not matter."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    labels, order = torch.randint(4, (2, 6, 7), generator=generator), torch.tensor([2, 0, 3, 1])
    renamed = torch.empty_like(logits)
    renamed[:, order] = logits
    for function in (losses.hausdorff_dt, losses.hausdorff_erosion, losses.boundary):
        torch.testing.assert_close(function(renamed, order[labels]), function(logits, labels))


def test_a_hausdorff_loss_of_the_inside_alone_forgives_false_positives() -> None:
    """With distances of the foreground only, an error far outside weighs nothing; here it weighs its distance."""
    labels = torch.zeros(1, 1, 9).long()
    labels[..., :2] = 1
    logits = torch.full((1, 1, 1, 9), -1e4).double()
    logits[..., :2] = 1e4
    logits[..., 8] = 0  # p = .5 is no foreground, so that the field of the prediction is that of the target
    assert losses.hausdorff_dt(logits, labels, activation="sigmoid").item() == pytest.approx(0.25 * 2 * 7**2 / 9)


def test_a_mask_without_a_boundary_has_no_distance() -> None:
    """scipy measures to a pixel beyond the image; here a class that fills it, or is not in it, has loss 0."""
    logits = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    for label in (0, 1):
        assert losses.boundary(logits, torch.full((1, 3, 4), label)) == 0
        certain = 1e4 * torch.tensor([1.0, -1.0]).double().view(1, 2, 1, 1).expand_as(logits)
        assert losses.hausdorff_dt(certain, torch.full((1, 3, 4), label)) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_a_focal_loss_with_gamma_below_one_has_no_infinite_slope(gamma: float) -> None:
    logits = torch.tensor([1e3, -1e3]).double().view(1, 2, 1, 1).requires_grad_()
    for activation in ("softmax", "sigmoid"):
        loss = losses.focal(logits, torch.zeros(1, 1, 1).long(), gamma=gamma, activation=activation)
        assert loss == 0 and not torch.autograd.grad(loss, logits)[0].any()


def test_soft_labels_in_a_product_ask_for_certainty() -> None:
    """Of y = .5 MONAI's default is least at p = 1 or any p that says so, and smp's at p = .5: `minimum`."""
    target = torch.full((1, 1, 1, 8), 0.5).double()
    level = torch.linspace(0.05, 0.95, 19).double()
    values = [
        [
            losses.dice(x.logit().expand(1, 1, 1, 8), target, activation="sigmoid", intersection=kind).item()
            for x in level
        ]
        for kind in ("product", "minimum")
    ]
    assert level[values[0].index(min(values[0]))] > 0.9
    assert level[values[1].index(min(values[1]))].item() == pytest.approx(0.5)
