"""Limits of the upsample family. The ends of a source are the ends of its result."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ... import ops
from ..limit import Limit, zeros_but_ends

# 2^30 and some pixels: a class begins beyond them, the second image beyond 2^31, and so do the last labels.
H, W = 32770, 32768
h, w = H // 2, 3
HALF = torch.float16
WON = 1 / (1 + math.exp(-1))  # softmax of 0 and 1
Call = Callable[[], Tensor]
raw = torch.ops.fastseg


def _resized(op: str, shape: tuple[int, ...], size: tuple[int, int], last: bool = False, aligned: bool = False) -> Call:
    """The last class of maps that are zero but at their ends."""

    def call() -> Tensor:
        x = zeros_but_ends(1, *shape, dtype=HALF)
        x = x.to(memory_format=torch.channels_last) if last else x
        more = {"threshold": 0.5} if op == "upsample_threshold" else {}
        result: Tensor = getattr(ops, op)(x, size, align_corners=aligned, **more)
        return result[:, -1] if result.dim() == 4 else result

    return call


def _confidence(source: tuple[int, int], result: tuple[int, int], which: int) -> Call:
    """The labels (0) or their probabilities (1)."""
    return lambda: ops.upsample_argmax(zeros_but_ends(1, 2, 2, *source), result, return_confidence=True)[which]


def _loss(source: tuple[int, int], result: tuple[int, int]) -> Call:
    def call() -> Tensor:
        x, target = zeros_but_ends(1, 2, 2, *source), zeros_but_ends(1, 2, *result, dtype=torch.uint8)
        return ops.upsample_cross_entropy(x, target, reduction="none")

    return call


def _bilinear_backward(source: tuple[int, int], result: tuple[int, int], aligned: bool = False) -> Call:
    grad = lambda: zeros_but_ends(1, 2, 2, *result, dtype=HALF)  # noqa: E731
    return lambda: raw.upsample_bilinear_backward(grad(), *source, aligned)[:, -1]


def _softmax_backward(source: tuple[int, int], result: tuple[int, int], aligned: bool = False) -> Call:
    def call() -> Tensor:
        grad, p = (zeros_but_ends(value, 2, 2, *result, dtype=HALF) for value in (1, 0.5))
        given: Tensor = raw.upsample_softmax_backward(grad, p, *source, aligned)
        return given[:, -1]

    return call


def _loss_backward(source: tuple[int, int], result: tuple[int, int], aligned: bool = False) -> Call:
    """In float32, in which the log-sum-exp and the upstream gradient are read as they are."""

    def call() -> Tensor:
        x = zeros_but_ends(1, 2, 2, *source)
        target = zeros_but_ends(1, 2, *result, dtype=torch.uint8)
        options = (255, 0.0, 0, aligned)
        _, relative, total = raw.upsample_cross_entropy(x, target, None, None, *options)
        grad = zeros_but_ends(1, 2, *result)
        given: Tensor = raw.upsample_cross_entropy_backward(grad, x, target, None, None, relative, total, *options)
        return given[:, -1]

    return call


ARGMAX, CONFIDENCE, SOFTMAX = "upsample_argmax", "upsample_argmax_confidence", "upsample_softmax"
BILINEAR, THRESHOLD = "upsample_bilinear", "upsample_threshold"
# Source and result: of images beyond 2^31 together, and of a plane beyond.
LARGE = {"images": ((h, w), (H, W)), "plane": ((23171, 3), (46342, 46341))}
# Numerators beyond; CUDA C++ takes sides below 2^30. All kernels have theirs from the same functions.
TALL, WIDE = ((2**29, 1), (2**30 - 1, 1)), ((1, 2), (1, 2**30 - 1))
LIMITS = (
    *(
        limit
        for name, (source, result) in LARGE.items()
        for limit in (
            Limit(ARGMAX, name, _resized(ARGMAX, (2, 2, *source), result), 1, 1),
            Limit(CONFIDENCE, f"{name}: labels", _confidence(source, result, 0), 1, 1),
            Limit(CONFIDENCE, f"{name}: probabilities", _confidence(source, result, 1), WON, WON),
            Limit(SOFTMAX, name, _resized(SOFTMAX, (2, 2, *source), result), WON, WON),
            Limit(SOFTMAX, f"{name}: channels_last", _resized(SOFTMAX, (2, 2, *source), result, last=True), WON, WON),
            Limit("upsample_cross_entropy", name, _loss(source, result), -math.log(WON), -math.log(WON)),
            Limit("upsample_bilinear_backward", name, _bilinear_backward(source, result), 1, 1),
            Limit("upsample_softmax_backward", name, _softmax_backward(source, result), 0.25, 0.25),
            Limit("upsample_cross_entropy_backward", name, _loss_backward(source, result), WON - 1, WON - 1),
            Limit(THRESHOLD, name, _resized(THRESHOLD, (4, 1, *source), result), 1, 1),
            Limit(BILINEAR, name, _resized(BILINEAR, (4, 1, *source), result), 1, 1),
        )
    ),
    Limit(ARGMAX, "numerators of rows", _resized(ARGMAX, (1, 2, *TALL[0]), TALL[1]), 1, 1),
    Limit(ARGMAX, "numerators of columns", _resized(ARGMAX, (1, 2, *WIDE[0]), WIDE[1]), 1, 1),
    Limit(SOFTMAX, "numerators of rows", _resized(SOFTMAX, (1, 2, *TALL[0]), TALL[1]), WON, WON),
    Limit(SOFTMAX, "numerators of columns", _resized(SOFTMAX, (1, 2, *WIDE[0]), WIDE[1]), WON, WON),
    Limit("upsample_bilinear_backward", "numerators of rows", _bilinear_backward(*TALL), 1, 1),
    Limit(THRESHOLD, "numerators of columns", _resized(THRESHOLD, (1, 1, *WIDE[0]), WIDE[1]), 1, 1),
    # The other way round: a gradient of a plane beyond.
    Limit("upsample_bilinear_backward", "gradient", _bilinear_backward((H, W), (3, 3), True), 1, 1),
    Limit("upsample_softmax_backward", "gradient", _softmax_backward((H, W), (3, 3), True), 0.25, 0.25),
    Limit("upsample_cross_entropy_backward", "gradient", _loss_backward((H, W), (3, 3), True), WON - 1, WON - 1),
    # A task each, of twice as many as a grid has blocks and one: the first block takes the last one too.
    Limit(ARGMAX, "tasks", _resized(ARGMAX, (2**32 - 1, 2, 1, 1), (1, 1)), 1, 1),
    Limit(THRESHOLD, "planes together", _resized(THRESHOLD, (6, 1, 15000, 1), (30000, 20000)), 1, 1),
    Limit(THRESHOLD, "number of planes", _resized(THRESHOLD, (2**31 + 10, 1, 1, 1), (1, 1)), 1, 1),
    Limit(BILINEAR, "a tall source", _resized(BILINEAR, (1, 1, 2**30, 1), (3, 2), aligned=True), 1, 1),
    Limit(BILINEAR, "a wide source", _resized(BILINEAR, (1, 1, 1, 2**30), (2, 3), aligned=True), 1, 1),
    Limit(THRESHOLD, "a tall result", _resized(THRESHOLD, (1, 1, 2**29 + 5, 1), (2**30, 1)), 1, 1),
    Limit(THRESHOLD, "a wide result", _resized(THRESHOLD, (1, 1, 1, 2), (1, 2**30)), 1, 1),
    Limit(THRESHOLD, "tiles", _resized(THRESHOLD, (1, 4, 1, 2), (1, 2**29 - 1), last=True), 1, 1),
)
