"""What holds for every loss: one meaning of ignored pixels, no NaN where nothing counts, gradients, dtypes, errors."""

import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg import losses, ops

SIGMOID = {"activation": "sigmoid"}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("cross_entropy", {}),
    ("cross_entropy", {"weight": torch.tensor([1.0, 2.0, 0.5]), "label_smoothing": 0.1}),
    ("cross_entropy", {"ohem": 0.5}),
    ("cross_entropy", {"normalizer": "count", "weight": torch.tensor([1.0, 2.0, 0.5])}),
    ("cross_entropy", SIGMOID),
    ("focal", {}),
    ("focal", {"gamma": 0.5, "alpha": 0.25}),
    ("focal", {**SIGMOID, "alpha": 0.25}),
    ("dice", {}),
    ("dice", {"average": "sample", "absent": "keep", "squared": True, "smooth_denominator": 1e-5}),
    ("dice", {"average": "micro", "weight": torch.tensor([1.0, 2.0, 0.5])}),
    ("dice", {**SIGMOID, "absent": "zero", "log": True}),
    ("jaccard", {"include_background": False}),
    ("tversky", {"reduction": "sum"}),
    ("focal_tversky", {}),
    ("focal_tversky", {"power_of": "mean", "average": "sample"}),
    ("generalized_dice", {}),
    ("generalized_dice", {"average": "sample", "absent": "keep", "class_weight": "simple"}),
    ("lovasz_softmax", {}),
    ("lovasz_softmax", {"classes": "all", "per_image": True}),
    ("lovasz_hinge", {}),
    ("lovasz_hinge", {"per_image": False}),
    ("boundary", {}),
    ("boundary", {**SIGMOID, "include_background": False}),
    ("hausdorff_dt", {}),
    ("hausdorff_dt", {**SIGMOID, "one_sided": True}),
    ("hausdorff_erosion", {}),
    ("hausdorff_erosion", {**SIGMOID, "erosions": 3}),
]
rows = pytest.mark.parametrize("name, options", ROWS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(ROWS)])


def problem(name: str, shape: tuple[int, ...] = (2, 3, 5, 6), size: tuple[int, int] = (5, 6)) -> tuple[Tensor, Tensor]:
    """Logits that are wrong as often as right, so that erosions of errors leave something, and labels in blobs."""
    generator = torch.Generator().manual_seed(3)
    classes = 1 if name == "lovasz_hinge" else shape[1]
    labels = torch.randint(2 if classes == 1 else classes, (shape[0], 2, 2), generator=generator)
    labels = F.interpolate(labels[:, None].float(), size=size)[:, 0].long()
    logits = 3 * torch.randn(shape[0], classes, *shape[2:], generator=generator, dtype=torch.float64)
    return logits, labels


