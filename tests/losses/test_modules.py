"""Modules, sums that share a pass, bad arguments, and the page."""

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fastseg
from fastseg import losses

ROOT = Path(__file__).parents[2]
LOGITS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(3, (2, 8, 9), generator=torch.Generator().manual_seed(1))
WEIGHT = torch.tensor([1.0, 2.0, 0.5])
PAIRS = {
    "CrossEntropyLoss": ("cross_entropy", {"label_smoothing": 0.1, "weight": WEIGHT}),
    "FocalLoss": ("focal", {"gamma": 1.5, "activation": "sigmoid"}),
    "DiceLoss": ("dice", {"average": "sample", "weight": WEIGHT}),
    "JaccardLoss": ("jaccard", {"absent": "keep"}),
    "TverskyLoss": ("tversky", {"alpha": 0.4}),
    "FocalTverskyLoss": ("focal_tversky", {"power_of": "mean"}),
    "GeneralizedDiceLoss": ("generalized_dice", {"class_weight": "simple"}),
    "LovaszSoftmaxLoss": ("lovasz_softmax", {"per_image": True}),
    "LovaszHingeLoss": ("lovasz_hinge", {"per_image": False}),
    "BoundaryLoss": ("boundary", {"include_background": False}),
    "HausdorffDTLoss": ("hausdorff_dt", {"one_sided": True}),
    "HausdorffERLoss": ("hausdorff_erosion", {"erosions": 2}),
}


@pytest.mark.parametrize("module", PAIRS)
def test_a_module_is_its_function(module: str) -> None:
    name, options = PAIRS[module]
    logits, labels = (LOGITS[:, :1], LABELS.clamp(max=1)) if name == "lovasz_hinge" else (LOGITS, LABELS)
    made = getattr(losses, module)(**options, ignore_index=2)
    assert made(logits, labels) == getattr(losses, name)(logits, labels, **options, ignore_index=2)
    assert f"{next(iter(options))}" in repr(made) and not made.state_dict()
    assert all(buffer.dtype == torch.float64 for buffer in made.double().buffers())
    with pytest.raises(TypeError, match=f"fastseg::{module}: options must be among .*ignore_index.*, got gama"):
        getattr(losses, module)(gama=2)


def test_every_module_is_here() -> None:
    modules = {name for name in losses.__all__ if name.endswith("Loss")}
    assert modules == PAIRS.keys()


def passes(function: Any, *args: Any) -> tuple[Any, list[str]]:
    """The result, and the ops that ran."""
    with fastseg.trace() as ran:
        value = function(*args)
    return value, [path.split(":")[0] for path in ran if "statistics" in path or "cross_entropy" in path]


def test_a_sum_takes_its_statistics_once() -> None:
    criterion = (
        losses.DiceLoss(smooth_numerator=1.0) + 0.5 * losses.CrossEntropyLoss(weight=WEIGHT) + losses.FocalLoss() * 2
    )
    got, ran = passes(criterion, LOGITS, LABELS)
    want = (
        losses.dice(LOGITS, LABELS, smooth_numerator=1.0)
        + 0.5 * losses.cross_entropy(LOGITS, LABELS, weight=WEIGHT)
        + 2 * losses.focal(LOGITS, LABELS)
    )
    torch.testing.assert_close(got, want)
    assert ran == ["region_statistics"]
    got, ran = passes(2 * (criterion + losses.FocalLoss(gamma=1.0) + losses.BoundaryLoss()), LOGITS, LABELS)
    torch.testing.assert_close(
        got, 2 * (want + losses.focal(LOGITS, LABELS, gamma=1.0) + losses.boundary(LOGITS, LABELS))
    )
    assert ran == ["region_statistics"] * 2
    other = losses.DiceLoss(ignore_index=0) + losses.DiceLoss(activation="sigmoid") + losses.DiceLoss()
    assert passes(other, LOGITS, LABELS)[1] == ["region_statistics"] * 3
    s, ran = passes(losses.statistics, LOGITS, LABELS)
    assert ran == ["region_statistics"] and passes(losses.dice, s)[1] == []


