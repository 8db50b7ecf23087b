"""Fully connected CRF: mean-field inference with Gaussian edge potentials."""

import math
from typing import Any

import torch
from torch import Tensor

from .._registry import call, declare, wanted_backend
from ..reference import dense_crf as reference
from .arguments import (
    brief,
    check_devices,
    empty_images,
    is_differentiated,
    is_readable,
    under_autocast,
    without_autocast,
)
from .dense_crf_arguments import Numbers, checked_modes, compatibilities_of, deviations_of, floats_of
from .dense_crf_field import gradients, kernels_of, mean_field, through_softmax

DTYPES = (torch.float32, torch.float64)


def dense_crf(
    unary: Tensor,
    image: Tensor,
    *,
    iterations: int = 5,
    spatial_sigma: Numbers = 3.0,
    spatial_weight: float | Tensor = 3.0,
    bilateral_sigma_xy: Numbers = 80.0,
    bilateral_sigma_color: Numbers = 13.0,
    bilateral_weight: float | Tensor = 10.0,
    compatibility: float | Tensor | None = None,
    normalization: str = "symmetric",
    include_self: bool = True,
    spatial: str = "exact",
    bilateral: str = "lattice",
    output: str = "probabilities",
    recompute: bool = True,
) -> Tensor:
    r"""Refine label scores with a fully connected CRF: smooth in space, and along the edges of an image.

    .. math::
        Q^0 = \mathrm{softmax}(-U), \qquad
        Q^{t+1} = \mathrm{softmax}\Bigl(-U - \sum_k w_k\, \mu\, \hat K_k Q^t\Bigr)

    with the kernels :math:`K_{ij} = e^{-|x_i - x_j|^2 / 2 \sigma^2}` of distances in pixels, and
    :math:`e^{-|x_i - x_j|^2 / 2 \sigma_{xy}^2 - |I_i - I_j|^2 / 2 \sigma_c^2}` of distances and colours.

    Args:
        unary: energies [N, C, H, W] or [N, C, D, H, W], float32 or float64, or any under autocast: minus the
            logarithms of probabilities. Logits of a network are minus unaries.
        image: [N, F, ...] of the same size, any dtype, range and number of channels.
        iterations: of mean field, from 0 on.
        spatial_sigma: deviation in pixels, or one for each axis (y, x), as numbers or a tensor, whose numbers the host
            waits for unless they are differentiated; from 1e-30 on. Here and below a tensor may require a gradient
            where that exists; whether its numbers are right is looked at on a CPU only.
        spatial_weight: of the smoothness kernel; a number, or a tensor [] or [C], a weight for messages of each label.
        bilateral_sigma_xy: deviation in pixels, or one for each axis.
        bilateral_sigma_color: deviation in units of the image, or one for each channel.
        bilateral_weight: of the appearance kernel, as `spatial_weight`.
        compatibility: of labels, times both weights. None or a number s: Potts, labels that agree gain s (1); [C]: a
            gain for each label; [C, C]: the matrix :math:`\mu` itself, energies of row label next to column label, so
            that Potts is -1 on the diagonal.
        normalization: of both kernels by their sums of rows, as in `permutohedral_filter`.
        include_self: whether a pixel counts among its neighbours, as in nearly all code. Without, the diagonals of the
            kernels are zero before they are normalized, as in the paper.
        spatial: "exact", a filter along each axis; "lattice", what most CRF code has.
        bilateral: "lattice", in O(P); "exact", in O(P^2), for some 10,000 pixels.
        output: "probabilities"; "logits", before the last softmax; "labels", int64 [N, ...].
        recompute: whether the backward pass repeats the iterations, or finds all they made in memory, which is some 6
            maps of the size of `unary` each, as it does anyway where deviations or the image are differentiated, and
            where `torch.compile` meets a `spatial_sigma` in a tensor.

    Returns:
        [N, C, ...], dtype of `unary`; or the labels.

    Memory on a CPU: 4 maps of the size of `unary`, and of one sample at a time 22 bytes (30 in float64) for each corner
    of the lattice, of which a pixel has as many as there are axes and channels and one more. On a GPU: 5 maps, and of
    all samples for each corner two values of each label and 8 (corners of a pixel) + 96 bytes.
    Accuracy: the smoothness kernel leaves out weights below 2^-18 (2^-55 in float64) of the largest, 6e-7 of their sum.
    Q of float32 is within 1e-4 of that of float64 on images of noise; with `include_self=False`, where differences of
    nearly equal sums are taken, within 2e-3. A NaN among the energies reaches the pixels that these weights reach.
    Gradient: of `unary`, weights and `compatibility`; of `image` and the deviations where their kernel is exact. The
    lattice is not differentiable in these: `ValueError`. Devices: CPU and CUDA compiled, others through the reference.
    Errors: `ValueError` naming the argument for a wrong shape, dtype or value, `RuntimeError` where the image is not
    finite, spans more than keys of 62 bits can tell apart, or has values beyond 2^40 cells of the lattice; on CUDA with
    FASTSEG_CHECK=1, and without it such a sample is NaN.

    Source: Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (arXiv
    1210.5644), algorithm 1; normalizations of Krähenbühl, Koltun 2013, "Parameter Learning and Convergent Inference for
    Dense Random Fields".

    Example:
        >>> logits, image = torch.rand(1, 21, 65, 65), torch.rand(1, 3, 65, 65) * 255
        >>> dense_crf(-logits, image, iterations=10, output="labels").shape
        torch.Size([1, 65, 65])
    """
    op = "dense_crf"
    if isinstance(unary, Tensor) and unary.dtype in (torch.bfloat16, torch.float16) and under_autocast(unary):
        unary = unary.float()
    if not isinstance(unary, Tensor) or unary.dim() not in (4, 5) or unary.dtype not in DTYPES or not unary.shape[1]:
        raise ValueError(f"fastseg::{op}: unary must be float32 or float64 [N, C, H, W] or [N, C, D, H, W], C >= 1, "
                         f"got {brief(unary)}")  # fmt: skip
    n, labels, *size = unary.shape
    fits = isinstance(image, Tensor) and image.dim() == unary.dim() and not image.is_complex()
    if not fits or (image.shape[0], *image.shape[2:]) != (n, *size):
        raise ValueError(f"fastseg::{op}: image must be [{n}, F, {', '.join(map(str, size))}], got {brief(image)}")
    check_devices(op, unary, image=image)
    modes = checked_modes(op, iterations, output, normalization, include_self, spatial, bilateral)
    sigma = deviations_of(op, "spatial_sigma", spatial_sigma, len(size), unary)
    sigma_xy = deviations_of(op, "bilateral_sigma_xy", bilateral_sigma_xy, len(size), unary)
    sigma_color = deviations_of(op, "bilateral_sigma_color", bilateral_sigma_color, image.shape[1], unary)
    if bilateral == "lattice" and len(size) + image.shape[1] > 8:
        raise ValueError(f"fastseg::{op}: image must have at most {8 - len(size)} channels on the lattice, got "
                         f"{brief(image)}")  # fmt: skip
    looks_like = {"image": image, "bilateral_sigma_xy": sigma_xy, "bilateral_sigma_color": sigma_color}
    for method, parts in ((spatial, {"spatial_sigma": sigma}), (bilateral, looks_like)):
        for argument, tensor in parts.items():
            if method == "lattice" and is_differentiated(tensor):
                raise ValueError(f"fastseg::{op}: {argument} must not require a gradient where its kernel is 'lattice',"
                                 f" got one that does: 'exact' has a gradient")  # fmt: skip
    tables = compatibilities_of(op, compatibility, (spatial_weight, bilateral_weight), labels, unary)
    axes = [torch.arange(extent, dtype=torch.float64, device=unary.device) for extent in size]
    places = [
        (at / deviation).to(unary.dtype).view([-1 if i == axis else 1 for i in range(len(size))]).expand(n, 1, *size)
        for axis, (at, deviation) in enumerate(zip(axes, sigma_xy, strict=True))
    ]
    looks = image.to(unary.dtype) / sigma_color.to(unary.dtype).view(-1, *[1] * len(size))
    features = torch.cat([*reversed(places), looks], 1)
    traced = isinstance(spatial_sigma, Tensor) and torch.compiler.is_compiling()  # its numbers are not known yet
    apart = is_differentiated(features, sigma) or (not recompute and is_differentiated(unary, tables))
    if traced or (apart and output != "labels"):  # which have no gradient
        if is_readable(features) and not features.isfinite().all():
            raise RuntimeError(f"fastseg::{op}: image must be finite, got NaN or infinity")
        ops = torch.ops.fastseg_reference if wanted_backend() == "reference" else torch.ops.fastseg
        floats = sigma if traced or is_differentiated(sigma) else floats_of(spatial_sigma, len(size))
        with without_autocast(unary):
            kernels = kernels_of(ops, features, floats, *modes)
            logits = mean_field(unary.flatten(2), kernels, tables, iterations)[0].view(unary.shape)
        if output == "labels":
            return logits.argmax(1)
        return logits.softmax(1) if output == "probabilities" else logits
    floats = floats_of(spatial_sigma, len(size))
    result: Tensor = call(op, unary, features, floats, tables, iterations, *modes, output)
    return result


