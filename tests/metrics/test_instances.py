"""Instances and segments: COCO's greedy matching, panoptic quality, iIoU, each by hand and against plain loops."""

import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.metrics import (
    CITYSCAPES_SIZES,
    InstanceAveragePrecision,
    InstanceIoU,
    PanopticMetric,
    instance_average_precision,
    instance_counts,
    instance_iou,
    mask_iou,
    match_instances,
    panoptic_counts,
    panoptic_quality,
)

ONE = torch.zeros(1, dtype=torch.int64)


def test_mask_iou_by_hand():
    a = torch.tensor([[[1, 1, 0]], [[0, 0, 0]]])
    b = torch.tensor([[[0, 1, 1]], [[1, 1, 1]], [[0, 0, 0]]])
    assert mask_iou(a, b).tolist() == [[1 / 3, 2 / 3, 0], [0, 0, 0]]
    assert mask_iou(a, b, torch.tensor([False, True, False])).tolist() == [[1 / 3, 1, 0], [0, 0, 0]]
    assert mask_iou(a[:0], b).shape == (0, 3) and mask_iou(a, b[:0]).shape == (2, 0)


def test_matching_by_hand():
    """The best score takes the best it overlaps; a second claim to the same is wrong; a crowd takes any number."""
    iou = torch.tensor([[0.6, 0.7, 0.0], [0.9, 0.8, 0.0], [0.0, 0.0, 0.9], [0.0, 0.0, 0.8], [0.55, 0.0, 0.6]])
    scores, classes = torch.tensor([0.5, 0.9, 0.4, 0.3, 0.2]), torch.zeros(5, dtype=torch.int64)
    crowd = torch.tensor([False, False, True])
    state = match_instances(iou, scores, classes, classes[:3], thresholds=(0.5, 0.75), crowd=crowd)
    assert state.tolist() == [[1, 0], [1, 1], [-1, -1], [-1, -1], [-1, 0]]
    alone = match_instances(iou, scores, classes, classes[:3], thresholds=(0.5,), crowd=crowd, max_detections=2)
    assert alone.tolist() == [[1], [1], [-1], [-1], [-1]]
    others = match_instances(iou, scores, classes + 1, classes[:3], thresholds=(0.5,))
    assert others.tolist() == [[0]] * 5


def test_average_precision_of_instances_by_hand():
    """Two true, found by the first and third of three: P 1, 1/2, 2/3 at R 1/2, 1/2, 1."""
    state = torch.tensor([[1, 1], [0, 0], [1, 0]])
    scores = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    found = instance_average_precision(scores, ONE.expand(3), state, torch.tensor([2, 0]))
    first, second = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert found.ap_of_threshold.tolist() == pytest.approx([first, second])
    assert found.ap == pytest.approx((first + second) / 2) and found.ap_of_class[0].item() == pytest.approx(found.ap)
    assert math.isnan(found.ap_of_class[1]) and found.detections.tolist() == [3, 0] and found.ignored == 0


def test_streamed_instances_count_what_is_left_out():
    masks = torch.zeros(4, 8, 8)
    masks[0, :4], masks[1, 4:], masks[2, :4, :6], masks[3, :, 6:] = 1, 1, 1, 1
    metric = InstanceAveragePrecision(2, thresholds=(0.5, 0.8), max_detections=2)
    metric.update(masks[:3], torch.tensor([0.9, 0.8, 0.7]), ONE.expand(3), masks[:2], ONE.expand(2))
    result = metric.compute()
    assert result.ap == 1.0 and result.ignored == 1 and result.instances.tolist() == [2, 0]
    metric.update(masks[:0], torch.zeros(0), ONE[:0], masks[3:], ONE + 1)  # a class that is missed
    metric.update(masks[:1], torch.tensor([0.4]), ONE, masks[:0], ONE[:0])  # and one that is not there
    result = metric.compute()
    assert result.ap_of_class.tolist() == [1.0, 0.0] and result.instances.tolist() == [2, 1]
    assert result.detections.tolist() == [3, 0]
    metric.reset()
    assert math.isnan(metric.compute().ap)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (0.0, 0.5)}, "thresholds must be numbers above 0 and up to 1"),
        ({"max_detections": 0}, "max_detections must be a whole number from 1"),
        ({"crowd": torch.zeros(3)}, r"crowd must be boolean \[2\]"),
        ({"scores": torch.full((3,), math.nan)}, r"scores must be numbers \[3\]"),
        ({"iou": torch.full((3, 2), math.nan)}, r"iou must be numbers \[3, 2\]"),
        ({"iou": torch.zeros(2, 3)}, r"iou must be numbers \[3, 2\]"),
    ],
)
def test_errors_of_matching(options, message):
    given_ = {"iou": torch.zeros(3, 2), "scores": torch.zeros(3), "prediction_classes": ONE.expand(3)}
    with pytest.raises(ValueError, match=f"fastseg::match_instances: {message}"):
        match_instances(**{**given_, "target_classes": ONE.expand(2), **options})


