"""Confusion matrices from labels, or straight from logits at any resolution."""

import torch
from torch import Tensor

from .._registry import FLOATS, INTEGERS, call, declare
from ..reference import confusion as reference
from .arguments import (
    Size,
    brief,
    check_devices,
    checked_ignore_index,
    checked_maps,
    checked_size,
    checked_target,
    is_whole,
    widened,
)

MOST_CLASSES = 46340  # the kernels number the cells of the matrix with int32


def confusion_matrix(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    *,
    ignore_index: int | None = None,
    size: Size | None = None,
    align_corners: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    r"""Count how often each class is predicted as each other class.

    .. math:: M_{ij} \mathrel{+}= \#\{\, p : t_p = i,\; \hat t_p = j,\; t_p \ne \text{ignore} \,\}

    Args:
        prediction: labels [N, H, W] (integer), or logits [N, C, h, w] (floating) at any resolution: then the labels are
            `upsample_argmax(prediction, size)`, never stored.
        target: labels [N, H, W] of uint8, int8, int16, int32 or int64; of uint16 or uint32 by a wider copy.
        num_classes: C, at most 46340.
        ignore_index: pixels whose target is this count for nothing, whatever is predicted there. None is 255, unless
            that is a class: then it has to be given.
        size: size of the target, a check for logits; None takes it from the target.
        align_corners: as in `upsample_bilinear`.
        out: int64 [C, C] to add to; None makes a new one.

    Returns:
        int64 [C, C], rows the target, columns the prediction: `out` where it was given. Counts are exact.

    Gradient: none. Devices: CPU and CUDA compiled, others through the reference. Errors: a label outside [0, C) that is
    not ignored raises with the first one and its place, and `out` keeps what it had; on CUDA, which is not waited for,
    it fills `out` with the largest int64, and raises so under `FASTSEG_CHECK=1`, which waits.

    Example:
        >>> matrix = confusion_matrix(torch.randn(1, 19, 128, 256), torch.zeros(1, 1024, 2048, dtype=torch.uint8), 19)
        >>> matrix.sum()
        tensor(2097152)
    """
    name = "confusion_matrix"
    target = checked_target(name, target)
    if not is_whole(num_classes) or not 1 <= num_classes <= MOST_CLASSES:
        raise ValueError(f"fastseg::{name}: num_classes must be a number from 1 to {MOST_CLASSES}, got {num_classes!r}")
    ignore_index = checked_ignore_index(name, ignore_index, num_classes)
    if not isinstance(prediction, Tensor):
        raise ValueError(f"fastseg::{name}: prediction must be a tensor, got {brief(prediction)}")
    prediction = widened(prediction)
    if out is None:
        out = target.new_zeros((num_classes, num_classes), dtype=torch.int64)  # batched under vmap, as target is
    elif (
        not isinstance(out, Tensor)
        or out.shape != (num_classes, num_classes)
        or out.dtype != torch.int64
        or not out.is_contiguous()
    ):
        raise ValueError(f"fastseg::{name}: out must be contiguous int64 [{num_classes}, {num_classes}], "
                         f"got {brief(out)}")  # fmt: skip
    check_devices(name, target, prediction=prediction, out=out)
    if size is not None and checked_size(name, size) != tuple(target.shape[1:]):
        raise ValueError(f"fastseg::{name}: size must be that of target {list(target.shape[1:])}, got {size}")
    if prediction.is_floating_point():
        checked_maps(name, "prediction", prediction, target.shape[1:])
        if prediction.shape[:2] != (target.shape[0], num_classes):
            raise ValueError(f"fastseg::{name}: prediction must be logits [{target.shape[0]}, {num_classes}, h, w], "
                             f"got {brief(prediction)}")  # fmt: skip
        call("upsample_confusion_matrix", prediction, target, out, ignore_index, align_corners)
    elif prediction.dtype in INTEGERS and prediction.shape == target.shape:
        call("confusion_matrix", prediction, target, out, ignore_index)
    else:
        raise ValueError(f"fastseg::{name}: prediction must be integer labels {list(target.shape)} or floating logits, "
                         f"got {brief(prediction)}")  # fmt: skip
    return out


declare(
    "confusion_matrix(Tensor prediction, Tensor target, Tensor(a!) out, SymInt ignore_index) -> ()",
    reference=reference.confusion_matrix,
    fake=lambda *_: None,
    dtypes=INTEGERS,
)
declare(
    "upsample_confusion_matrix(Tensor logits, Tensor target, Tensor(a!) out, SymInt ignore_index, bool align_corners)"
    " -> ()",
    reference=reference.upsample_confusion_matrix,
    fake=lambda *_: None,
    dtypes=FLOATS,
    flops=lambda shape, target, *_, **__: 7 * shape[0] * shape[1] * target[1] * target[2],
)
