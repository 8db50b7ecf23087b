"""The metrics against the libraries that people use today, each through a thin adapter."""

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch.metrics as smp
import sklearn.metrics as sklearn
import torch
import torch.nn.functional as F
import torchmetrics.functional as TM
from kornia.metrics import mean_iou as kornia_mean_iou
from monai.metrics import compute_dice, compute_iou
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.detection import PanopticQuality
from torchmetrics.functional.segmentation import mean_iou as torchmetrics_mean_iou

from fastseg import metrics, ops

pytestmark = pytest.mark.parity
# Peers compute ratios of exact counts in float32.
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6, "equal_nan": True}
C = 5


def maps(kind: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(len(kind))
    if kind == "one pixel":
        return torch.tensor([[[1]]]), torch.tensor([[[3]]])
    target = torch.randint(0, C, (3, 17, 29))
    prediction = torch.where(torch.rand(target.shape) < 0.4, torch.randint(0, C, target.shape), target)
    if kind == "absent":  # class 2 nowhere, class 3 only predicted, class 4 only true
        target[target == 2], prediction[prediction == 2] = 0, 0
        target[target == 3], prediction[prediction == 4] = 1, 1
    if kind == "empty":  # all of it class 0, nothing of it found in the second image
        target, prediction[1] = target * 0, 2
    return prediction, target


kinds = pytest.mark.parametrize("kind", ["random", "absent", "empty", "one pixel"])
FUNCTIONS = {"iou": metrics.iou, "dice": metrics.dice, "precision": metrics.precision, "recall": metrics.recall}
names = pytest.mark.parametrize("name", FUNCTIONS)


def matrices(prediction: Tensor, target: Tensor) -> Tensor:
    return torch.stack([ops.confusion_matrix(p[None], t[None], C) for p, t in zip(prediction, target, strict=True)])


@kinds
@names
def test_torchmetrics_classification(kind: str, name: str) -> None:
    prediction, target = maps(kind)
    matrix = matrices(prediction, target).sum(0)
    theirs = {"iou": TM.jaccard_index, "dice": TM.f1_score, "precision": TM.precision, "recall": TM.recall}[name]
    for average, rule in (("none", {"absent": "zero"}), ("macro", {"absent": "skip_unseen"}), ("micro", {})):
        want = theirs(prediction, target, task="multiclass", num_classes=C, average=average)
        ours = FUNCTIONS[name](matrix, average=average, **rule)  # type: ignore[operator]
        torch.testing.assert_close(ours.float(), want, **CLOSE)
    want = theirs(prediction, target, task="multiclass", num_classes=C, average="weighted")
    ours = FUNCTIONS[name](matrix, average="weighted", absent="skip_unseen")  # type: ignore[operator]
    torch.testing.assert_close(ours.float(), want, **CLOSE)


@kinds
def test_torchmetrics_segmentation_averages_images(kind: str) -> None:
    prediction, target = maps(kind)
    want = torchmetrics_mean_iou(prediction, target, num_classes=C, input_format="index")
    ours = metrics.mean_iou(matrices(prediction, target))
    torch.testing.assert_close(ours.float(), want, **CLOSE)
    mean = metrics.per_image_mean_iou(matrices(prediction, target))
    torch.testing.assert_close(mean.float(), want.mean(), **CLOSE)


@kinds
@names
def test_scikit_learn(kind: str, name: str) -> None:
    prediction, target = maps(kind)
    matrix = matrices(prediction, target).sum(0)
    function = {"iou": sklearn.jaccard_score, "dice": sklearn.f1_score, "precision": sklearn.precision_score,
                "recall": sklearn.recall_score}[name]  # fmt: skip

    def theirs(average: str | None, **options: Any) -> Any:
        return function(target.flatten(), prediction.flatten(), average=average, zero_division=0, **options)

    for average in (None, "macro"):
        ours = FUNCTIONS[name](matrix, average=average or "none", absent="zero")  # type: ignore[operator]
        np.testing.assert_allclose(ours, theirs(average, labels=range(C)), rtol=1e-12)
    for average in ("macro", "weighted", "micro"):  # of the labels that occur
        ours = FUNCTIONS[name](matrix, average=average, absent="skip_unseen")  # type: ignore[operator]
        np.testing.assert_allclose(ours, theirs(average), rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class is only predicted
        accuracy = sklearn.balanced_accuracy_score(target.flatten(), prediction.flatten())
    assert metrics.mean_accuracy(matrix).item() == pytest.approx(accuracy, rel=1e-12)


@kinds
@names
def test_segmentation_models_pytorch(kind: str, name: str) -> None:
    prediction, target = maps(kind)
    each = matrices(prediction, target)
    stats = smp.get_stats(prediction, target, mode="multiclass", num_classes=C)
    function = {"iou": smp.iou_score, "dice": smp.f1_score, "precision": smp.precision, "recall": smp.recall}[name]
    ours: Any = FUNCTIONS[name]
    weights = [0.5, 3.0, 1.0, 0.0, 2.0]
    for want, value in (
        (function(*stats, reduction="macro", zero_division=1.0), ours(each.sum(0), average="macro", absent="one")),
        (function(*stats, reduction="micro", zero_division=1.0), ours(each.sum(0), average="micro")),
        (function(*stats, reduction="micro-imagewise", zero_division=1.0), ours(each, average="micro").mean()),
        (function(*stats, reduction="macro-imagewise", zero_division=1.0),
         ours(each, average="macro", absent="one").mean()),
        (function(*stats, reduction="weighted", class_weights=weights, zero_division=1.0),
         ours(each.sum(0), average="macro", absent="one", class_weights=weights)),
    ):  # fmt: skip
        torch.testing.assert_close(value.float(), want.float(), **CLOSE)
    # The bug: with class_weights "macro" divides by the number of classes once more.
    wrong = function(*stats, reduction="macro", class_weights=weights, zero_division=1.0)
    right = ours(each.sum(0), average="macro", absent="one", class_weights=weights)
    torch.testing.assert_close(wrong.float() * C, right.float(), **CLOSE)


@kinds
@pytest.mark.parametrize("name", ["iou", "dice"])
def test_monai(kind: str, name: str) -> None:
    prediction, target = maps(kind)
    one_hot = [F.one_hot(x, C).permute(0, 3, 1, 2) for x in (prediction, target)]
    function: Any = {"iou": compute_iou, "dice": compute_dice}[name]
    ours: Any = FUNCTIONS[name]
    for ignore_empty, absent in ((True, "skip_without_truth"), (False, "one")):
        want = function(*one_hot, include_background=True, ignore_empty=ignore_empty)
        torch.testing.assert_close(ours(matrices(prediction, target), absent=absent).float(), want.float(), **CLOSE)


@kinds
def test_kornia(kind: str) -> None:
    prediction, target = maps(kind)
    want = kornia_mean_iou(prediction, target, C, eps=0.0)
    torch.testing.assert_close(metrics.iou(matrices(prediction, target)).float(), want, **CLOSE)
    torch.testing.assert_close(  # its 1e-6 makes an absent class 1, and a missed one not quite 0
        metrics.iou(matrices(prediction, target), absent="one").float(),
        kornia_mean_iou(prediction, target, C),
        rtol=1e-6,
        atol=2e-6,
    )


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision(ties: bool) -> None:
    torch.manual_seed(0)
    scores, target = torch.rand(4, 200), torch.rand(4, 200) < 0.3
    scores = (scores * 9).round() / 9 if ties else scores
    for convention in ("step", "trapezoid"):
        for row, truth in zip(scores, target, strict=True):
            precision, recall, _ = sklearn.precision_recall_curve(truth, row)
            step = sklearn.average_precision_score(truth, row)
            want = step if convention == "step" else sklearn.auc(recall, precision)
            ours = metrics.average_precision(row, truth, convention=convention)  # type: ignore[arg-type]
            assert ours.item() == pytest.approx(want, rel=1e-12)
    # torchmetrics' own targets are [N, C]
    for average in ("macro", "micro", "weighted", "none"):
        want = TM.average_precision(scores.T, target.T.long(), task="multilabel", num_labels=4, average=average)
        ours = metrics.average_precision(scores, target, average=average)  # type: ignore[arg-type]
        torch.testing.assert_close(ours.float(), want, rtol=1e-5, atol=1e-6)  # it sums in float32


def patches(shape: tuple[int, int, int], high: int) -> Tensor:
    coarse = torch.randint(0, high, (shape[0], shape[1] // 4 + 1, shape[2] // 4 + 1))
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, : shape[1], : shape[2]]


@pytest.mark.parametrize("seed", range(5))
def test_panoptic_quality_is_that_of_torchmetrics(seed: int) -> None:
    """Where the prediction is void nowhere: there torchmetrics leaves pixels out, and panopticapi and we do not."""
    torch.manual_seed(seed)
    shape = (2, 37, 53)
    classes, instances = patches(shape, 4), patches(shape, 3)
    target = classes.masked_fill(classes == 3, 255), instances
    prediction = torch.where(torch.rand(shape) < 0.1, 1, classes.clamp(max=2)), instances
    theirs = PanopticQuality(things={0, 1}, stuffs={2}, return_sq_and_rq=True, return_per_class=True,
                             allow_unknown_preds_category=True)  # fmt: skip
    theirs.update(*(torch.stack(pair, -1) for pair in (prediction, target)))
    ours = metrics.panoptic_quality(metrics.panoptic_counts(prediction, target, 3, stuff=[2]))
    mine = torch.stack([ours.pq_of_class, ours.sq_of_class, ours.rq_of_class], -1)
    torch.testing.assert_close(mine, theirs.compute().squeeze(0).double(), **CLOSE)


def coco_scores(images: list[Any], classes: int, most: int) -> np.ndarray:
    """Precision [T, 101, C] of COCO's own evaluation, of masks."""

    def rle(mask: Tensor) -> dict[str, Any]:
        return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))

    truths, found = [], []
    for image, (prediction, scores, labels, target, true_labels, crowd) in enumerate(images):
        for mask, label, many in zip(target, true_labels.tolist(), crowd.tolist(), strict=True):
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": label, "iscrowd": int(many),
                           "segmentation": rle(mask), "area": int(mask.sum())})  # fmt: skip
        for mask, score, label in zip(prediction, scores.tolist(), labels.tolist(), strict=True):
            found.append({"image_id": image, "category_id": label, "segmentation": rle(mask), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        pictures = [{"id": i, "height": 23, "width": 31} for i in range(len(images))]
        categories = [{"id": c} for c in range(classes)]
        truth.dataset = {"images": pictures, "annotations": truths, "categories": categories}
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(found), "segm")
        run.params.maxDets = [most]
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][:, :, :, 0, 0]