def test_a_sum_hands_pixel_weights_to_the_cross_entropy() -> None:
    instances = (F.interpolate(LABELS[:, None].double(), scale_factor=1.0) > 1)[:, 0].long()
    weights = 1 + losses.border_weight_map(instances * torch.arange(1, 10))
    criterion = losses.DiceLoss() + losses.CrossEntropyLoss()
    got, ran = passes(criterion, LOGITS, LABELS, weights)
    assert sorted(ran) == ["region_statistics", "upsample_cross_entropy"]
    want = losses.dice(LOGITS, LABELS) + losses.cross_entropy(LOGITS, LABELS, pixel_weight=weights)
    torch.testing.assert_close(got, want)
    assert want != losses.dice(LOGITS, LABELS) + losses.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(losses.CrossEntropyLoss()(LOGITS, LABELS, weights),
                               losses.cross_entropy(LOGITS, LABELS, pixel_weight=weights))  # fmt: skip
    with pytest.raises(ValueError, match="fastseg::WeightedSum: pixel_weight must be None without"):
        (losses.DiceLoss() * 2)(LOGITS, LABELS, weights)


def test_a_sum_is_a_module() -> None:
    criterion = losses.DiceLoss(weight=WEIGHT) + 0.5 * losses.FocalLoss()
    assert [buffer.dtype for buffer in criterion.double().buffers()] == [torch.float64]
    assert criterion.weights == [1.0, 0.5] and "DiceLoss" in repr(criterion)
    with pytest.raises(TypeError):
        criterion + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        criterion * criterion  # type: ignore[operator]


def test_a_sum_compiles_without_a_break() -> None:
    criterion = losses.DiceLoss(weight=WEIGHT) + 0.5 * losses.FocalLoss() + losses.CrossEntropyLoss()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(LOGITS, LABELS), criterion(LOGITS, LABELS))


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("dice", {"average": "macro"}, r"fastseg::dice: average must be one of class, sample, micro, got 'macro'"),
    ("dice", {"absent": None}, r"fastseg::dice: absent must be one of skip, keep, zero, got None"),
    ("dice", {"normalizer": "pixels"}, r"fastseg::dice: normalizer must be one of weight, count"),
    ("jaccard", {"reduction": "max"}, r"fastseg::jaccard: reduction must be one of mean, sum, none, got 'max'"),
    ("dice", {"weight": torch.ones(2)}, r"fastseg::dice: weight must be floating \[3\], got torch.float32 \[2\]"),
    ("dice", {"weight": [1, 1, 1]}, r"fastseg::dice: weight must be floating \[3\], got list"),
    ("dice", {"smooth_numerator": "a"}, r"fastseg::dice: smooth_numerator must be a number, got 'a'"),
    ("tversky", {"alpha": -1}, r"fastseg::tversky: alpha must be at least 0, got -1"),
    ("focal_tversky", {"exponent": 0}, r"fastseg::focal_tversky: exponent must be positive, got 0"),
    ("focal_tversky", {"power_of": "sum"}, r"fastseg::focal_tversky: power_of must be one of class, mean"),
    ("generalized_dice", {"class_weight": "cubic"}, r"fastseg::generalized_dice: class_weight must be one of square"),
    ("generalized_dice", {"average": "micro"}, r"fastseg::generalized_dice: average must not be 'micro'"),
    ("generalized_dice", {"absent": "zero"}, r"fastseg::generalized_dice: absent must not be 'zero'"),
    ("focal", {"gamma": -1}, r"fastseg::region_statistics: gamma must be at least 0, got -1"),
    ("focal", {"alpha": 2}, r"fastseg::focal: alpha must be in \[0, 1\], got 2"),
    ("focal", {"reduction": "none"}, r"fastseg::focal: reduction must be one of mean, sum, got 'none'"),
    ("cross_entropy", {"ohem": 0}, r"fastseg::cross_entropy: ohem must be in \(0, 1\], got 0"),
    ("cross_entropy", {"ohem": 0.5, "reduction": "none"}, r"fastseg::cross_entropy: reduction must be mean or sum"),
    (
        "cross_entropy",
        {"activation": "sigmoid", "label_smoothing": 0.1},
        r"cross_entropy: label_smoothing must be left",
    ),
    ("cross_entropy", {"activation": "tanh"}, r"activation must be one of softmax, sigmoid, got 'tanh'"),
    ("cross_entropy", {"temperature": 2}, r"fastseg::cross_entropy: options must be among .*, got temperature"),
    ("dice", {"intersection": "maximum"}, r"intersection must be one of product, minimum, got 'maximum'"),
    ("boundary", {"spacing": (1.0, 0.0)}, r"fastseg::distance_transform: spacing must"),
    ("boundary", {"activation": "tanh"}, r"fastseg::boundary: activation must be one of softmax, sigmoid"),
    ("hausdorff_dt", {"alpha": 0}, r"fastseg::hausdorff_dt: alpha must be positive, got 0"),
    (
        "hausdorff_erosion",
        {"erosions": 0},
        r"fastseg::hausdorff_erosion: erosions must be a whole number of at least 1",
    ),
]