def loss(name: str, logits: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
    return getattr(losses, name)(logits, target, **options)


def value_and_gradient(name: str, logits: Tensor, target: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(name, logits, target, options)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@rows
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradient(name: str, options: dict[str, Any], backend: str) -> None:
    logits, target = problem(name, (2, 3, 3, 4), (5, 6))
    target[0, :2, :3] = 255
    logits.requires_grad_()
    with fastseg.backend(backend):
        assert torch.autograd.grad(loss(name, logits, target, options), logits)[0].any()
        assert torch.autograd.gradcheck(lambda z: loss(name, z, target, options), (logits,))


@rows
def test_ignored_pixels_count_nowhere(name: str, options: dict[str, Any]) -> None:
    """What the logits say there makes no difference, nor does an image of which all pixels are ignored."""
    logits, target = problem(name)
    target[0, 1:3, 2:5] = 255
    other = torch.where((target == 255)[:, None], -5 * logits, logits)
    value, gradient = value_and_gradient(name, logits, target, options)
    again, same = value_and_gradient(name, other, target, options)
    # The sums are of the same terms, in the same order but for the sort of the Lovász losses.
    torch.testing.assert_close(again, value, rtol=1e-13, atol=0)
    torch.testing.assert_close(same, gradient, rtol=1e-12, atol=1e-15)
    assert not gradient.masked_select((target == 255)[:, None]).any()
    more = torch.cat([logits, logits[:1]]), torch.cat([target, torch.full_like(target[:1], 255)])
    torch.testing.assert_close(loss(name, *more, options), value, rtol=1e-13, atol=0)


@rows
@pytest.mark.parametrize("label", [255, 1, -3, 2**31 - 2])
def test_any_label_can_be_the_ignored_one(name: str, options: dict[str, Any], label: int) -> None:
    logits, target = problem(name)
    want = loss(name, logits, torch.where(target == 1, 255, target), options)
    got = loss(name, logits, torch.where(target == 1, label, target), {**options, "ignore_index": label})
    assert got == want
    if label not in (255, 1):  # of which bytes hold none, so that all of them count
        got = loss(name, logits, target.to(torch.uint8), {**options, "ignore_index": label})
        assert got == loss(name, logits, target, options)


@rows
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_nothing_that_counts_is_zero_with_gradient_zero(name: str, options: dict[str, Any], backend: str) -> None:
    logits, target = problem(name)
    with fastseg.backend(backend):
        for z, y in ((logits, torch.full_like(target, 255)), (logits[:0], target[:0])):
            value, gradient = value_and_gradient(name, z, y, options)
            assert value == 0 and not gradient.any()


@rows
def test_one_pixel(name: str, options: dict[str, Any]) -> None:
    logits, target = problem(name, (1, 3, 1, 1), (1, 1))
    value, gradient = value_and_gradient(name, logits, target, options)
    assert value.isfinite() and gradient.isfinite().all()
    constant = name in ("boundary", "hausdorff_dt")  # no boundary
    assert constant == (value == 0) or options.get("include_background") is False or name == "hausdorff_erosion"


@rows
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_certain_and_undecided_logits_have_finite_gradients(name: str, options: dict[str, Any], scale: float) -> None:
    logits, target = problem(name)
    value, gradient = value_and_gradient(name, logits.sign() * scale, target, options)
    assert value.isfinite() and gradient.isfinite().all()


@rows
def test_nan_logits_make_the_loss_nan(name: str, options: dict[str, Any]) -> None:
    logits, target = problem(name)
    logits[0, 0, 2, 2] = float("nan")
    target[0, 2, 2] = 0
    options = {k: v for k, v in options.items() if k != "include_background"}
    assert loss(name, logits, target, options).isnan()


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_float32_inside_autocast(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    logits, target = problem(name)
    logits = logits.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(name, logits, target, options)
    outside = loss(name, logits, target, options)
    assert value.dtype == outside.dtype == torch.float32 and value == outside
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.dtype == dtype
    wide = loss(name, logits.detach().double(), target, options)
    # Terms of some 90 pixels in float32; distances and logarithms are below 100.
    assert value.item() == pytest.approx(wide.item(), rel=1e-5, abs=1e-6)


@rows
def test_upsampling_is_that_of_full_logits(name: str, options: dict[str, Any]) -> None:
    logits, target = problem(name, (2, 3, 3, 4), (7, 9))
    for corners in (False, True):
        full = F.interpolate(logits, size=(7, 9), mode="bilinear", align_corners=corners)
        got = loss(name, logits, target, {**options, "align_corners": corners})
        torch.testing.assert_close(got, loss(name, full, target, options), rtol=1e-11, atol=0)


@rows
def test_compiles_without_a_break(name: str, options: dict[str, Any]) -> None:
    logits, target = problem(name)
    torch.compiler.reset()  # so that the rows before do not count as recompilations
    compiled = torch.compile(lambda z, y: loss(name, z, y, options), fullgraph=True, backend="aot_eager")
    z = logits.clone().requires_grad_()
    value = compiled(z, target)
    want, gradient = value_and_gradient(name, logits, target, options)
    torch.testing.assert_close(value, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(value, z)[0], gradient, rtol=1e-10, atol=1e-14)


@rows
def test_a_label_that_is_no_class_raises(name: str, options: dict[str, Any]) -> None:
    logits, target = problem(name)
    target[1, 2, 3] = 9
    with pytest.raises(RuntimeError, match=r"fastseg::\w+: target must be in \[0, \d\).*got 9 at \[1, 2, 3\]"):
        loss(name, logits, target, options)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "jaccard", "tversky", "focal_tversky",
                                  "generalized_dice"])  # fmt: skip
def test_poisoned_sums_are_a_loss_of_nan(name: str) -> None:
    """What a GPU makes of a label that is no class: of one image all sums are NaN."""
    s = losses.statistics(*problem(name), gamma=2.0)
    nan = torch.tensor([0.0, float("nan")], dtype=torch.float64)
    sums = {f.name: getattr(s, f.name) for f in fields(s) if isinstance(getattr(s, f.name), Tensor)}
    s = replace(s, **{key: x + (nan if x.dim() == 1 else nan[:, None]) for key, x in sums.items()})
    averages = ({"average": "class"}, {"average": "sample"}, {"absent": "keep"}, {"absent": "zero"})
    for options in averages if name not in ("cross_entropy", "focal") else [{}]:
        if name != "generalized_dice" or options.get("absent") != "zero":
            assert getattr(losses, name)(s, **options).isnan()


@pytest.mark.parametrize("name", ["dice", "cross_entropy", "boundary", "hausdorff_dt", "hausdorff_erosion"])
def test_a_share_out_of_range_makes_nan_where_values_cannot_be_looked_at(name: str) -> None:
    logits, _ = problem(name)
    target = torch.zeros_like(logits)
    target[1, 2, 3, 4] = 1.5
    torch.compiler.reset()
    compiled = torch.compile(lambda z, y: getattr(losses, name)(z, y), fullgraph=True, backend="aot_eager")
    assert compiled(logits, target).isnan()


def test_importing_fastseg_does_not_import_the_losses() -> None:
    code = "import sys, fastseg; assert 'fastseg.losses' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_soft_labels(activation: str) -> None:
    """The cross-entropy is that of torch, and with the minimum a perfect prediction has no loss."""
    logits, _ = problem("dice")
    target = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)
    got = losses.cross_entropy(logits, target, activation=activation)
    want = F.cross_entropy(logits, target)
    if activation == "sigmoid":
        want = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(got, want)
    perfect = target.log() if activation == "softmax" else target.logit()
    for function in (losses.dice, losses.jaccard, losses.tversky):
        options: dict[str, Any] = {"activation": activation, "intersection": "minimum"}
        assert function(perfect, target, **options).abs() < 1e-12
        assert function(perfect, target, activation=activation) > 0.1


