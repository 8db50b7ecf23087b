"""Bad arguments raise, and the message names the op, the argument and the value."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastseg
from fastseg import _native, ops, testing

X = torch.zeros(1, 3, 4, 5)
TARGET = torch.zeros(1, 8, 10, dtype=torch.uint8)
SIZED = ("upsample_bilinear", "upsample_argmax", "upsample_softmax", "upsample_threshold")
ARGUMENT = {"upsample_bilinear": "x", "upsample_threshold": "mask_logits"}


def refuses(error: type[Exception], words: list[str], function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in {str(caught.value)!r}"


@pytest.mark.parametrize("op", SIZED)
@pytest.mark.parametrize(
    "bad, value",
    [
        (torch.zeros(3, 4, 5), "[3, 4, 5]"),
        (torch.zeros(1, 1, 3, 4, 5), "[1, 1, 3, 4, 5]"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.int32), "torch.int32"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.complex64), "torch.complex64"),
        ([[1.0]], "list"),
        (None, "NoneType"),
    ],
)
def test_maps(op: str, bad: Any, value: str) -> None:
    refuses(ValueError, [f"fastseg::{op}", f"{ARGUMENT.get(op, 'logits')} must", value], getattr(ops, op), bad, (8, 10))


@pytest.mark.parametrize("op", SIZED)
@pytest.mark.parametrize(
    "size", [(8,), (8, 10, 12), (-1, 10), (8, -3), (), -3, "ab", ("a", "b"), (8.5, 10), 8.5, None, [None, 8]]
)
def test_size(op: str, size: Any) -> None:
    shown = "(-3, -3)" if size == -3 else str(tuple(size) if isinstance(size, list) else size)
    refuses(ValueError, [f"fastseg::{op}: size must", shown], getattr(ops, op), X, size)


@pytest.mark.skipif(not _native.loaded, reason="the limit is that of the kernels: " + _native.why_not)
@pytest.mark.parametrize("op", SIZED)
@pytest.mark.parametrize("shape", [(1, 2**30, 1, 1), (1, 1, 2**30, 1), (1, 1, 1, 2**30)])
def test_an_axis_that_32_bits_do_not_hold(op: str, shape: tuple[int, ...]) -> None:
    error = ValueError if op == "upsample_argmax" and shape[1] > 1 else RuntimeError  # no label of a byte counts so far
    refuses(error, [f"fastseg::{op}", str(2**30)], getattr(ops, op), X[:, :1, :1, :1].expand(shape), (2, 2))


@pytest.mark.parametrize("op", SIZED)
def test_one_number_is_a_square(op: str) -> None:
    function = getattr(ops, op)
    for size in (14, np.int64(14), [14, 14], torch.Size((14, 14))):
        assert torch.equal(function(X, size), function(X, (14, 14)))


@pytest.mark.parametrize("threshold", ["0", None, [0.5]])
def test_threshold(threshold: Any) -> None:
    refuses(ValueError, ["fastseg::upsample_threshold: threshold must", repr(threshold)], ops.upsample_threshold,
            X, (8, 10), threshold)  # fmt: skip


@pytest.mark.parametrize("op", SIZED)
def test_maps_without_pixels(op: str) -> None:
    words = [f"fastseg::{op}", "must have pixels", "[1, 3, 0, 5]"]
    refuses(ValueError, words, getattr(ops, op), torch.zeros(1, 3, 0, 5), (8, 10))


@pytest.mark.parametrize("op", SIZED)
def test_a_size_beyond_memory_is_an_error_and_not_a_crash(op: str) -> None:
    with pytest.raises((RuntimeError, ValueError, OverflowError)):
        getattr(ops, op)(X, (2**31, 2**31))


@pytest.mark.parametrize("dtype, limit", [(torch.uint8, 256), (torch.int8, 128)])
def test_classes_that_do_not_fit_the_labels(dtype: torch.dtype, limit: int) -> None:
    words = ["fastseg::upsample_argmax", "logits must", f"1 to {limit} classes", f"got {limit + 1}"]
    refuses(ValueError, words, ops.upsample_argmax, torch.zeros(1, limit + 1, 2, 2), (4, 4), dtype=dtype)
    assert ops.upsample_argmax(torch.zeros(1, limit, 2, 2), (4, 4), dtype=dtype).dtype == dtype


def test_no_classes() -> None:
    refuses(ValueError, ["logits must", "got 0"], ops.upsample_argmax, torch.zeros(1, 0, 2, 2), (4, 4))
    refuses(ValueError, ["logits must"], ops.upsample_cross_entropy, torch.zeros(1, 0, 2, 2), TARGET)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint16])
def test_dtype_of_labels(dtype: torch.dtype) -> None:
    words = ["fastseg::upsample_argmax", "dtype must", str(dtype)]
    refuses(ValueError, words, ops.upsample_argmax, X, (8, 10), dtype=dtype)


@pytest.mark.parametrize(
    "argument, value, shown",
    [
        ("weight", torch.ones(4), "[4]"),
        ("weight", torch.ones(3, dtype=torch.int64), "torch.int64"),
        ("weight", torch.ones(3, requires_grad=True), "[3]"),
        ("weight", [1.0, 1.0, 1.0], "list"),
        ("weight", np.ones(3), "ndarray"),
        ("ignore_index", "a", "'a'"),
        ("ignore_index", 1.5, "1.5"),
        ("label_smoothing", "a", "'a'"),
        ("label_smoothing", None, "None"),
        ("pixel_weight", torch.ones(1, 8, 9), "[1, 8, 9]"),
        ("pixel_weight", torch.ones(1, 8, 10, dtype=torch.int32), "torch.int32"),
        ("pixel_weight", torch.ones(1, 8, 10, requires_grad=True), "[1, 8, 10]"),
        ("reduction", "average", "'average'"),
        ("label_smoothing", -0.1, "-0.1"),
        ("label_smoothing", 1.5, "1.5"),
        ("label_smoothing", float("nan"), "nan"),
    ],
)
def test_options_of_the_loss(argument: str, value: Any, shown: str) -> None:
    words = ["fastseg::upsample_cross_entropy", f"{argument} must", shown]
    refuses(ValueError, words, ops.upsample_cross_entropy, X, TARGET, **{argument: value})


@pytest.mark.parametrize(
    "target", [TARGET[0], TARGET.float(), TARGET.bool(), TARGET.to(torch.uint64), TARGET.numpy(), TARGET.tolist(), None]
)
def test_target(target: Any) -> None:
    shown = [str(target.dtype), str(list(target.shape))] if isinstance(target, Tensor) else [type(target).__name__]
    refuses(ValueError, ["cross_entropy: target must", *shown], ops.upsample_cross_entropy, X, target)
    refuses(ValueError, ["confusion_matrix: target must", *shown], ops.confusion_matrix, X, target, 3)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_wide_unsigned_labels_are_labels_too(dtype: torch.dtype) -> None:
    wide = torch.randint(0, 3, (1, 8, 10), dtype=torch.int64)
    wide[0, 0, :2] = torch.tensor([255, 65535])
    labels = wide.masked_fill(wide == 65535, 255).to(dtype)
    assert torch.equal(ops.upsample_cross_entropy(X, labels), ops.upsample_cross_entropy(X, labels.long()))
    assert torch.equal(ops.confusion_matrix(X, labels, 3), ops.confusion_matrix(X, labels.long(), 3))
    assert torch.equal(ops.confusion_matrix(labels, labels, 3), ops.confusion_matrix(labels.long(), labels.long(), 3))
    refuses(RuntimeError, ["target must", "got 65535", "[0, 0, 1]"], ops.confusion_matrix, X, wide.to(dtype), 3)


@pytest.mark.parametrize("classes", [256, 300])
def test_a_default_that_is_a_class_has_to_be_given(classes: int) -> None:
    x, target = torch.zeros(1, classes, 4, 5), torch.full((1, 8, 10), 255, dtype=torch.uint8)
    words = ["ignore_index must be given", f"{classes} classes"]
    refuses(ValueError, ["fastseg::upsample_cross_entropy", *words], ops.upsample_cross_entropy, x, target)
    refuses(ValueError, ["fastseg::confusion_matrix", *words], ops.confusion_matrix, target, target, classes)
    assert ops.upsample_cross_entropy(x, target, ignore_index=255).isnan()
    assert ops.upsample_cross_entropy(x, target, ignore_index=-1).isfinite()
    assert ops.confusion_matrix(target, target, classes, ignore_index=255).sum() == 0
    assert ops.confusion_matrix(target, target, classes, ignore_index=-1).sum() == 80
    assert ops.upsample_cross_entropy(x[:, :255], target).isnan()
    assert ops.confusion_matrix(target, target, 255).sum() == 0


def test_batches_that_differ() -> None:
    two = torch.zeros(2, 8, 10, dtype=torch.uint8)
    refuses(ValueError, ["logits must have the batch", "[1, 3, 4, 5]"], ops.upsample_cross_entropy, X, two)
    refuses(ValueError, ["prediction must", "[1, 3, 4, 5]"], ops.confusion_matrix, X, two, 3)


@pytest.mark.parametrize(
    "words, changes",
    [
        (["num_classes must", "got 0"], {"num_classes": 0}),
        (["num_classes must", "got 3.0"], {"num_classes": 3.0}),
        (["num_classes must", "to 46340, got 46341"], {"num_classes": 46341}),
        (["num_classes must", "got None"], {"num_classes": None}),
        (["ignore_index must", "got 'a'"], {"ignore_index": "a"}),
        (["prediction must", "NoneType"], {"prediction": None}),
        (["prediction must", "list"], {"prediction": TARGET.tolist()}),
        (["prediction must", "on cpu", "got meta"], {"prediction": X.to("meta")}),
        (["out must", "on cpu", "got meta"], {"out": torch.zeros(3, 3, dtype=torch.int64, device="meta")}),
        (["out must", "list"], {"out": [[0] * 3] * 3}),
        (["size must", "'ab'"], {"size": "ab"}),
        (["prediction must", "[1, 3, 4, 5]"], {"num_classes": 4}),
        (["prediction must", "[1, 8, 9]"], {"prediction": TARGET[..., :9]}),
        (["prediction must", "torch.bool"], {"prediction": TARGET.bool()}),
        (["prediction must", "torch.complex64"], {"prediction": X.to(torch.complex64)}),
        (["size must", "(8, 9)"], {"size": (8, 9)}),
        (["out must", "[3, 4]"], {"out": torch.zeros(3, 4, dtype=torch.int64)}),
        (["out must", "torch.int32"], {"out": torch.zeros(3, 3, dtype=torch.int32)}),
        (["out must", "contiguous"], {"out": torch.zeros(6, 3, dtype=torch.int64)[::2]}),
    ],
)
def test_confusion_matrix(words: list[str], changes: dict[str, Any]) -> None:
    arguments = {"prediction": X, "target": TARGET, "num_classes": 3, **changes}
    refuses(ValueError, ["fastseg::confusion_matrix", *words], ops.confusion_matrix, **arguments)


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("place", [(0, 0, 0), (0, 3, 7), (1, 0, 0), (1, 99, 100)])
def test_a_label_out_of_range_is_named_with_its_place(place: tuple[int, int, int], isa: str) -> None:
    """The last places lie in the part of the second thread."""
    target = torch.zeros(2, 100, 101, dtype=torch.int32)
    target[place] = 7
    target[1, 99, 100] = -5 if place != (1, 99, 100) else 7
    x = torch.zeros(2, 3, 10, 10)
    torch.set_num_threads(2)
    words = ["target must", "[0, 3)", "got 7", str(list(place))]
    with testing.use_isa(isa):
        refuses(RuntimeError, ["fastseg::upsample_cross_entropy", *words], ops.upsample_cross_entropy, x, target)
        refuses(RuntimeError, ["confusion_matrix", *words], ops.confusion_matrix, x, target, 3)
        labels = torch.zeros_like(target)
        refuses(RuntimeError, ["fastseg::confusion_matrix", *words], ops.confusion_matrix, labels, target, 3)
        words = ["prediction must", "[0, 3)", "got 7", str(list(place))]
        refuses(RuntimeError, ["fastseg::confusion_matrix", *words], ops.confusion_matrix, target, labels, 3)


@pytest.mark.parametrize("ignore_index", [2**31, -(2**31) - 1, 2**40])
def test_an_ignore_index_that_no_label_can_be(ignore_index: int) -> None:
    words = ["ignore_index must", str(ignore_index)]
    option = {"ignore_index": ignore_index}
    refuses(ValueError, ["confusion_matrix", *words], ops.confusion_matrix, X, TARGET, 3, **option)
    refuses(ValueError, ["cross_entropy", *words], ops.upsample_cross_entropy, X, TARGET, **option)


def test_an_ignored_label_may_be_out_of_range_and_its_prediction_too() -> None:
    target = torch.full((1, 8, 10), 200, dtype=torch.uint8)
    prediction = torch.full((1, 8, 10), 99, dtype=torch.uint8)
    assert ops.confusion_matrix(prediction, target, 3, ignore_index=200).sum() == 0


@pytest.mark.parametrize("ignore_index", [-100, 412])
def test_an_ignore_index_beyond_the_dtype_ignores_nothing(ignore_index: int) -> None:
    """156 is -100 and 412 in eight bits."""
    target = torch.full((1, 8, 10), 156, dtype=torch.uint8)
    x = torch.zeros(1, 200, 4, 5)
    assert ops.confusion_matrix(target, target, 200, ignore_index=ignore_index)[156, 156] == 80
    assert ops.confusion_matrix(x, target, 200, ignore_index=ignore_index)[156, 0] == 80
    assert ops.upsample_cross_entropy(x, target, ignore_index=ignore_index).isfinite()


FULL, BINARY = torch.zeros(1, 3, 8, 10), torch.zeros(1, 1, 8, 10)
REGION = {"region_statistics": X, "lovasz_softmax": FULL, "lovasz_hinge": BINARY}


@pytest.mark.parametrize(
    "op, changes, words",
    [
        ("region_statistics", {"activation": "relu"}, ["activation must", "'relu'"]),
        ("region_statistics", {"activation": None}, ["activation must", "None"]),
        ("region_statistics", {"gamma": -0.5}, ["gamma must", "-0.5"]),
        ("region_statistics", {"gamma": float("nan")}, ["gamma must", "nan"]),
        ("region_statistics", {"gamma": float("inf")}, ["gamma must", "inf"]),
        ("region_statistics", {"gamma": "2"}, ["gamma must", "'2'"]),
        ("region_statistics", {"logits": torch.zeros(1, 0, 4, 5)}, ["logits must", "[1, 0, 4, 5]"]),
        ("region_statistics", {"logits": torch.zeros(1, 3, 0, 5)}, ["logits must have pixels", "[1, 3, 0, 5]"]),
        ("region_statistics", {"logits": X.int()}, ["logits must", "torch.int32"]),
        ("region_statistics", {"logits": X.to("meta")}, ["target must", "got cpu"]),
        ("lovasz_softmax", {"classes": "some"}, ["classes must", "'some'"]),
        ("lovasz_softmax", {"logits": X}, ["logits must have the shape of target", "[1, 3, 4, 5]", "[1, 8, 10]"]),
        ("lovasz_softmax", {"logits": FULL[:, :0]}, ["logits must", "[1, 0, 8, 10]"]),
        ("lovasz_softmax", {"logits": FULL.to("meta")}, ["target must", "got cpu"]),
        ("lovasz_hinge", {"logits": FULL}, ["logits must be [N, 1, H, W]", "[1, 3, 8, 10]"]),
        ("lovasz_hinge", {"logits": None}, ["logits must", "NoneType"]),
        *((op, {"target": TARGET.float()}, ["target must", "torch.float32"]) for op in REGION),
        *((op, {"target": TARGET[0]}, ["target must", "[8, 10]"]) for op in REGION),
        *((op, {"target": TARGET.expand(2, 8, 10)}, ["logits must"]) for op in REGION),
        *((op, {"ignore_index": 2**31}, ["ignore_index must", str(2**31)]) for op in REGION),
    ],
)
def test_region_losses(op: str, changes: dict[str, Any], words: list[str]) -> None:
    arguments = {"logits": REGION[op], "target": TARGET, **changes}
    refuses(ValueError, [f"fastseg::{op}", *words], getattr(ops, op), **arguments)


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("place", [(0, 0, 0), (0, 3, 7), (1, 99, 100)])
def test_a_label_that_a_region_loss_does_not_know(place: tuple[int, int, int], backend: str, isa: str) -> None:
    target = torch.zeros(2, 100, 101, dtype=torch.int32)
    target[1, 99, 100] = -5
    target[place] = 7
    low, full = torch.zeros(2, 3, 10, 10), torch.zeros(2, 3, 100, 101)
    torch.set_num_threads(2)
    words = ["target must", "got 7", str(list(place))]
    with testing.use_isa(isa), fastseg.backend(backend):
        refuses(RuntimeError, ["[0, 3)", *words], ops.region_statistics, low, target)
        refuses(RuntimeError, ["[0, 3)", *words], ops.region_statistics, low, target, activation="sigmoid")
        refuses(RuntimeError, ["[0, 2)", *words], ops.region_statistics, low[:, :1], target, activation="sigmoid")
        refuses(RuntimeError, ["[0, 1)", *words], ops.region_statistics, low[:, :1], target)
        refuses(RuntimeError, ["[0, 3)", *words], ops.lovasz_softmax, full, target)
        refuses(RuntimeError, ["[0, 2)", *words], ops.lovasz_hinge, full[:, :1], target)


COUNTS = torch.zeros(3, 3, dtype=torch.int64)
RAW: dict[str, Callable[[Any], Any]] = {
    "bilinear": lambda raw: raw.upsample_bilinear(X[0], 8, 10, False),
    "argmax": lambda raw: raw.upsample_argmax(X[0], 8, 10, False, torch.uint8),
    "softmax": lambda raw: raw.upsample_softmax(X[0], 8, 10, False),
    "threshold": lambda raw: raw.upsample_threshold(X[0], 8, 10, 0.0, False),
    "loss target": lambda raw: raw.upsample_cross_entropy(X, TARGET[0], None, None, 255, 0.0, 1, False),
    "loss weight": lambda raw: raw.upsample_cross_entropy(X, TARGET, torch.ones(2), None, 255, 0.0, 1, False),
    "softmax backward": lambda raw: raw.upsample_softmax_backward(X, X[:, :2], 4, 5, False),
    "matrix target": lambda raw: raw.confusion_matrix(TARGET, TARGET[:, :4], COUNTS, 255),
    "matrix out": lambda raw: raw.confusion_matrix(TARGET, TARGET, COUNTS[:, :2], 255),
    "sums target": lambda raw: raw.region_statistics(X, TARGET[0], False, None, 255, False),
    "sums grad": lambda raw: raw.region_statistics_backward(X[0, :, :, 0], X, TARGET, False, None, 255, False),
    "Lovász size": lambda raw: raw.lovasz_softmax(X, TARGET, 255, True, False),
    "Lovász slope": lambda raw: raw.lovasz_softmax_backward(X.sum(), FULL, X),
    "hinge classes": lambda raw: raw.lovasz_hinge(FULL, TARGET, 255, True),
    "matrix classes": lambda raw: raw.upsample_confusion_matrix(X, TARGET, COUNTS[:2, :2].clone(), 255, False),
}


@pytest.mark.parametrize("call", RAW.values(), ids=RAW)
def test_the_raw_ops_check_too(call: Callable[[Any], Any]) -> None:
    """Whoever calls torch.ops directly gets an error, not a read out of bounds."""
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        call(torch.ops.fastseg)


def test_backend_names() -> None:
    with pytest.raises(ValueError, match=re.escape("got 'gpu'")):
        fastseg.backend("gpu")
