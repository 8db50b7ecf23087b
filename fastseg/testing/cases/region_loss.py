"""Rows of the sums that region losses are made of, and of the Lovász losses."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from ..case import Case, Inputs
from ..layouts import with_layout
from ..signals import KINDS, labels, logits
from .upsample import GEOMETRY, SUMS, Make

STATISTICS, SOFTMAX, HINGE = "region_statistics", "lovasz_softmax", "lovasz_hinge"
FINITE = ("smooth", "noise", "wide", "masked", "ties", "constant")


def truths(
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    kind: str = "noise",
    *,
    labels_dtype: torch.dtype = torch.uint8,
    absent: int = 0,
    hinge: bool = False,
    all_ignored: bool = False,
    **options: Any,
) -> Make:
    """Arguments (logits, target) and the options; about one label in ten is ignored, the last `absent` classes are not
    there, and of a single class that stands against the rest, in a `hinge` say, labels are 0 or 1."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        n, classes = shape[:2]
        binary = classes == 1 and (hinge or options.get("activation") == "sigmoid")
        ignore = options.get("ignore_index", 255)
        target = labels((n, *size), classes + binary - absent, labels_dtype, seed + 1, ignore)
        if all_ignored:
            target.fill_(ignore)
        x = logits(shape, kind, seed).to(dtype=dtype, device=device)
        return (with_layout(x, layout), with_layout(target.to(device), layout)), dict(options)

    return make


def _summands(inputs: Inputs) -> float:
    """Pixels of an image."""
    return float(max(1, inputs[0][1][:1].numel()))


def _statistics(id: str, make: Make, *tags: str, grad: tuple[int, ...] = (0,)) -> Case:
    chosen = frozenset(filter(None, tags))
    return Case(STATISTICS, id, make, grad, chosen, exponential=True, summands=_summands, **SUMS)


def _sums(activation: str, **options: Any) -> Iterator[Case]:
    """Every size, with and without align_corners; several numbers of classes; every kind of values."""
    build: Callable[..., Make] = partial(truths, activation=activation, **options)
    for name, shape, size, tag in GEOMETRY:
        yield _statistics(f"{activation}_{name}", build(shape, size), tag)
        aligned = build(shape, size, align_corners=True)
        yield _statistics(f"{activation}_{name}_aligned", aligned, tag.replace("smoke", "odd"))
    for classes in (2, 21, 150):
        yield _statistics(f"{activation}_c{classes}", build((1, classes, 5, 6), (13, 19)))
    for kind in KINDS:
        tags = {"smooth": ("odd",), "noise": ()}.get(kind, ("degenerate",))
        # Of a logarithm that is not finite the focal slope is 0 * inf: the sums say enough.
        grad = (0,) if kind in FINITE else ()
        yield _statistics(f"{activation}_{kind}_x4", build((1, 19, 12, 17), (48, 68), kind), *tags, grad=grad)
    for kind in ("nan", "inf", "minus_inf"):
        make = build((1, 5, 6, 37), (6, 37), kind)
        yield _statistics(f"{activation}_{kind}_identity", make, "degenerate", grad=())


