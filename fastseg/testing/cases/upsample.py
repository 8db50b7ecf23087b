"""Rows of the upsample family."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...reference import upsample as reference
from .. import bands
from ..case import Case, Inputs
from ..data_errors import DataError
from ..layouts import with_layout
from ..signals import KINDS, labels, logits

# Name, [N, C, h, w], (H, W), tag. Odd extents leave a tail in every vector and every tile.
GEOMETRY: tuple[tuple[str, tuple[int, int, int, int], tuple[int, int], str], ...] = (
    ("x2", (2, 3, 5, 7), (10, 14), "smoke"),
    ("x4", (1, 19, 9, 13), (36, 52), "odd"),
    ("x8", (1, 21, 8, 6), (64, 48), ""),
    ("65to513", (1, 2, 65, 65), (513, 513), "paper"),
    ("33to512", (1, 3, 33, 33), (512, 512), "paper"),
    ("fraction", (2, 5, 7, 11), (17, 23), "smoke"),
    ("anisotropic", (2, 4, 6, 37), (41, 9), "odd"),
    ("down2", (1, 5, 16, 18), (8, 9), ""),
    ("down", (1, 5, 31, 67), (10, 21), "odd"),
    ("pixel", (2, 3, 1, 1), (7, 9), ""),
    ("row", (1, 4, 1, 13), (5, 26), "odd"),
    ("column", (1, 4, 13, 1), (26, 5), ""),
    ("identity", (1, 19, 11, 13), (11, 13), ""),
    ("to_pixel", (1, 5, 9, 11), (1, 1), ""),
    ("x1000", (1, 3, 2, 3), (3, 3000), ""),
    ("wide", (1, 3, 3, 150), (7, 1201), ""),
    ("tall", (1, 2, 300, 3), (1201, 7), ""),
    # Columns that fill warps of 32 threads, and more of them than a block of 256 has: in tiles of unequal span, so that
    # a corner that is not written is one of the tile before.
    ("warps", (8, 3, 3, 2), (12, 140), ""),
    ("strips", (2, 2, 5, 2), (10, 1000), "odd"),
    ("no_batch", (0, 3, 4, 5), (8, 10), "degenerate"),
    ("no_pixels", (1, 3, 4, 5), (0, 10), "degenerate"),
)
CLASSES = (1, 2, 19, 21, 150, 255, 256)
BENCH: tuple[tuple[str, tuple[int, int, int, int], tuple[int, int]], ...] = (
    ("cityscapes", (1, 19, 128, 256), (1024, 2048)),
    ("voc", (1, 21, 65, 65), (513, 513)),
    ("batch", (8, 21, 33, 33), (512, 512)),
)
# Small integers at a power-of-two scale: every product and sum is exact, so no tie excuses another label.
EXACT = ("ties", "constant")
EXPONENTIAL = ("upsample_softmax", "upsample_cross_entropy")
Make = Callable[[int, torch.dtype, str, str], Inputs]


def _place(x: Tensor, dtype: torch.dtype, device: str, layout: str) -> Tensor:
    return with_layout(x.to(dtype=dtype, device=device), layout)


def maps(shape: tuple[int, int, int, int], size: tuple[int, int], kind: str = "noise", **options: Any) -> Make:
    """Arguments (maps, size) and the options."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        return (_place(logits(shape, kind, seed), dtype, device, layout), size), dict(options)

    return make