def plain_panoptic(prediction, target, classes, void, crowd):
    """Sets of pixels, pair after pair."""
    totals = defaultdict(lambda: [0.0, 0, 0, 0])
    for image in range(len(target[0])):
        segments, truths = defaultdict(set), defaultdict(set)
        for pixel, (c, i, tc, ti, many) in enumerate(
            zip(*(x[image].flatten().tolist() for x in (*prediction, *target, crowd)), strict=True)
        ):
            segments[c, 0 if c == void else i].add(pixel)
            truths[tc, 0 if tc == void else ti, many].add(pixel)
        nothing = set().union(*(t for (c, _, _), t in truths.items() if c == void))
        hit, hit_truth = set(), set()
        for key, segment in segments.items():
            for true_key, truth in truths.items():
                if key[0] != true_key[0] or key[0] == void or true_key[2]:
                    continue
                iou = len(segment & truth) / len((segment | truth) - (segment & nothing))
                if iou > 0.5:
                    totals[key[0]][0] += iou
                    totals[key[0]][1] += 1
                    hit.add(key)
                    hit_truth.add(true_key)
        for key, segment in segments.items():
            crowds = set().union(*(t for (c, _, many), t in truths.items() if many and c == key[0]))
            excused = len(segment & (nothing | crowds)) / len(segment) > 0.5
            if key not in hit and key[0] != void and not excused:
                totals[key[0]][2] += 1
        for key in truths:
            if key not in hit_truth and key[0] != void and not key[2]:
                totals[key[0]][3] += 1
    return torch.tensor([totals[c] for c in range(classes)], dtype=torch.float64).T


def patches(generator, shape, high):
    """Blocks of a random number, so that segments are larger than pixels."""
    coarse = torch.randint(0, high, (shape[0], shape[1] // 3 + 1, shape[2] // 3 + 1), generator=generator)
    return coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : shape[1], : shape[2]]


@given(st.integers(0, 10**6), st.integers(1, 2), st.integers(1, 12), st.integers(1, 15))
@settings(max_examples=60, deadline=None)
def test_panoptic_quality_is_that_of_plain_loops(seed, images, height, width):
    generator = torch.Generator().manual_seed(seed)
    shape = images, height, width
    classes, instances = patches(generator, shape, 4), patches(generator, shape, 2)
    target = classes.masked_fill(classes == 3, 255), instances
    noise = torch.rand(shape, generator=generator) < 0.15
    prediction = torch.where(noise, patches(generator, shape, 3), classes.clamp(max=2)), instances * 2**40 - 5
    crowd = patches(generator, shape, 4) == 0
    found = panoptic_counts(prediction, target, 3, crowd=crowd)
    want = plain_panoptic(prediction, target, 3, 255, crowd)
    torch.testing.assert_close(torch.stack([x.double() for x in found[:4]]), want, rtol=1e-12, atol=0)


def test_panoptic_quality_by_hand():
    """Class 0: IoU 3/4 and a segment too many. Class 1: missed. Class 2: nowhere, and in no mean."""
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, 255, 255]]]), torch.tensor([[[1, 1, 1, 1, 1, 1, 0, 0]]])
    prediction = torch.tensor([[[0, 0, 0, 0, 0, 0, 1, 1]]]), torch.tensor([[[1, 1, 1, 2, 2, 2, 5, 5]]])
    metric = PanopticMetric(3)
    metric.update(prediction, target)
    result = metric.compute()
    assert result.pq_of_class.tolist() == pytest.approx([0.75 / 1.5, 0, math.nan], nan_ok=True)
    assert result.sq_of_class.tolist() == pytest.approx([0.75, 0, math.nan], nan_ok=True)
    assert result.rq_of_class.tolist() == pytest.approx([1 / 1.5, 0, math.nan], nan_ok=True)
    assert (result.pq, result.sq, result.rq) == pytest.approx((0.25, 0.375, 1 / 3))
    assert metric.total().ignored.tolist() == [0, 1, 0]  # the segment on void
    assert math.isnan(panoptic_quality(panoptic_counts(*[(ONE[:0].view(0, 1, 1),) * 2] * 2, 2)).pq)


def test_stuff_is_one_segment():
    classes, instances = torch.zeros(1, 1, 4, dtype=torch.uint8), torch.tensor([[[1, 2, 3, 4]]])
    assert panoptic_counts((classes, instances), (classes, instances * 0), 1).matched.tolist() == [0]
    assert panoptic_counts((classes, instances), (classes, instances * 0), 1, stuff=[0]).matched.tolist() == [1]