def _options() -> Iterator[Case]:
    shape, size = (2, 7, 6, 9), (23, 35)
    for activation in ("softmax", "sigmoid"):
        build: Callable[..., Make] = partial(truths, shape, size, activation=activation)
        for gamma in (None, 0.0, 0.5, 1.0, 5.0):
            yield _statistics(f"{activation}_gamma_{gamma}", build(gamma=gamma), "odd" if gamma == 0.5 else "")
        yield _statistics(f"{activation}_ignore_inside", build(gamma=2.0, ignore_index=3))
        yield _statistics(f"{activation}_all_ignored", build(gamma=2.0, all_ignored=True), "degenerate")
        yield _statistics(f"{activation}_absent", build(gamma=2.0, absent=3))
        for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
            name = str(dtype).split(".")[1]
            yield _statistics(f"{activation}_{name}", build(labels_dtype=dtype, ignore_index=100))
    for gamma in (None, 2.0):
        make = truths((2, 1, 6, 9), (23, 35), activation="sigmoid", gamma=gamma)
        yield _statistics(f"binary_{gamma}", make, "odd")
    for kind in ("nan", "inf", "minus_inf"):  # without a focal sum the gradient is as finite as that of cross-entropy
        yield _statistics(f"{kind}_x4", truths((1, 19, 12, 17), (48, 68), kind), "degenerate")
    # Of one class under softmax everything is 1 or 0, and the gradient is 0: a test of its own.
    yield _statistics("one_class", truths((1, 1, 6, 9), (12, 18), activation="softmax"), "degenerate", grad=())
    for kind in ("smooth", "noise"):
        make = truths((1, 19, 128, 256), (1024, 2048), kind)
        yield _statistics(f"cityscapes_{kind}", make, "bench", "paper")


def _sorted(op: str, id: str, make: Make, *tags: str, grad: tuple[int, ...] = (0,)) -> Case:
    return Case(op, id, make, grad, frozenset(tags), exponential=op == SOFTMAX)


def _lovasz() -> Iterator[Case]:
    def sized(shape: tuple[int, int, int, int], *args: Any, **options: Any) -> Make:
        return truths(shape, shape[2:], *args, **options)

    for op, classes in ((SOFTMAX, 5), (HINGE, 1)):
        row: Callable[..., Case] = partial(_sorted, op)
        build: Callable[..., Make] = partial(sized, hinge=op == HINGE)
        yield row("square", build((2, classes, 9, 9)), "smoke")
        yield row("ragged", build((2, classes, 7, 37)), "smoke")
        yield row("one_loss", build((3, classes, 6, 19), per_image=False), "odd")
        yield row("per_image", build((3, classes, 6, 19), per_image=True), "odd")
        # More pixels than a pass of the sort has places, and more than one block of the threads.
        yield row("larger", build((1, classes, 67, 83), "smooth"))
        yield row("row", build((1, classes, 1, 150)))
        yield row("column", build((1, classes, 150, 1)))
        yield row("pixel", build((1, classes, 1, 1)))
        for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
            make = build((1, classes, 6, 7), labels_dtype=dtype, ignore_index=100)
            yield row(str(dtype).split(".")[1], make)
        yield row("all_ignored", build((2, classes, 5, 6), all_ignored=True), "degenerate")
        # Which of equal errors has which step, no truth in another arithmetic decides.
        yield row("ties", build((1, classes, 12, 17), "ties"), "degenerate", grad=())
        yield row("constant", build((1, classes, 12, 17), "constant"), "degenerate")
        yield row("wide", build((1, classes, 12, 17), "wide"), "degenerate")
        for kind in ("nan", "inf"):
            yield row(kind, build((1, classes, 6, 37), kind), "degenerate", grad=())
        yield row("no_batch", build((0, classes, 4, 5)), "degenerate")
        yield row("no_pixels", build((1, classes, 0, 5)), "degenerate")
    for absent in (0, 2):
        for which in ("present", "all"):
            for per_image in (False, True):
                make = sized((2, 5, 8, 11), absent=absent, classes=which, per_image=per_image)
                yield _sorted(SOFTMAX, f"{which}_{absent}_{per_image}", make, *(["odd"] if absent else []))
    for count in (2, 21, 150):
        yield _sorted(SOFTMAX, f"c{count}", sized((1, count, 8, 9)))
    for kind in ("smooth", "noise"):
        yield _sorted(SOFTMAX, f"cityscapes_{kind}", sized((1, 19, 512, 1024), kind), "bench", "paper")


CASES: tuple[Case, ...] = (*_sums("softmax", gamma=2.0), *_sums("sigmoid", gamma=2.0), *_options(), *_lovasz())
