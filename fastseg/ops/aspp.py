"""Atrous spatial pyramid pooling, the head of DeepLab, in one op."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, lowering, not_differentiable
from ..reference import aspp as reference
from .arguments import (
    brief,
    check_devices,
    check_map,
    check_table,
    check_vectors,
    check_weight,
    empty_images,
    is_differentiated,
    is_whole,
    under_autocast,
)
from .atrous_conv import atrous_conv2d
from .atrous_conv_algorithms import check_packed


def aspp_conv2d(
    x: Tensor,
    pointwise_weight: Tensor,
    branch_weights: Sequence[Tensor],
    rates: Sequence[int],
    pool_weight: Tensor | None,
    project_weight: Tensor,
    *,
    branch_scale: Tensor | None = None,
    branch_shift: Tensor | None = None,
    project_scale: Tensor | None = None,
    project_shift: Tensor | None = None,
    pooled: Tensor | None = None,
    packed: Sequence[Tensor] = (),
) -> Tensor:
    r"""All branches of atrous spatial pyramid pooling and their projection.

    .. math:: b_i = \mathrm{relu}(s_i \, (w_i *_{r_i} x) + t_i), \qquad
        y = \mathrm{relu}(s \sum_i P_i \, b_i + t)

    with a 1x1 convolution as branch 0, a 3x3 convolution for each rate, and the 1x1 convolution of the image's mean,
    which is the same at all pixels, as the last branch. :math:`P_i` are the columns of the projection that belong to a
    branch: torchvision's order of concatenation.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, NCHW or channels_last; zero outside of the map.
        pointwise_weight: [B, C, 1, 1] in the dtype of x, as all weights.
        branch_weights: [B, C, 3, 3] for each rate.
        rates: atrous rates, whole numbers of at least 1; (6, 12, 18) at output stride 16, twice that at 8.
        pool_weight: [B, C, 1, 1] of the image pool, or None for a head without.
        project_weight: [K, (R + 2) B, 1, 1], one B less without image pool.
        branch_scale: s_i [R + 2, B], of batch norms in eval mode, say; in any floating dtype.
        branch_shift: t_i [R + 2, B].
        project_scale: s [K].
        project_shift: t [K].
        pooled: [N, C], taken in place of the mean of x: of a whole image, where x is a tile of it.
        packed: `prepack_atrous_weight(weight, ...)` of each branch weight; an empty tensor where there is none.

    Returns:
        [N, K, H, W] in the dtype and the memory format of x; half precision is computed in float32 and rounded once.

    Memory: one branch's map at a time beside the result, and what `atrous_conv2d` takes; the maps are not concatenated.
    Gradient: in every floating argument, and again, of the same in convolutions that autograd records, with the memory
    of those; `packed` is not used then. Devices: CPU compiled, others through the reference.

    Raises:
        ValueError: an argument does not fit.

    Source: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation" (arXiv 1706.05587),
    section 3.3.

    Example:
        >>> x, point, pool = torch.randn(1, 64, 33, 33), torch.randn(16, 64, 1, 1), torch.randn(16, 64, 1, 1)
        >>> branches = [torch.randn(16, 64, 3, 3) for _ in range(3)]
        >>> aspp_conv2d(x, point, branches, (6, 12, 18), pool, torch.randn(16, 80, 1, 1)).shape
        torch.Size([1, 16, 33, 33])
    """
    op = "aspp_conv2d"
    check_map(op, "x", x)
    channels = x.shape[1]
    check_weight(op, "pointwise_weight", pointwise_weight, x, (None, channels, 1, 1))
    width = pointwise_weight.shape[0]
    if not isinstance(rates, Sequence) or not all(is_whole(r) and 1 <= r < 2**30 for r in rates):
        raise ValueError(f"fastseg::{op}: rates must be whole numbers of at least 1, got {rates!r}")
    if not isinstance(branch_weights, list | tuple) or len(branch_weights) != len(rates):
        raise ValueError(
            f"fastseg::{op}: branch_weights must be as many as rates, got "
            f"{len(branch_weights) if isinstance(branch_weights, list | tuple) else brief(branch_weights)} for {rates}"
        )
    for weight in branch_weights:
        check_weight(op, "branch_weights", weight, x, (width, channels, 3, 3))
    if pool_weight is not None:
        check_weight(op, "pool_weight", pool_weight, x, (width, channels, 1, 1))
    parts = len(rates) + 1 + (pool_weight is not None)
    check_weight(op, "project_weight", project_weight, x, (None, parts * width, 1, 1))
    for argument, table in (("branch_scale", branch_scale), ("branch_shift", branch_shift)):
        check_table(op, argument, table, (parts, width))
    check_vectors(op, project_weight.shape[0], project_scale=project_scale, project_shift=project_shift)
    check_table(op, "pooled", pooled, (x.shape[0], channels))
    if not isinstance(packed, list | tuple) or len(packed) not in (0, len(rates)):
        got = len(packed) if isinstance(packed, list | tuple) else brief(packed)
        raise ValueError(f"fastseg::{op}: packed must be as many as rates or none, got {got} for {rates}")
    for one, weight in zip(packed, branch_weights, strict=False):
        if not isinstance(one, Tensor) or one.numel():
            check_packed(op, one, weight, "auto")
    weights = {"pointwise_weight": pointwise_weight, "pool_weight": pool_weight, "project_weight": project_weight}
    tables = {"branch_scale": branch_scale, "branch_shift": branch_shift}
    vectors = {"project_scale": project_scale, "project_shift": project_shift, "pooled": pooled}
    lists = {"branch_weights": branch_weights, "packed": packed}
    listed = {f"{name}[{i}]": t for name, given in lists.items() for i, t in enumerate(given)}
    check_devices(op, x, **weights, **tables, **vectors, **listed)
    trained = is_differentiated(x, *weights.values(), *tables.values(), *vectors.values(), *branch_weights)
    ready = [] if under_autocast(x) else list(packed)
    rest = (
        pointwise_weight, list(branch_weights), ready, list(rates), pool_weight, project_weight,
        *tables.values(), *vectors.values(),
    )  # fmt: skip
    return _composed(x, *rest) if trained else call(op, x, *rest)


def _composed(*args: Any) -> Tensor:
    """The op by convolutions that autograd records; in half precision as the op, under autocast too."""
    composed = partial(reference.aspp_conv2d, convolve=_convolved)
    device = args[0].device.type
    if not under_autocast(args[0]):
        return composed(*args)
    with torch.autocast(device, enabled=False):
        return composed(*map(lowering(device), args))


def _convolved(x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return atrous_conv2d(x, weight, algorithm="direct", **options)


def _flops(x: Any, pointwise: Any, branches: Any, *rest: Any, out_shape: Any = None, **_: Any) -> int:
    pixels, width = x[0] * x[2] * x[3], pointwise[0]
    taps = 1 + 9 * len(branches)
    return int(2 * pixels * width * (x[1] * taps + out_shape[1] * (1 + len(branches))))


declare(
    "aspp_conv2d(Tensor x, Tensor pointwise_weight, Tensor[] branch_weights, Tensor[] packed, SymInt[] rates,"
    " Tensor? pool_weight, Tensor project_weight, Tensor? branch_scale, Tensor? branch_shift, Tensor? project_scale,"
    " Tensor? project_shift, Tensor? pooled) -> Tensor",
    reference=reference.aspp_conv2d,
    fake=lambda x, pointwise, branches, packed, rates, pool, project, *_: empty_images(
        x, (x.shape[0], project.shape[0], *x.shape[2:]), x.dtype
    ),
    **not_differentiable("aspp_conv2d"),
    autocast="lower",
    flops=_flops,
)
