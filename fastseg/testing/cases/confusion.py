"""Rows of the confusion matrix."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import ops
from .. import bands
from ..case import INTEGERS, Case, Inputs
from ..data_errors import DataError
from ..layouts import with_layout
from ..signals import KINDS, labels, logits
from .upsample import BENCH, CLASSES, EXACT, GEOMETRY, MISLABELLED, Make, mislabelled


def _labels_dtype(classes: int) -> torch.dtype:
    return torch.uint8 if classes <= 255 else torch.int16


def _target(shape: tuple[int, ...], classes: int, dtype: torch.dtype, seed: int, options: dict[str, Any]) -> Tensor:
    return labels(shape, classes, dtype, seed + 1, options.get("ignore_index", 255))


def from_labels(
    shape: tuple[int, int, int],
    classes: int,
    *,
    target_dtype: torch.dtype = torch.uint8,
    add: bool = False,
    **options: Any,
) -> Make:
    """Arguments (prediction, target, num_classes); `dtype` is that of the prediction."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        prediction = labels(shape, classes, dtype, seed).to(device)
        target = _target(shape, classes, target_dtype, seed, options).to(device)
        extra = dict(options, out=torch.arange(classes * classes).view(classes, classes).to(device)) if add else options
        return (with_layout(prediction, layout), with_layout(target, layout), classes), dict(extra)

    return make


def from_logits(
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    kind: str = "noise",
    *,
    all_ignored: bool = False,
    **options: Any,
) -> Make:
    """Arguments (logits, target, num_classes)."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        n, classes = shape[:2]
        target = _target((n, *size), classes, _labels_dtype(classes), seed, options).to(device)
        if all_ignored:
            target.fill_(255)
        x = logits(shape, kind, seed).to(dtype=dtype, device=device)
        return (with_layout(x, layout), with_layout(target, layout), classes), dict(options)

    return make


def band(inputs: Inputs, dtype: torch.dtype, plain: Tensor | None) -> bands.Band:
    """Tie band of the labels that are counted."""
    (x, target, _), options = inputs
    size = (target.shape[1], target.shape[2])
    return bands.argmax(x, size, options.get("align_corners", False), dtype, plain)


def _rows() -> Iterator[Case]:
    op = "confusion_matrix"

    def counted(id: str, make: Make, *tags: str) -> Case:
        return Case(op, f"labels_{id}", make, tags=frozenset(tags), dtypes=INTEGERS, counts=True)

    def fused(id: str, make: Make, *tags: str, exact: bool = False) -> Case:
        chosen = frozenset(filter(None, tags))
        return Case(op, f"logits_{id}", make, tags=chosen, counts=True, band=None if exact else band)

    yield counted("square", from_labels((2, 13, 37), 7), "smoke")
    yield counted("add", from_labels((1, 9, 31), 19, add=True), "odd")
    yield counted("ignore_inside", from_labels((1, 9, 31), 5, ignore_index=2), "odd")
    yield counted("one_class", from_labels((1, 9, 31), 1), "degenerate")
    yield counted("no_batch", from_labels((0, 9, 31), 3), "degenerate")
    yield counted("no_pixels", from_labels((2, 0, 31), 3), "degenerate")
    # The GPU counts in shared memory up to 108 classes, with a thread for 16 labels.
    for classes in (108, 109, 127):
        yield counted(f"c{classes}", from_labels((1, 65, 67), classes))
    yield counted("bytes", from_labels((1, 4, 64), 19))
    for dtype in INTEGERS:
        name = str(dtype).split(".")[1]
        yield counted(f"target_{name}", from_labels((1, 9, 31), 5, target_dtype=dtype, ignore_index=100))
    yield counted("ignore_-100", from_labels((1, 9, 31), 5, target_dtype=torch.int64, ignore_index=-100))

    for name, shape, size, tag in GEOMETRY:
        yield fused(name, from_logits(shape, size), tag)
        yield fused(f"{name}_aligned", from_logits(shape, size, align_corners=True))
    for classes in CLASSES:
        given: dict[str, Any] = {"ignore_index": 255} if classes > 255 else {}
        yield fused(f"c{classes}", from_logits((1, classes, 5, 6), (13, 19), **given))
    for kind in KINDS:
        yield fused(f"{kind}_x4", from_logits((1, 19, 12, 17), (48, 68), kind), exact=kind in EXACT)
    yield fused("all_ignored", from_logits((1, 5, 6, 7), (24, 28), all_ignored=True), "degenerate")
    for name, shape, size in BENCH:
        for kind in ("smooth", "noise"):
            yield fused(f"{name}_{kind}", from_logits(shape, size, kind), "bench", "paper")


def _counted(device: str, value: int, argument: str) -> Callable[[], Tensor]:
    """Counts of a wrong batch, to which a right one is added: they stay poisoned."""
    x, good, bad = mislabelled(device, value)
    pair = {"target": (good, bad), "prediction": (bad, good), "fused target": (x, bad)}[argument]
    count = partial(ops.confusion_matrix, num_classes=3, ignore_index=100)
    return lambda: count(good, good, out=count(*pair))


DATA_ERRORS = tuple(
    DataError(f"counts of a {name}", name.split()[-1], partial(_counted, argument=name), **given)
    for name, given in (
        ("target", MISLABELLED),
        ("prediction", {**MISLABELLED, "right": 2}),
        ("fused target", MISLABELLED),
    )
)
CASES: tuple[Case, ...] = tuple(_rows())