def least(shape: tuple[int, int, int, int], size: tuple[int, int], **options: Any) -> Make:
    """Arguments (logits, size): the first class is -inf, all others are the least number of the dtype."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        x = torch.full(shape, torch.finfo(dtype).min, dtype=torch.float64)
        x[:, 0] = -float("inf")
        return (_place(x, dtype, device, layout), size), dict(options)

    return make


def loss(
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    kind: str = "noise",
    *,
    labels_dtype: torch.dtype = torch.uint8,
    weight: bool = False,
    pixel_weight: bool = False,
    heaviest: float = 0.0,
    all_ignored: bool = False,
    **options: Any,
) -> Make:
    """Arguments (logits, target) and the options; about one label in ten is ignored."""

    def make(seed: int, dtype: torch.dtype, device: str, layout: str) -> Inputs:
        n, classes = shape[:2]
        ignore = options.get("ignore_index", 255)
        target = labels((n, *size), classes, labels_dtype, seed + 1, ignore)
        if all_ignored:
            target.fill_(ignore)
        extra = dict(options)
        if weight:
            extra["weight"] = _place(
                0.2 + logits((1, classes, 1, 1), "noise", seed + 2).abs()[0, :, 0, 0], dtype, device, layout
            )
        if pixel_weight:
            of_pixel = logits((n, 1, *size), "smooth", seed + 3).abs()[:, 0]
            if heaviest:
                of_pixel[of_pixel > of_pixel.median()] = heaviest
            extra["pixel_weight"] = _place(of_pixel, dtype, device, layout)
        args = _place(logits(shape, kind, seed), dtype, device, layout), _place(target, labels_dtype, device, layout)
        return args, extra

    return make


def _areas(inputs: Inputs) -> tuple[int, int]:
    """Pixels of a source map and of the result."""
    x, given = inputs[0][:2]
    height, width = given.shape[1:] if isinstance(given, Tensor) else given
    return x.shape[2] * x.shape[3], height * width


def terms(inputs: Inputs) -> float:
    """A gradient sums the outputs of the four cells around a source pixel."""
    source, result = _areas(inputs)
    return 4 * result / max(1, source)


def pixels(inputs: Inputs) -> int:
    """Of the source or of the result, whichever has fewer."""
    return int(inputs[0][0].shape[0]) * min(_areas(inputs))


SUMS: dict[str, Any] = {"terms": terms, "pixels": pixels}


def argmax_band(inputs: Inputs, dtype: torch.dtype, plain: Tensor | None) -> bands.Band:
    """Tie band of `upsample_argmax(logits, size, align_corners=...)`."""
    (x, size), options = inputs
    return bands.argmax(x, size, options.get("align_corners", False), dtype, plain)


def threshold_band(inputs: Inputs, dtype: torch.dtype, plain: Tensor | None) -> bands.Band:
    """Tie band of `upsample_threshold(mask_logits, size, threshold=..., align_corners=...)`."""
    (x, size), options = inputs
    return bands.threshold(x, size, options.get("align_corners", False), dtype, options.get("threshold", 0.0), plain)


def softmax_backward(inputs: Inputs, output: Tensor, upstream: Tensor) -> tuple[Tensor, ...]:
    """Gradients of `upsample_softmax`, whose error relative to p is one relative to terms that may cancel."""
    (x, _), options = inputs
    align = options.get("align_corners", False)
    return (reference.upsample_softmax_backward(upstream, output, x.shape[2], x.shape[3], align),)


def _geometry(op: str, build: Callable[..., Make], grad: tuple[int, ...], band: Any, **options: Any) -> Iterator[Case]:
    """Every size, with and without align_corners; every number of classes; every kind of values; the timed rows."""
    prefix = "confidence_" if "return_confidence" in options else ""
    backward = softmax_backward if op == "upsample_softmax" else None

    def row(id: str, make: Make, *tags: str, exact: bool = False) -> Case:
        chosen, exponential = frozenset(filter(None, tags)), op in EXPONENTIAL or bool(prefix)
        return Case(
            op,
            prefix + id,
            make,
            grad,
            chosen,
            exponential=exponential,
            band=None if exact else band,
            backward=backward,
            **SUMS,
        )

    for name, shape, size, tag in GEOMETRY:
        yield row(name, build(shape, size, **options), tag)
        # The other option meets every dtype and layout too, but not on every instruction set.
        yield row(f"{name}_aligned", build(shape, size, align_corners=True, **options), tag.replace("smoke", "odd"))
    # The gradient of a loss over one class is zero, and no error is relative to that: a test of its own.
    for classes in CLASSES[op == "upsample_cross_entropy" :]:
        # Where the default is a class it has to be given.
        given: dict[str, Any] = {"ignore_index": 255} if op == "upsample_cross_entropy" and classes > 255 else {}
        make = build((1, classes, 5, 6), (13, 19), **options, **given)
        yield row(f"c{classes}", make, "degenerate" if classes == 1 else "")
    # Scales of a power of two: at others it depends on the rounding of a weight whether 0 * inf occurs.
    for kind in KINDS:
        tags = {"smooth": ("odd",), "noise": ()}.get(kind, ("degenerate",))
        yield row(f"{kind}_x4", build((1, 19, 12, 17), (48, 68), kind, **options), *tags, exact=kind in EXACT)
    for kind in ("nan", "inf", "minus_inf"):
        yield row(f"{kind}_identity", build((1, 5, 6, 37), (6, 37), kind, **options), "degenerate")
    for kind in ("nan", "inf", "minus_inf", "ties"):
        make = build((8, 3, 3, 2), (12, 128), kind, **options)
        yield row(f"{kind}_warps", make, "degenerate", exact=kind in EXACT)
    yield row("ties_x2", build((2, 5, 9, 35), (18, 70), "ties", **options), "smoke", "degenerate", exact=True)
    if not prefix:
        for name, shape, size in BENCH:
            for kind in ("smooth", "noise"):
                make = build(shape, size, kind, **options)
                # No goal speaks of the gradient of softmax, and its truth takes minutes at this size.
                timed = () if op == "upsample_softmax" else grad
                marks = frozenset({"bench", "paper", *(["heavy"] if name == "batch" else [])})
                yield Case(op, f"{name}_{kind}", make, timed, marks, exponential=op in EXPONENTIAL, band=band, **SUMS)


def _argmax_extra() -> Iterator[Case]:
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        make = maps((1, 7, 6, 9), (20, 31), dtype=dtype)
        yield Case("upsample_argmax", f"to_{str(dtype).split('.')[1]}", make, band=argmax_band)
    make = maps((1, 257, 5, 6), (13, 19), dtype=torch.int16)
    yield Case("upsample_argmax", "c257_int16", make, tags=frozenset({"odd"}), band=argmax_band)

    # Where kernels begin to look for the maximum there is a number below which -inf alone lies.
    make = least((1, 3, 3, 4), (6, 8), return_confidence=True)
    yield Case("upsample_argmax", "confidence_least", make, tags=frozenset({"degenerate"}))


def _threshold_extra() -> Iterator[Case]:
    for level in (0.5, -1.25):
        make = maps((1, 3, 7, 9), (28, 36), "ties", threshold=level)
        yield Case("upsample_threshold", f"at_{level}", make, tags=frozenset({"degenerate"}), band=threshold_band)
    yield Case(
        "upsample_threshold",
        "no_masks",
        maps((1, 0, 4, 5), (8, 10)),
        tags=frozenset({"degenerate"}),
        band=threshold_band,
    )


def _loss_extra() -> Iterator[Case]:
    def row(
        id: str,
        *tags: str,
        shape: tuple[int, int, int, int] = (2, 7, 6, 9),
        size: tuple[int, int] = (23, 35),
        **options: Any,
    ) -> Case:
        make = loss(shape, size, **options)
        return Case("upsample_cross_entropy", id, make, (0,), frozenset(tags), exponential=True, **SUMS)

    for reduction in ("sum", "none"):
        yield row(reduction, "smoke", reduction=reduction)
        yield row(f"{reduction}_smoothed_weighted", reduction=reduction, label_smoothing=0.1, weight=True)
    yield row("smoothing", label_smoothing=0.1)
    yield row("smoothing_1", label_smoothing=1.0, weight=True)
    yield row("weight", weight=True)
    yield row("pixel_weight", pixel_weight=True)
    yield row("everything", "odd", weight=True, pixel_weight=True, label_smoothing=0.2, reduction="none")
    yield row("everything_mean", "odd", weight=True, pixel_weight=True, label_smoothing=0.2, align_corners=True)
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        name = str(dtype).split(".")[1]
        yield row(f"labels_{name}", labels_dtype=dtype, ignore_index=100)
    yield row("ignore_-100", labels_dtype=torch.int64, ignore_index=-100)
    yield row("ignore_inside", ignore_index=3)
    yield row("ignore_none", labels_dtype=torch.int8, ignore_index=255)
    yield row("c257", shape=(1, 257, 6, 9), labels_dtype=torch.int16, ignore_index=-1)
    yield row("minus_inf_none", "degenerate", size=(24, 36), kind="minus_inf", reduction="none")
    make = loss((2, 7, 6, 9), (23, 35), pixel_weight=True, heaviest=float("inf"), reduction="none")
    yield Case("upsample_cross_entropy", "pixel_weight_inf", make, (), frozenset({"degenerate"}), exponential=True)
    for reduction in ("mean", "sum", "none"):
        yield row(f"all_ignored_{reduction}", "degenerate", all_ignored=True, reduction=reduction)


# Three classes; several blocks, whose last ones are not full; two bad labels in one warp, one in another block.
MISLABELLED: dict[str, Any] = {"values": (3, 200, -5, 2**32 + 1, 1 - 2**32), "right": 100, "first": (1, 2, 3)}
_PLACES = ((1, 30, 290), (1, 2, 4), (1, 2, 3))


def mislabelled(device: str, value: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of three classes, right labels, and labels of which three are `value`."""
    x = torch.randn(2, 3, 5, 150, generator=torch.Generator().manual_seed(0)).to(device)
    dtype = torch.uint8 if value in range(128, 256) else torch.int16 if abs(value) < 128 else torch.int64
    good = torch.zeros(2, 37, 301, dtype=dtype, device=device)
    bad = good.clone()
    for place in _PLACES:
        bad[place] = value
    return x, good, bad


