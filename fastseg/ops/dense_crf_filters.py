"""Dense CRF: filters with Gaussian kernels of features."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare
from ..reference import dense_crf_filters as reference
from ..reference.dense_crf_lattice import NORMALIZATIONS, TRANSPOSED
from ..reference.upsample import memory_format
from .arguments import brief, check_devices, checked_choice, checked_float, empty_images, is_differentiated

DTYPES = (torch.float32, torch.float64)
METHODS = ("exact", "lattice")


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

    Memory on a CPU: a point has d + 1 corners of 14 bytes (22 in float64). A vertex of a tile of 512 points, of which
    there are at most as many as corners, takes up to 96 bytes while the lattice is built, and a value of up to 32
    channels at a time; a vertex, of which there are no more than that, 12 (d + 1) bytes and one such value. On a GPU: a
    corner takes 8 (d + 1) + 96 bytes, and two values of each channel.
    Gradient: of `values`, by the transposed kernel, which blurs in the other order; once and again. The lattice is not
    differentiable in its features: `ValueError` where they require a gradient. Devices: CPU and CUDA compiled, others
    through the reference. Errors: `ValueError` naming the argument for a wrong shape, dtype or normalization,
    `RuntimeError` for features that are not finite, lie too far apart for keys of 62 bits, or beyond 2^40 cells of the
    lattice; on CUDA with FASTSEG_CHECK=1, and without it such a sample is NaN.

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


def gaussian_filter_2d(
    values: Tensor, sigma: float | tuple[float, float], *, normalization: str = "none", method: str = "exact"
) -> Tensor:
    r"""Filter maps with a Gaussian of the distance between pixels: the smoothness kernel of a dense CRF.

    .. math:: y_{nci} = \sum_j e^{-(y_i - y_j)^2 / 2 \sigma_y^2 - (x_i - x_j)^2 / 2 \sigma_x^2}\, v_{ncj}

    over the pixels j of the map, of which there are none beyond its edges.

    Args:
        values: [N, C, H, W], float32 or float64, of any strides.
        sigma: standard deviation in pixels, or those along y and along x.
        normalization: as in `permutohedral_filter`: "none", "before", "after" or "symmetric".
        method: "exact", two passes over the map; "lattice", what most CRF code has: `permutohedral_filter` of the
            coordinates over `sigma`.

    Returns:
        [N, C, H, W], dtype and memory format of `values`.

    Error: with "exact", weights below 2^-26 (2^-55 in float64) of the largest are left out, which is beyond 6.01 (8.74)
    deviations, or less than half an epsilon of the sum of weights.
    Memory: the result, and for each thread a row; on a GPU, one map more.
    Gradient: of `values`, by the transposed kernel; once and again. Devices: CPU and CUDA compiled, others through the
    reference. Errors: `ValueError` naming the argument for a wrong shape, dtype, deviation, normalization or method.

    Source: Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (arXiv
    1210.5644), equation 3.

    Example:
        >>> gaussian_filter_2d(torch.rand(1, 21, 65, 65), 3.0, normalization="symmetric").shape
        torch.Size([1, 21, 65, 65])
    """
    op = "gaussian_filter_2d"
    if not isinstance(values, Tensor) or values.dim() != 4 or values.dtype not in DTYPES:
        raise ValueError(f"fastseg::{op}: values must be float32 or float64 [N, C, H, W], got {brief(values)}")
    pair = list(sigma) if isinstance(sigma, Sequence) else [sigma, sigma]
    deviations = [checked_float(op, "sigma", x) for x in pair]
    if len(pair) != 2 or not all(0 < x < math.inf for x in deviations):
        raise ValueError(f"fastseg::{op}: sigma must be a positive number of pixels, or two, got {sigma!r}")
    mode = checked_choice(op, "normalization", normalization, NORMALIZATIONS)
    if checked_choice(op, "method", method, METHODS) == "lattice":
        at = reference.positions(values.shape[2:], values.new_tensor(deviations, dtype=torch.float64))
        features = at.to(values.dtype).expand(values.shape[0], -1, -1)
        filtered = permutohedral_filter(values.flatten(2), features, normalization=mode).view(values.shape)
        return filtered.contiguous(memory_format=memory_format(values))
    result: Tensor = call(op, values, deviations, mode)
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


def _save_sigma(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *ctx.rest = inputs


def _gaussian_backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    sigma, normalization = ctx.rest
    return ops.gaussian_filter_2d(grad, sigma, TRANSPOSED[normalization]), None, None


def _gaussian_flops(values: Any, sigma: Sequence[float], *_: Any, **__: Any) -> int:
    reaches = (min(math.ceil(6.01 * s), n - 1) for s, n in zip(sigma, values[2:], strict=True))
    return int(math.prod(values) * sum(2 * (2 * reach + 1) for reach in reaches))


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
declare(
    "gaussian_filter_2d(Tensor values, float[] sigma, str normalization) -> Tensor",
    reference=reference.gaussian_filter_2d,
    fake=lambda values, sigma, normalization: empty_images(values, values.shape, values.dtype),
    dtypes=DTYPES,
    setup_context=_save_sigma,
    backward=_gaussian_backward,
    autocast=torch.float32,
    per_sample=True,
    flops=_gaussian_flops,
)