def test_several_masks_may_hold_at_a_pixel() -> None:
    logits, _ = problem("dice")
    masks = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    got = losses.dice(logits, masks, activation="sigmoid")
    p = logits.sigmoid()
    want = 1 - (2 * (p * masks).sum((0, 2, 3)) / (p.sum((0, 2, 3)) + masks.sum((0, 2, 3)))).mean()
    torch.testing.assert_close(got, want)
    marked = masks.to(torch.uint8)
    marked[0, :, 2] = 255
    marked[0, 1, 3] = 255  # one channel is enough
    kept = [0, 1, 4]
    shorter = logits[:1, :, kept], masks[:1, :, kept]
    for name in ("dice", "cross_entropy", "focal"):
        torch.testing.assert_close(loss(name, logits[:1], marked[:1], SIGMOID), loss(name, *shorter, SIGMOID))


def test_a_perfect_prediction_has_no_loss() -> None:
    _, target = problem("dice")
    logits = 1e4 * F.one_hot(target, 3).permute(0, 3, 1, 2).double()
    for name in ("cross_entropy", "focal", "dice", "jaccard", "tversky", "focal_tversky", "generalized_dice",
                 "lovasz_softmax", "hausdorff_dt", "hausdorff_erosion"):  # fmt: skip
        assert loss(name, logits, target, {}) == 0


def test_reductions() -> None:
    logits, target = problem("dice")
    for average, shape in (("class", (3,)), ("sample", (2, 3)), ("micro", (2,))):
        each = losses.dice(logits, target, average=average, absent="keep", reduction="none")
        assert each.shape == shape
        torch.testing.assert_close(each.sum(), losses.dice(logits, target, average=average, absent="keep",
                                                           reduction="sum"))  # fmt: skip
        torch.testing.assert_close(each.mean(), losses.dice(logits, target, average=average, absent="keep"))
    assert losses.boundary(logits, target, reduction="none", include_background=False).shape == (2, 2)
    assert losses.cross_entropy(logits, target, reduction="none").shape == target.shape
    assert losses.generalized_dice(logits, target, average="sample", reduction="none").shape == (2,)


def test_an_ignored_pixel_is_of_no_side_in_a_distance() -> None:
    """The neighbours of an ignored boundary measure to the next pixel that counts."""
    target = torch.tensor([[[0, 0, 255, 1, 1]]])
    logits = torch.zeros(1, 1, 1, 5).double()
    distances = torch.tensor([3.0, 2.0, 0.0, -1.0, -2.0])
    want = 0.5 * distances.sum() / 4
    assert losses.boundary(logits, target, activation="sigmoid") == want
    want = 0.25 * torch.tensor([9.0, 4.0, 4.0, 9.0]).sum() / 4
    assert losses.hausdorff_dt(logits, target, activation="sigmoid") == want


def test_an_ignored_pixel_is_no_minimum_of_an_erosion() -> None:
    """Around it all errors are alike after an erosion: three of five pixels are wrong, and nothing is normalised."""
    target = torch.zeros(1, 3, 3, dtype=torch.uint8)
    target[0, 1, 1] = 255
    logits = torch.full((1, 1, 3, 3), 3.0, dtype=torch.float64)
    want = 0.6 * torch.tensor(3.0).double().sigmoid() ** 2 - 0.5
    got = losses.hausdorff_erosion(logits, target, activation="sigmoid", erosions=1)
    torch.testing.assert_close(got, want)


def test_ignored_instances_have_no_border() -> None:
    row = torch.tensor([[[1, 0, 3, 0, 2]]])
    got = losses.border_weight_map(row, ignore_index=3)
    assert got[0, 0, 2] == 0
    assert torch.equal(
        got[0, 0, [0, 1, 3, 4]], losses.border_weight_map(torch.tensor([[[1, 0, 0, 0, 2]]]))[0, 0, [0, 1, 3, 4]]
    )
    assert not losses.border_weight_map(torch.ones(1, 3, 3).long()).any()
    assert losses.border_weight_map(torch.zeros(0, 3, 3).long()).shape == (0, 3, 3)
    assert ops.distance_transform(torch.ones(2, 2)).isinf().all()  # so that one instance alone has no second