def _loss(device: str, value: int, reduction: str) -> Callable[[], Tensor]:
    x, _, bad = mislabelled(device, value)
    return lambda: ops.upsample_cross_entropy(x, bad, ignore_index=100, reduction=reduction)


def _gradient(device: str, value: int) -> Callable[[], Tensor]:
    """Of each image."""
    x, _, bad = mislabelled(device, value)

    def call() -> Tensor:
        loss = ops.upsample_cross_entropy(x.requires_grad_(), bad, ignore_index=100, reduction="none")
        return torch.autograd.grad(loss, x, torch.ones_like(loss))[0].sum((1, 2, 3))

    return call


DATA_ERRORS = (
    DataError("loss", "target", partial(_loss, reduction="mean"), **MISLABELLED),
    DataError(
        "loss of each pixel",
        "target",
        partial(_loss, reduction="none"),
        poisoned=lambda: mislabelled("cpu", 3)[2] != 0,
        **MISLABELLED,
    ),
    DataError("gradient", "target", _gradient, poisoned=lambda: torch.tensor([False, True]), **MISLABELLED),
)
CASES: tuple[Case, ...] = (
    *_geometry("upsample_bilinear", maps, (0,), None),
    *_geometry("upsample_argmax", maps, (), argmax_band),
    *_argmax_extra(),
    *_geometry("upsample_argmax", maps, (), argmax_band, return_confidence=True),
    *_geometry("upsample_softmax", maps, (0,), None),
    *_geometry("upsample_threshold", maps, (), threshold_band),
    *_threshold_extra(),
    *_geometry("upsample_cross_entropy", loss, (0,), None),
    *_loss_extra(),
)
