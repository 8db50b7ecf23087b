"""Random shapes and options against the truth, the same hundred for each op on every run."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastseg import testing
from fastseg.testing.cases import confusion, region_loss, upsample

EXTENT = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 64, 67])
FEW_OR_MANY = st.sampled_from([1, 2, 3, 7, 16, 19, 21, 33, 150, 255, 256])


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes, options and the kind of values; extents of zero only in the batch and the output."""
    size = st.integers(0, 80) | EXTENT
    return {
        "shape": (draw(st.integers(0, 3)), draw(FEW_OR_MANY), draw(EXTENT), draw(EXTENT)),
        "size": (draw(size), draw(size)),
        "align_corners": draw(st.booleans()),
        "kind": draw(st.sampled_from(["smooth", "noise", "ties", "constant"])),
        # Half precision is left to the table: of a handful of values PyTorch's own error is luck.
        "dtype": draw(st.sampled_from(testing.FLOATS[:2])),
        "layout": draw(st.sampled_from(testing.LAYOUTS)),
        "isa": draw(st.sampled_from(testing.isas())),
        "threads": draw(st.integers(1, 2)),
    }


def agree(op: str, build: Any, grad: tuple[int, ...], band: Any, call: dict[str, Any], **options: Any) -> None:
    make = build(call["shape"], call["size"], call["kind"], align_corners=call["align_corners"], **options)
    exponential = op in upsample.EXPONENTIAL or "return_confidence" in options
    counts = op == "confusion_matrix"
    case = testing.Case(
        op, f"fuzz {call}", make, grad, exponential=exponential, counts=counts, band=band, **upsample.SUMS
    )
    torch.set_num_threads(call["threads"])
    with testing.use_isa(call["isa"]):
        got = testing.run(case, call["dtype"], call["layout"])
    torch.set_num_threads(1)
    testing.judge(case, call["dtype"], got)
    testing.assert_paths(got, testing.expected_path(call["isa"]))


@given(calls())
def test_bilinear(call: dict[str, Any]) -> None:
    agree("upsample_bilinear", upsample.maps, (0,), None, call)


@given(calls())
def test_argmax(call: dict[str, Any]) -> None:
    agree("upsample_argmax", upsample.maps, (), upsample.argmax_band, call)


@given(calls())
def test_argmax_with_confidence(call: dict[str, Any]) -> None:
    agree("upsample_argmax", upsample.maps, (), upsample.argmax_band, call, return_confidence=True)


@given(calls())
def test_softmax(call: dict[str, Any]) -> None:
    agree("upsample_softmax", upsample.maps, (0,), None, call)


@given(calls(), st.floats(-2, 2, width=16))
def test_threshold(call: dict[str, Any], level: float) -> None:
    agree("upsample_threshold", upsample.maps, (), upsample.threshold_band, call, threshold=level)


@given(
    calls(),
    st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.int16, torch.int32, torch.int64]),
)
def test_cross_entropy(
    call: dict[str, Any], reduction: str, smoothing: float, weight: bool, pixel_weight: bool, labels: torch.dtype
) -> None:
    n, classes, h, w = call["shape"]
    # Of one class the gradient is zero, and no error is relative to that.
    call["shape"] = (n, max(classes, 2), h, w)
    agree(
        "upsample_cross_entropy",
        upsample.loss,
        (0,),
        None,
        call,
        labels_dtype=labels,
        weight=weight,
        pixel_weight=pixel_weight,
        ignore_index=-7,
        reduction=reduction,
        label_smoothing=smoothing,
    )


@given(calls())
def test_confusion_matrix(call: dict[str, Any]) -> None:
    agree("confusion_matrix", confusion.from_logits, (), confusion.band, call)


@given(
    calls(),
    st.sampled_from(["softmax", "sigmoid"]),
    st.sampled_from([None, 0.0, 0.5, 1.0, 2.0, 3.5]),
    st.sampled_from([torch.int16, torch.int32, torch.int64]),
)
def test_region_statistics(call: dict[str, Any], activation: str, gamma: float | None, labels: torch.dtype) -> None:
    n, classes, h, w = call["shape"]
    call["shape"] = (n, max(classes, 2) if activation == "softmax" else classes, h, w)  # as for cross-entropy
    options = {"activation": activation, "gamma": gamma, "labels_dtype": labels, "ignore_index": -7}
    agree("region_statistics", region_loss.truths, (0,), None, call, **options)


@given(
    st.tuples(st.integers(0, 3), st.integers(1, 21), st.integers(0, 40) | EXTENT, EXTENT),
    st.sampled_from(["lovasz_softmax", "lovasz_hinge"]),
    st.booleans(),
    st.sampled_from(["present", "all"]),
    calls(),
)
def test_lovasz(shape: tuple[int, int, int, int], op: str, per_image: bool, classes: str, call: dict[str, Any]) -> None:
    """The loss, which no order of equal errors changes; their steps, and so the gradient, are of any order."""
    n, count, h, w = shape
    hinge = op == "lovasz_hinge"
    options: dict[str, Any] = {"hinge": True} if hinge else {"classes": classes}
    options |= {"per_image": per_image, "ignore_index": -7, "labels_dtype": torch.int16}
    make = region_loss.truths((n, 1 if hinge else count, h, w), (h, w), call["kind"], **options)
    case = testing.Case(op, f"fuzz {shape} {options} {call}", make, exponential=not hinge)
    torch.set_num_threads(call["threads"])
    with testing.use_isa(call["isa"]):
        got = testing.run(case, call["dtype"], call["layout"])
    torch.set_num_threads(1)
    testing.judge(case, call["dtype"], got)
    testing.assert_paths(got, testing.expected_path(call["isa"]))


@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_argmax"])
def test_a_wrong_result_is_red(op: str) -> None:
    """The judge sees one wrong value among thousands."""
    case = testing.find_cases(op, "smoke")[0]
    got = testing.run(case, torch.float32)
    testing.judge(case, torch.float32, got)
    bad = got.outputs[0].clone()
    bad.view(-1)[3] += 1
    with pytest.raises(AssertionError, match="truth is"):
        testing.judge(case, torch.float32, testing.Run((bad, *got.outputs[1:]), got.gradients, got.paths))
