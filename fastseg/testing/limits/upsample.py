"""Limits of the upsample family. The last place of a source is the last place of its result."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ... import ops
from ..limit import Limit, zeros_but_last

# 2^30 and some pixels: a class begins beyond them, the second image beyond 2^31, and so do the last labels.
H, W = 32770, 32768
h, w = H // 2, 3
HALF = torch.float16
WON = 1 / (1 + math.exp(-1))  # softmax of 0 and 1
Call = Callable[[], Tensor]
raw = torch.ops.fastseg


def _logits() -> Tensor:
    return zeros_but_last(1, 2, 2, h, w, dtype=HALF)


def _resized(op: str, shape: tuple[int, ...], size: tuple[int, int], last: bool = False, aligned: bool = False) -> Call:
    """The last class of maps that are zero but at their end."""

    def call() -> Tensor:
        x = zeros_but_last(1, *shape, dtype=HALF)
        x = x.to(memory_format=torch.channels_last) if last else x
        more = {"threshold": 0.5} if op == "upsample_threshold" else {}
        result: Tensor = getattr(ops, op)(x, size, align_corners=aligned, **more)
        return result[:, -1] if result.dim() == 4 else result

    return call


def _certainty() -> Tensor:
    return ops.upsample_argmax(_logits(), (H, W), return_confidence=True)[1]


def _label() -> Tensor:
    return ops.upsample_argmax(_logits(), (H, W), return_confidence=True)[0]


def _loss() -> Tensor:
    target = zeros_but_last(1, 2, H, W, dtype=torch.uint8)
    return ops.upsample_cross_entropy(_logits(), target, reduction="none")


def _bilinear_backward(source: tuple[int, int], result: tuple[int, int], aligned: bool = False) -> Call:
    grad = lambda: zeros_but_last(1, 2, 2, *result, dtype=HALF)  # noqa: E731
    return lambda: raw.upsample_bilinear_backward(grad(), *source, aligned)[:, -1]


def _softmax_backward(source: tuple[int, int], result: tuple[int, int], aligned: bool = False) -> Call:
    def call() -> Tensor:
        grad, p = (zeros_but_last(value, 2, 2, *result, dtype=HALF) for value in (1, 0.5))
        given: Tensor = raw.upsample_softmax_backward(grad, p, *source, aligned)
        return given[:, -1]

    return call


def _loss_backward(source: tuple[int, int], result: tuple[int, int], aligned: bool = False) -> Call:
    """In float32, in which the log-sum-exp and the upstream gradient are read as they are."""

    def call() -> Tensor:
        x = zeros_but_last(1, 2, 2, *source)
        target = zeros_but_last(1, 2, *result, dtype=torch.uint8)
        options = (255, 0.0, 0, aligned)
        _, relative, total = raw.upsample_cross_entropy(x, target, None, None, *options)
        grad = zeros_but_last(1, 2, *result)
        given: Tensor = raw.upsample_cross_entropy_backward(grad, x, target, None, None, relative, total, *options)
        return given[:, -1]

    return call


ARGMAX, CONFIDENCE, SOFTMAX = "upsample_argmax", "upsample_argmax_confidence", "upsample_softmax"
BILINEAR, THRESHOLD = "upsample_bilinear", "upsample_threshold"
SMALL, LARGE = (2, 2, h, w), (H, W)
LIMITS = (
    Limit(ARGMAX, "labels", _resized(ARGMAX, SMALL, LARGE), 0, 1),
    # A task each, of twice as many as a grid has blocks and one: the first block takes the last one too.
    Limit(ARGMAX, "tasks", _resized(ARGMAX, (2**32 - 1, 2, 1, 1), (1, 1)), 0, 1),
    Limit(CONFIDENCE, "labels", _label, 0, 1),
    Limit(CONFIDENCE, "probabilities", _certainty, 0.5, WON),
    Limit(SOFTMAX, "result", _resized(SOFTMAX, SMALL, LARGE), 0.5, WON),
    Limit(SOFTMAX, "result in channels_last", _resized(SOFTMAX, SMALL, LARGE, last=True), 0.5, WON),
    Limit("upsample_cross_entropy", "losses", _loss, math.log(2), -math.log(WON)),
    Limit("upsample_bilinear_backward", "upstream gradient", _bilinear_backward((h, w), LARGE), 0, 1),
    Limit("upsample_softmax_backward", "upstream gradient", _softmax_backward((h, w), LARGE), 0, 0.25),
    Limit("upsample_cross_entropy_backward", "upstream gradient", _loss_backward((h, w), LARGE), 0, WON - 1),
    Limit("upsample_bilinear_backward", "gradient", _bilinear_backward(LARGE, (3, 3), True), 0, 1),
    Limit("upsample_softmax_backward", "gradient", _softmax_backward(LARGE, (3, 3), True), 0, 0.25),
    Limit("upsample_cross_entropy_backward", "gradient", _loss_backward(LARGE, (3, 3), True), 0, WON - 1),
    Limit(BILINEAR, "plane", _resized(BILINEAR, (1, 1, 23171, 3), (46342, 46341)), 0, 1),
    Limit(THRESHOLD, "plane", _resized(THRESHOLD, (1, 1, 23171, 3), (46342, 46341)), 0, 1),
    Limit(THRESHOLD, "planes together", _resized(THRESHOLD, (3, 2, 15000, 1), (30000, 20000)), 0, 1),
    Limit(THRESHOLD, "number of planes", _resized(THRESHOLD, (2**31 + 10, 1, 1, 1), (1, 1)), 0, 1),
    Limit(BILINEAR, "numerators of a tall source", _resized(BILINEAR, (1, 1, 2**30, 1), (3, 2), aligned=True), 0, 1),
    Limit(BILINEAR, "numerators of a wide source", _resized(BILINEAR, (1, 1, 1, 2**30), (2, 3), aligned=True), 0, 1),
    Limit(THRESHOLD, "numerators of rows", _resized(THRESHOLD, (1, 1, 2**29 + 5, 1), (2**30, 1)), 0, 1),
    Limit(THRESHOLD, "numerators of columns", _resized(THRESHOLD, (1, 1, 1, 2), (1, 2**30)), 0, 1),
    Limit(THRESHOLD, "tiles", _resized(THRESHOLD, (1, 4, 1, 2), (1, 2**29 - 1), last=True), 0, 1),
)
