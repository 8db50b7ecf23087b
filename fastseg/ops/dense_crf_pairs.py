"""The Gaussian kernel of features, exactly: all pairs of points."""

from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, not_differentiable
from ..reference import dense_crf_filters as reference
from ..reference.dense_crf_lattice import EPSILON, NORMALIZATIONS
from .arguments import brief, check_devices, checked_choice

DTYPES = (torch.float32, torch.float64)


def gaussian_filter(values: Tensor, features: Tensor, *, normalization: str = "none") -> Tensor:
    r"""Filter values with a Gaussian kernel of their features, exactly: the sum over all pairs of points.

    .. math:: y_{ci} = \sum_j e^{-\|f_i - f_j\|^2 / 2}\, v_{cj}

    What `permutohedral_filter` approximates in O(P), here in O(P^2) but without the matrix [P, P]: for images of some
    10,000 pixels, and to see what the approximation is worth.

    Args:
        values: [N, C, P], float32 or float64.
        features: [N, d, P], d >= 1, each already divided by its standard deviation; dtype of `values`.
        normalization: with n = K 1, "none" for K, "before" for K diag(1/n), "after" for diag(1/n) K, "symmetric" for
            diag(n^-1/2) K diag(n^-1/2).

    Returns:
        [N, C, P], dtype of `values`.

    Gradient: of `values`, and of `features`; of `values` once and again. Devices: CPU and CUDA compiled, others through
    the reference. Errors: `ValueError` naming the argument for a wrong shape, dtype or normalization.

    Source: Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (arXiv
    1210.5644), equation 2.

    Example:
        >>> image = torch.rand(1, 3, 100)  # 100 pixels
        >>> gaussian_filter(torch.rand(1, 2, 100), image / 0.1, normalization="after").shape
        torch.Size([1, 2, 100])
    """
    op = "gaussian_filter"
    if not isinstance(values, Tensor) or values.dim() != 3 or values.dtype not in DTYPES:
        raise ValueError(f"fastseg::{op}: values must be float32 or float64 [N, C, P], got {brief(values)}")
    fits = isinstance(features, Tensor) and features.dim() == 3 and features.dtype == values.dtype
    if not fits or features.shape[::2] != values.shape[::2] or features.shape[1] < 1:
        rule = f"{values.dtype} [{values.shape[0]}, 1 or more, {values.shape[2]}]"
        raise ValueError(f"fastseg::{op}: features must be {rule}, got {brief(features)}")
    check_devices(op, values, features=features)
    mode = checked_choice(op, "normalization", normalization, NORMALIZATIONS)
    if mode == "none":
        result: Tensor = call(op, values, features)
        return result
    sums = call(op, torch.ones_like(values[:, :1]), features) + EPSILON
    factors = sums.rsqrt() if mode == "symmetric" else sums.reciprocal()
    result = call(op, values if mode == "after" else values * factors, features)
    return result if mode == "before" else result * factors


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    values, features = ctx.saved_tensors
    needs_values, needs_features = ctx.needs_input_grad
    return (
        ops.gaussian_filter(grad, features) if needs_values else None,
        ops.gaussian_filter_gradient(grad, values, features) if needs_features else None,
    )


def _flops(values: Any, features: Any, *_: Any, **__: Any) -> int:
    n, c, points = values
    return int(n * points * points * 2 * (c + features[1]))


declare(
    "gaussian_filter(Tensor values, Tensor features) -> Tensor",
    reference=reference.gaussian_filter,
    fake=lambda values, features: values.new_empty(values.shape),
    dtypes=DTYPES,
    setup_context=_save,
    backward=_backward,
    autocast=torch.float32,
    per_sample=True,
    flops=_flops,
)
declare(
    "gaussian_filter_gradient(Tensor grad, Tensor values, Tensor features) -> Tensor",
    reference=reference.gaussian_filter_gradient,
    fake=lambda grad, values, features: features.new_empty(features.shape),
    dtypes=DTYPES,
    per_sample=True,
    flops=lambda grad, values, features, **_: 2 * _flops(values, features),
    **not_differentiable("gaussian_filter_gradient"),
)