@pytest.mark.parametrize("name, options, message", BAD)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(losses, name)(LOGITS, LABELS, **options)


@pytest.mark.parametrize(
    "name", ["cross_entropy", "focal", "dice", "generalized_dice", "boundary", "hausdorff_erosion"]
)
@pytest.mark.parametrize(
    "logits, target",
    [
        (LOGITS[0], LABELS),
        (LOGITS.long(), LABELS),
        (LOGITS, LABELS[:1]),
        (LOGITS, LABELS.double()),
        (LOGITS, LABELS[0]),
        (LOGITS, LABELS[:, None]),
        (LOGITS, LABELS[:, None].expand(2, 4, 8, 9)),
        (LOGITS[:, :0], LABELS),
        (LOGITS, [1, 2]),
    ],
)
def test_bad_shapes_and_types(name: str, logits: Any, target: Any) -> None:
    with pytest.raises(ValueError, match=r"fastseg::\w+: (logits|target) must .*, got "):
        getattr(losses, name)(logits, target)


def test_statistics_in_the_place_of_logits() -> None:
    s = losses.statistics(LOGITS, LABELS, gamma=2.0)
    for call, message in (
        (lambda: losses.dice(s, LABELS), "dice: target must be left out"),
        (lambda: losses.dice(s, ignore_index=3), "dice: ignore_index must be left out"),
        (lambda: losses.focal(s, gamma=1.0), "focal: gamma must be that of the statistics, 2.0, got 1.0"),
        (lambda: losses.cross_entropy(s, ohem=0.5), "cross_entropy: ohem must be left alone"),
        (lambda: losses.dice(LOGITS), "dice: target must be given with logits"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_share_out_of_range() -> None:
    target = torch.zeros(2, 3, 8, 9)
    target[1, 2, 3, 4] = 1.5
    for name in ("dice", "boundary"):
        with pytest.raises(
            RuntimeError, match=r"target must be in \[0, 1\] or ignore_index, got 1.5 at \[1, 2, 3, 4\]"
        ):
            getattr(losses, name)(LOGITS, target)


@pytest.mark.parametrize("bad, message", [
    ({"w0": 0}, "w0 must be positive and finite, got 0"), ({"sigma": -1}, "sigma must be positive and finite, got -1"),
    ({"sigma": float("nan")}, "sigma must be positive and finite, got nan"),
])  # fmt: skip
def test_bad_border_weights(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"fastseg::border_weight_map: {message}"):
        losses.border_weight_map(LABELS, **bad)
    with pytest.raises(ValueError, match="fastseg::border_weight_map: target must be an integer tensor"):
        losses.border_weight_map(LOGITS)


FUNCTIONS = [name for name in losses.__all__ if inspect.isfunction(getattr(losses, name))]


@pytest.mark.parametrize("name", [*FUNCTIONS, "WeightedSum"])
def test_examples_of_docstrings_run(name: str) -> None:
    torch.manual_seed(0)
    found = doctest.DocTestFinder(recurse=False).find(getattr(losses, name), globs={"torch": torch, **vars(losses)})
    assert found[0].examples
    flags = doctest.NORMALIZE_WHITESPACE
    assert doctest.DocTestRunner(optionflags=flags).run(found[0]).failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_loss_documents_itself(name: str) -> None:
    text = inspect.getdoc(getattr(losses, name)) or ""
    assert re.search("[Gg]radient", text), f"{name} says nothing of its gradient"
    for argument in inspect.signature(getattr(losses, name)).parameters:
        inherited = "those of `dice`" in text or "those of `lovasz_softmax`" in text
        assert inherited or re.search(rf"^    {argument}:", text, re.MULTILINE), f"{name} does not document {argument}"


def test_the_numbers_of_the_page() -> None:
    ran = doctest.testfile(
        str(ROOT / "docs/losses.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert ran.failed == 0 and ran.attempted > 10
