"""Dense CRF: filters with Gaussian kernels of features."""

from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare
from ..reference import dense_crf as reference
from ..reference.dense_crf_lattice import NORMALIZATIONS
from .arguments import brief, check_devices, checked_choice, is_differentiated

DTYPES = (torch.float32, torch.float64)


def permutohedral_filter(values: Tensor, features: Tensor, *, normalization: str = "none") -> Tensor:
    r"""Filter values with a Gaussian kernel of their features, on the permutohedral lattice.

    .. math:: y_{ci} = \sum_j k(f_i, f_j)\, v_{cj}, \qquad k(f, g) \approx e^{-\|f - g\|^2 / 2}

    in O(P) instead of O(P^2): values are spread to the corners of the simplex around each point, blurred along the
    d + 1 axes of the lattice, and read where they came from. The kernel is as the standard code has it: of finite
    support, not quite symmetric, between 0.4 and 0.9 where the features are equal. Normalizing hides most of that.

    Args:
        values: [N, C, P], float32 or float64.
        features: [N, d, P], d from 1 to 8, finite, each already divided by its standard deviation; dtype of `values`.
        normalization: with n = K 1, "none" for K, "before" for K diag(1/n), "after" for diag(1/n) K, "symmetric" for
            diag(n^-1/2) K diag(n^-1/2).

    Returns:
        [N, C, P], dtype of `values`.

    Memory: d + 1 values of 6 bytes (10 in float64) a point, up to 40 (d + 1) bytes more while the lattice is built, and
    up to 32 channels of each vertex, of which there are at most P (d + 1).
    Gradient: of `values`, by the transposed kernel, which blurs in the other order; once and again. The lattice is not
    differentiable in its features: `ValueError` where they require a gradient. Devices: CPU compiled, others through
    the reference. Errors: `ValueError` naming the argument for a wrong shape, dtype or normalization, `RuntimeError`
    for features that are not finite or lie too far apart for keys of 62 bits.

    Source: Adams, Baek, Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", section 3;
    scale, blur and normalizations of Krähenbühl, Koltun 2011 (arXiv 1210.5644) and 2013.

    Example:
        >>> image = torch.rand(1, 3, 100)  # 100 pixels
        >>> permutohedral_filter(torch.rand(1, 2, 100), image / 0.1, normalization="after").shape
        torch.Size([1, 2, 100])
    """
    op = "permutohedral_filter"
    if not isinstance(values, Tensor) or values.dim() != 3 or values.dtype not in DTYPES:
        raise ValueError(f"fastseg::{op}: values must be float32 or float64 [N, C, P], got {brief(values)}")
    fits = isinstance(features, Tensor) and features.dim() == 3 and features.dtype == values.dtype
    if not fits or features.shape[::2] != values.shape[::2] or not 1 <= features.shape[1] <= 8:
        rule = f"{values.dtype} [{values.shape[0]}, 1 to 8, {values.shape[2]}]"
        raise ValueError(f"fastseg::{op}: features must be {rule}, got {brief(features)}")
    check_devices(op, values, features=features)
    if is_differentiated(features):
        raise ValueError(f"fastseg::{op}: features must not require a gradient, which the lattice has not, got "
                         f"{brief(features)} that does")  # fmt: skip
    mode = checked_choice(op, "normalization", normalization, NORMALIZATIONS)
    result: Tensor = call(op, values, features, mode, False)
    return result


def _fake(values: Tensor, features: Tensor, normalization: str, transposed: bool) -> Tensor:
    return values.new_empty(values.shape)


def _save_features(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, features, *ctx.rest = inputs
    ctx.save_for_backward(features)


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    normalization, transposed = ctx.rest
    (features,) = ctx.saved_tensors
    return ops.permutohedral_filter(grad, features, normalization, not transposed), None, None, None


def _flops(values: Any, features: Any, *_: Any, **__: Any) -> int:
    n, c, points = values
    return int(4 * n * c * points * (features[1] + 1))


declare(
    "permutohedral_filter(Tensor values, Tensor features, str normalization, bool transposed) -> Tensor",
    reference=reference.permutohedral_filter,
    fake=_fake,
    dtypes=DTYPES,
    setup_context=_save_features,
    backward=_backward,
    autocast=torch.float32,
    per_sample=True,
    flops=_flops,
)
