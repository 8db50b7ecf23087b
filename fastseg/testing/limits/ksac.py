"""Limits of kernel-sharing atrous convolution. Rates pass the map, so that the GEMM has one tap and stays small, and
are many, so that their results are not; a pixel is the weight times itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..limit import Limit, zeros_but_ends

# 17 rates of 2^27 pixels and some.
H, W = 11587, 11586
FAR = [2**30 - 1] * 17
Call = Callable[[], Tensor]
raw = torch.ops.fastseg


def _weight() -> Tensor:
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1
    return weight


def _convolved() -> Tensor:
    result: Tensor = raw.ksac_conv2d(zeros_but_ends(1, 1, 1, H, W), _weight(), FAR, None, None, True, "relu")
    return result


def _responses() -> Tensor:
    result: Tensor = raw.ksac_responses(zeros_but_ends(1, 1, 1, H, W), _weight(), FAR)
    return result


def _maps(last: bool) -> Tensor:
    """Of all rates, that are zero but at their ends."""
    x = zeros_but_ends(1, 17 * H * W).view((1, H, W, 17) if last else (1, 17, H, W))
    return x.permute(0, 3, 1, 2) if last else x


def _input(last: bool) -> Call:
    """The first pixel has a gradient from the first rate, the last one from the last."""
    return lambda: raw.ksac_responses_input(_maps(last), _weight(), FAR)


def _weights() -> Tensor:
    result: Tensor = raw.ksac_responses_weight(_maps(False), zeros_but_ends(1, 1, 1, H, W), FAR)
    return result[:, :, 1, 1]


def _fused(last: bool, concat: bool) -> Call:
    return lambda: raw.ksac_fuse(_maps(last), None, None, 17, concat, "relu")


def _unfused(last: bool, concat: bool) -> Call:
    """Of an upstream gradient of 1 at the ends, where the terms are 1."""

    def call() -> Tensor:
        grad = _maps(last) if concat else zeros_but_ends(1, 1, 1, H, W)
        result: Tensor = raw.ksac_fuse_backward(grad, _maps(last), None, None, 17, concat, "relu")[0]
        return result

    return call


LIMITS = (
    Limit("ksac_conv2d", "results", _convolved, 1, 1),
    Limit("ksac_responses", "results", _responses, 1, 1),
    Limit("ksac_responses_input", "gradients", _input(False), 1, 1),
    Limit("ksac_responses_input", "gradients: channels_last", _input(True), 1, 1),
    Limit("ksac_responses_weight", "gradients", _weights, 2, 2),
    *(
        limit
        for last, name in ((False, "terms"), (True, "terms: channels_last"))
        for limit in (
            Limit("ksac_fuse", name, _fused(last, concat=False), 1, 1),
            Limit("ksac_fuse", f"{name} and results", _fused(last, concat=True), 1, 1),
            Limit("ksac_fuse_backward", name, _unfused(last, concat=False), 1, 1),
            Limit("ksac_fuse_backward", f"{name} and results", _unfused(last, concat=True), 1, 1),
        )
    ),
)