@pytest.mark.parametrize(("seed", "most"), [(0, 100), (1, 100), (2, 100), (3, 2)])
def test_average_precision_of_instances_is_that_of_pycocotools(seed: int, most: int) -> None:
    torch.manual_seed(seed)
    ours, images = metrics.InstanceAveragePrecision(3, max_detections=most), []
    for count in (6, 0, 9, 4):
        target = torch.stack([patches((1, 23, 31), 2)[0] == 1 for _ in range(5)])
        # Predictions are true masks with pixels flipped: some match, some twice, some not at all.
        source, true_labels = torch.randint(0, 5, (count,)), torch.randint(0, 2, (5,))
        prediction = target[source] ^ (torch.rand(count, 23, 31) < torch.rand(count, 1, 1) * 0.4)
        labels = torch.where(torch.rand(count) < 0.2, 1, true_labels[source])
        images.append((prediction, torch.rand(count), labels, target, true_labels, torch.rand(5) < 0.2))
        *given, crowd = images[-1]
        ours.update(*given, crowd=crowd)
    want = coco_scores(images, 3, most)
    result = ours.compute()
    of_class = [want[:, :, c].mean() if (want[:, :, c] > -1).all() else np.nan for c in range(3)]
    assert 0.05 < np.nanmean(of_class) < 0.95
    np.testing.assert_allclose(result.ap_of_class, of_class, rtol=1e-12)
    assert result.ap == pytest.approx(np.nanmean(of_class), rel=1e-12)
