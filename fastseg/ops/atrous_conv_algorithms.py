"""Algorithms of a dense atrous convolution: their packed weights, what each needs, and which `auto` would take."""

from typing import Any

import torch
from torch import Tensor

from .. import _native
from .._registry import call, declare, not_differentiable
from ..reference import atrous_conv as reference
from .arguments import brief, checked_choice

POINTS = {"winograd2": 16, "winograd3": 25, "winograd4": 36, "toeplitz2": 9}
ALGORITHMS = ("auto", "direct", *POINTS)


def prepack_atrous_weight(weight: Tensor, algorithm: str) -> Tensor:
    r"""Transform a weight once for all calls with one of Winograd's algorithms.

    .. math:: u_{ij} = \sum_{ab} G_{ia} \, w_{ab} \, G_{jb}

    Args:
        weight: [K, C, 3, 3], float32; float64 too, through the reference, which no kernel takes.
        algorithm: `winograd2`, `winograd3`, `winograd4` or `toeplitz2`.

    Returns:
        [P, C, K] in the dtype of the weight, of P = 16, 25, 36 or 9 products, for `atrous_conv2d(..., packed=...)`:
        P / 9 times the weight's memory.

    Gradient: none; training does without. Devices: CPU compiled, others through the reference.

    Raises:
        ValueError: an argument does not fit.

    Example:
        >>> prepack_atrous_weight(torch.randn(64, 256, 3, 3), "winograd3").shape
        torch.Size([25, 256, 64])
    """
    op = "prepack_atrous_weight"
    checked_choice(op, "algorithm", algorithm, POINTS)
    if (
        not isinstance(weight, Tensor)
        or weight.dtype not in (torch.float32, torch.float64)
        or weight.shape[2:] != (3, 3)
        or not weight.numel()
    ):
        raise ValueError(f"fastseg::{op}: weight must be float32 or float64 of anyxanyx3x3, got {brief(weight)}")
    return call(op, weight.detach(), algorithm)


def packed_algorithm(x: Tensor, weight: Tensor, dilation: tuple[int, int]) -> str:
    """What `auto` would take for a 3x3 weight, at stride 1 and padding 'same', that is packed for it."""
    if not _native.loaded or x.device.type != "cpu" or x.dtype != torch.float32 or weight.shape[2:] != (3, 3):
        return "direct"
    return str(torch.ops.fastseg._atrous_algorithm(x.shape, weight.shape[0], dilation))


def check_packed(op: str, packed: Tensor | None, weight: Tensor, algorithm: str) -> None:
    shapes = [[n, weight.shape[1], weight.shape[0]] for name, n in POINTS.items() if algorithm in (name, "auto")]
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    fits = isinstance(packed, Tensor) and packed.dtype == dtype and list(packed.shape) in shapes
    if packed is not None and not fits:
        rule = f"{dtype} " + " or ".join(map(str, shapes)) if shapes else "None"
        raise ValueError(f"fastseg::{op}: packed must be {rule} for algorithm {algorithm}, got {brief(packed)}")


def check_tiled(op: str, algorithm: str, x: Tensor, weight: Tensor, size: tuple[int, int], steps: Any) -> None:
    """What the algorithm needs, which the map does not have by chance: an explicit choice never falls back."""
    stride, padding, dilation, groups = steps
    if x.dtype not in (torch.float32, torch.float64) or weight.shape[2:] != (3, 3) or stride != (1, 1) or groups != 1:
        got = f"{x.dtype}, {weight.shape[2]}x{weight.shape[3]} taps, stride {stride} and {groups} groups"
        raise ValueError(
            f"fastseg::{op}: algorithm {algorithm} must have float32 maps, 3x3 taps, stride 1 and one group, got {got}"
        )
    if algorithm == "toeplitz2" and (
        padding != dilation or any(n > 2 * d for n, d in zip(size, dilation, strict=True))
    ):
        got = f"{size[0]}x{size[1]} at rate {dilation} and padding {padding}"
        raise ValueError(
            f"fastseg::{op}: algorithm toeplitz2 must have padding 'same' and at most twice the rate a side, got {got}"
        )


def check_trainable(op: str, algorithm: str) -> None:
    if algorithm not in ("auto", "direct"):
        raise ValueError(f"fastseg::{op}: algorithm must be auto or direct where a gradient is needed, got {algorithm}")


declare(
    "prepack_atrous_weight(Tensor weight, str algorithm) -> Tensor",
    reference=reference.prepack_atrous_weight,
    fake=lambda weight, algorithm: weight.new_empty((POINTS[algorithm], weight.shape[1], weight.shape[0])),
    **not_differentiable("prepack_atrous_weight"),
    dtypes=(torch.float32,),
)