def _fake(unary: Tensor, *args: Any) -> Tensor:
    if args[-1] == "labels":
        return unary.new_empty((unary.shape[0], *unary.shape[2:]), dtype=torch.long)
    return unary.new_empty(unary.shape) if unary.dim() == 5 else empty_images(unary, unary.shape, unary.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    unary, features, ctx.sigma, tables, ctx.iterations, *ctx.modes, ctx.output = inputs
    ctx.save_for_backward(unary, features, tables)
    if ctx.output == "labels":
        ctx.mark_non_differentiable(output)


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    unary, features, tables = ctx.saved_tensors
    with without_autocast(unary):
        kernels = kernels_of(ops, features, ctx.sigma, *ctx.modes)
        logits, steps = mean_field(unary.flatten(2), kernels, tables, ctx.iterations)
        grad = grad.flatten(2)
        if ctx.output == "probabilities":
            grad = through_softmax(logits.softmax(1), grad)
        energies, compatibilities = gradients(grad, kernels, tables, steps)
    return energies.view(unary.shape), None, None, compatibilities, *[None] * 6


def _flops(unary: Any, features: Any, sigma: Any, tables: Any, iterations: int, *_: Any, **__: Any) -> int:
    corners, reach = features[1] + 1, sum(4 * math.ceil(5 * x) + 2 for x in sigma)
    return int(math.prod(unary) * iterations * (4 * corners + reach + 10))


declare(
    "dense_crf(Tensor unary, Tensor features, float[] sigma, Tensor compatibility, int iterations, str normalization, "
    "bool include_self, str spatial, str bilateral, str output) -> Tensor",
    reference=reference.dense_crf,
    fake=_fake,
    dtypes=DTYPES,
    setup_context=_save,
    backward=_backward,
    autocast=torch.float32,
    per_sample=("unary", "features"),
    flops=_flops,
)
