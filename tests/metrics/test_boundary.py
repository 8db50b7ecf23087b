"""Boundary IoU and F1: golden numbers, erosion by SciPy, brute force, empty and ignored."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fastseg.metrics import BoundaryF1, BoundaryIoU, boundary_f1, boundary_iou


def rectangle(*columns, rows=(2, 9), size=(12, 12)):
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[slice(*rows), slice(*columns)] = 1
    return mask


A, B = rectangle(2, 9), rectangle(4, 11)


@pytest.mark.parametrize(("distance", "golden"), [(1, 10 / 38), (2, 20 / 60), (3, 33 / 63), (50, 0.555556)])
def test_golden_boundary_iou(distance, golden):
    assert boundary_iou(A, B, distance=distance).values.item() == pytest.approx(golden, abs=5e-7)


@pytest.mark.parametrize(("distance", "golden"), [(0, 0.416667), (1, 0.583333), (2, 1.0)])
def test_golden_boundary_f1(distance, golden):
    assert boundary_f1(A, B, distance=distance).values.item() == pytest.approx(golden, abs=5e-7)


def eroded_band(mask, distance):
    """The published steps: a border of zeros, erosions by a 3x3 square, the difference."""
    inner = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=distance)[1:-1, 1:-1]
    return mask & ~inner


def brute_boundary_iou(a, b, distance):
    a, b = eroded_band(a, distance), eroded_band(b, distance)
    union = (a | b).sum()
    return (a & b).sum() / union if union else math.nan


def brute_boundary_f1(a, b, tolerance):
    outlines = [np.argwhere(m & ~ndimage.binary_erosion(m)) for m in (a, b)]
    if not (len(outlines[0]) and len(outlines[1])):
        return 0.0 if len(outlines[0]) or len(outlines[1]) else math.nan
    apart = np.linalg.norm(outlines[0][:, None] - outlines[1], axis=-1)
    precision, recall = (apart.min(1) <= tolerance).mean(), (apart.min(0) <= tolerance).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def label_maps(draw_seed, height, width, classes):
    """Labels in patches, so that there is an inside."""
    rng = np.random.default_rng(draw_seed)
    coarse = rng.integers(0, classes, (2, height // 4 + 1, width // 4 + 1))
    return torch.from_numpy(np.kron(coarse, np.ones((4, 4), int))[:, :height, :width])


@given(st.integers(0, 10**6), st.integers(1, 23), st.integers(1, 31), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_is_that_of_brute_force(seed, height, width, distance):
    prediction, target = label_maps(seed, height, width, 3)
    band = boundary_iou(prediction[None], target[None], distance=distance, classes=[0, 1, 2]).values[0]
    outline = boundary_f1(prediction[None], target[None], distance=distance / 2, classes=[0, 1, 2]).values[0]
    for label in range(3):
        masks = (prediction == label).numpy(), (target == label).numpy()
        assert band[label].item() == pytest.approx(brute_boundary_iou(*masks, distance), nan_ok=True, rel=1e-12)
        one = boundary_iou(torch.from_numpy(masks[0]), torch.from_numpy(masks[1]), distance=distance).values
        assert one.item() == pytest.approx(band[label].item(), nan_ok=True)
        assert outline[label].item() == pytest.approx(brute_boundary_f1(*masks, distance / 2), nan_ok=True, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_of_any_value_and_order(dtype):
    prediction, target = label_maps(5, 20, 30, 4).to(dtype)
    want = boundary_iou(prediction, target, distance=2, classes=range(4)).values
    spread = torch.tensor([7, 100, 0, 30], dtype=dtype)
    there = boundary_iou(spread[prediction.long()], spread[target.long()], distance=2, classes=[100, 30]).values
    assert torch.equal(there, want[[1, 3]])


def test_the_distance_follows_the_diagonal():
    """Cheng 2021 rounds .02 of the diagonal, DAVIS rounds .008 of it up."""
    a, b = rectangle(50, 200, rows=(50, 250), size=(330, 440)), rectangle(55, 205, rows=(50, 250), size=(330, 440))
    assert boundary_iou(a, b).values == boundary_iou(a, b, distance=11).values
    assert boundary_f1(a, b).values == boundary_f1(a, b, distance=5).values  # of 4.4
    assert boundary_f1(a, b).values != boundary_f1(a, b, distance=4).values
    assert boundary_iou(A, B).values == boundary_iou(A, B, distance=1).values  # at least a pixel


@pytest.mark.parametrize("function", [boundary_iou, boundary_f1])
def test_empty_masks(function):
    empty = A * 0
    for policy, expected in (("default", (math.nan, 0, 0)), ("nan", (math.nan,) * 3), ("perfect", (1, 0, 0))):
        found = function(torch.stack([empty, empty, A]), torch.stack([empty, A, empty]), distance=1, empty=policy)
        assert found.values.tolist() == pytest.approx(expected, nan_ok=True)
        assert found.empty == (1, 1, 1)
    none = function(torch.zeros(0, 5, 6), torch.zeros(0, 5, 6))
    assert none.values.shape == (0,) and none.empty == (0, 0, 0)
    pixel = torch.ones(1, 1)
    assert function(pixel, pixel).values == 1


@pytest.mark.parametrize("function", [boundary_iou, boundary_f1])
def test_ignored_pixels_are_no_objects(function):
    """Whatever is predicted there; and void in the target is void in the prediction, so that perfect stays perfect."""
    target = label_maps(3, 24, 33, 3)[0][None].clone()
    target[0, 5:9, 10:25] = 255
    prediction = target.masked_fill(target == 255, 1)
    found = function(prediction, target, classes=range(3), ignore_index=255, distance=2)
    assert found.values.tolist() == [[1.0, 1.0, 1.0]]
    noise = torch.where(target == 255, torch.randint(0, 3, target.shape), prediction)
    assert torch.equal(function(noise, target, classes=range(3), ignore_index=255, distance=2).values, found.values)


@pytest.mark.parametrize("function", [boundary_iou, boundary_f1])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": A[:5]}, "target must have the shape of prediction"),
        ({"prediction": A[0]}, "prediction must have 2 spatial dimensions"),
        ({"prediction": A.to(torch.complex64)}, "prediction must be a boolean, integer or floating tensor"),
        ({"distance": -1}, "distance must be"),
        ({"distance": "far"}, "distance must be"),
        ({"share": 0}, "share must be a positive number"),
        ({"share": math.nan}, "share must be a positive number"),
        ({"empty": "zero"}, "empty must be one of default, nan, perfect"),
        ({"classes": []}, "classes must be distinct labels"),
        ({"classes": [1, 1]}, "classes must be distinct labels"),
        ({"ignore_index": 3}, "ignore_index must be None for masks"),
        ({"ignore_index": 1, "classes": [0, 1]}, "ignore_index must be a label that is no class"),
        ({"prediction": A.float(), "classes": [0, 1]}, "prediction must be integer labels"),
    ],
)
def test_errors(function, arguments, message):
    with pytest.raises(ValueError, match=f"fastseg::{function.__name__}: {message}"):
        function(**{"prediction": A, "target": B, **arguments})


@pytest.mark.parametrize(("metric", "function"), [(BoundaryIoU, boundary_iou), (BoundaryF1, boundary_f1)])
def test_streamed_means_and_counts(metric, function):
    maps = [label_maps(seed, 24, 33, 3) for seed in range(4)]
    prediction, target = (torch.stack([m[side] for m in maps]) for side in (0, 1))
    target[1][target[1] == 2] = 255
    prediction[2][prediction[2] == 0] = 1
    found = function(prediction, target, classes=range(4), ignore_index=255, distance=2)
    stream = metric(4, distance=2)
    for rows in (slice(0, 1), slice(1, 1), slice(1, 4)):
        stream.update(prediction[rows], target[rows])
    result = stream.compute()
    assert result.mean.item() == pytest.approx(found.values.nanmean(1).mean().item(), rel=1e-12)
    torch.testing.assert_close(result.of_class, found.values.nanmean(0), equal_nan=True, rtol=1e-12, atol=0)
    assert result.images.tolist() == (~found.values.isnan()).sum(0).tolist() and result.images[3] == 0
    assert result.empty == found.empty and result.empty.both >= 4 and result.empty.prediction == 1


@pytest.mark.parametrize("metric", [BoundaryIoU, BoundaryF1])
def test_streamed_labels_out_of_range_are_refused(metric):
    """Seen from the other labels they would be background; where the target is ignored anything may be predicted."""
    stream = metric(3)
    labels = torch.tensor([[[0, 1, 2, 255]]])
    for prediction, target in ((labels.clamp(max=3), labels), (labels.clamp(max=2), labels.clamp(max=7))):
        if target.max() == 255:
            stream.update(prediction, target)
            prediction = prediction.flip(-1)
        with pytest.raises((ValueError, RuntimeError), match=r"fastseg::confusion_matrix: .* must be in \[0, 3\)"):
            stream.update(prediction, target)
    assert stream.compute().images.sum() == 3


def test_an_ignored_label_beyond_the_dtype_is_no_pixel():
    """PyTorch compares bytes with -1 as with 255."""
    target = torch.full((6, 6), 255, dtype=torch.uint8)
    found = boundary_iou(target, target, classes=[255], ignore_index=-1)
    assert found.values.tolist() == [1.0]