@pytest.mark.parametrize(
    ("prediction", "options", "message"),
    [
        ((ONE.view(1, 1, 1),) * 3, {}, r"prediction must be \(classes, instances\)"),
        ((ONE.view(1, 1, 1) + 7,) * 2, {}, "prediction must have classes below 2 or void 255, got 7"),
        ((ONE.view(1, 1),) * 2, {}, r"prediction must be integers \[N, H, W\]"),
        ((ONE.view(1, 1, 1).expand(1, 1, 2),) * 2, {}, r"target must be integers \[1, 1, 2\]"),
        ((ONE.view(1, 1, 1),) * 2, {"void": 1}, "void must be no class"),
        ((ONE.view(1, 1, 1),) * 2, {"crowd": ONE}, r"crowd must be boolean \[1, 1, 1\]"),
    ],
)
def test_errors_of_panoptic_quality(prediction, options, message):
    with pytest.raises(ValueError, match=f"fastseg::panoptic_counts: {message}"):
        panoptic_counts(prediction, (ONE.view(1, 1, 1),) * 2, 2, **options)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 15), st.booleans())
@settings(max_examples=60, deadline=None)
def test_iiou_is_that_of_cityscapes_steps(seed, height, width, official):
    """Instance after instance, pixels weighed with the mean size over its own, as the official script does."""
    generator = torch.Generator().manual_seed(seed)
    shape = 2, height, width
    target, instances = patches(generator, shape, 4), patches(generator, shape, 3)
    target = target.masked_fill(target == 3, 255)
    prediction = torch.where(torch.rand(shape, generator=generator) < 0.3, 1, target.clamp(max=2))
    keys = [(n, *key) for n in range(2) for key in set(zip(target[n].flatten().tolist(),
            instances[n].flatten().tolist(), strict=True)) if key[0] != 255 and key[1] != 0]  # fmt: skip
    sizes = {k: ((target[k[0]] == k[1]) & (instances[k[0]] == k[2])).sum().item() for k in keys}
    means = []
    for label in range(3):
        own = [size for key, size in sizes.items() if key[1] == label]
        means.append(CITYSCAPES_SIZES["car"] if official else sum(own) / len(own) if own else math.nan)
    for label, value in enumerate(instance_iou(instance_counts(prediction, target, instances, 3),
                                               means if official else None).tolist()):  # fmt: skip
        hit = miss = 0.0
        for n, own, index in keys:
            if own == label:
                mask = (target[n] == label) & (instances[n] == index)
                found = ((prediction[n] == label) & mask).sum().item()
                hit += found * means[label] / sizes[n, own, index]
                miss += (sizes[n, own, index] - found) * means[label] / sizes[n, own, index]
        wrong = ((prediction == label) & (target != label) & (target != 255)).sum().item()
        whole = hit + miss + wrong
        want = hit / whole if whole and not math.isnan(means[label]) else math.nan
        assert value == pytest.approx(want, nan_ok=True, rel=1e-12)


def test_streamed_iiou():
    target, instances = torch.tensor([[[1, 1, 1, 1, 1, 0]]]), torch.tensor([[[1, 2, 2, 2, 2, 0]]])
    prediction = torch.tensor([[[0, 1, 1, 1, 1, 1]]])
    metric = InstanceIoU(2, sizes=[math.nan, 10])
    for _ in range(2):
        metric.update(prediction, target, instances)
    assert metric.compute().tolist() == pytest.approx([math.nan, 10 / (20 + 1)], nan_ok=True)
    with pytest.raises(ValueError, match=r"fastseg::instance_iou: sizes must be 2 numbers"):
        instance_iou(metric.total(), [1.0])
    with pytest.raises(ValueError, match=r"fastseg::instance_counts: instances must be integers \[1, 1, 6\]"):
        metric.update(prediction, target, instances[..., :2])
    with pytest.raises(ValueError, match=r"fastseg::instance_counts: prediction must be integer labels"):
        metric.update(prediction.float(), target, instances)


def test_instances_of_any_number():
    """Whose products are beyond int64."""
    far = torch.tensor([[[-(2**62), 2**62, 2**62, 5]]])
    classes = torch.zeros(1, 1, 4, dtype=torch.int64)
    assert panoptic_counts((classes, far), (classes, far), 1).matched.tolist() == [3]
    near = torch.tensor([[[1, 2, 2, 3]]])
    assert instance_counts(classes, classes, far, 1).instances.tolist() == [3]
    assert (
        panoptic_counts((classes, far), (classes, near), 1)[:2]
        == panoptic_counts((classes, near), (classes, far), 1)[:2]
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32])
def test_maps_of_any_integers(dtype):
    """Instances of Cityscapes are uint16; and 256 classes are no multiple of a byte."""
    classes, instances = torch.tensor([[[0, 1, 1, 2]]]), torch.tensor([[[0, 1, 7, 0]]])
    small = classes.to(dtype), instances.to(dtype)
    assert panoptic_counts(small, (classes, instances), 256, void=-1).matched[:3].tolist() == [1, 2, 1]
    want = instance_iou(instance_counts(classes, classes, instances, 3))
    assert instance_iou(instance_counts(small[0], small[0], small[1], 3)).tolist() == pytest.approx(
        want.tolist(), nan_ok=True
    )
