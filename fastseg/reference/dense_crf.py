"""Dense CRF mean field in plain PyTorch.

Source: Krähenbühl, Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials" (arXiv
1210.5644), algorithm 1; normalizations of Krähenbühl, Koltun 2013, "Parameter Learning and Convergent Inference for
Dense Random Fields".
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .dense_crf_filters import Filter, exact, gaussian, normalized, on_lattice, positions
from .dense_crf_lattice import diagonal, lattice
from .upsample import memory_format


def mean_field(unary: Tensor, kernels: Sequence[Filter], compatibility: Tensor, iterations: int) -> Tensor:
    """Energies [C, P], and a matrix [C, C] for each kernel -> the logits [C, P] after some iterations."""
    logits = -unary
    for _ in range(iterations):
        q = logits.softmax(0)
        messages = [table @ apply(q) for apply, table in zip(kernels, compatibility, strict=True)]
        logits = -unary - sum(messages, torch.zeros_like(unary))
    return logits


def dense_crf(
    unary: Tensor,
    features: Tensor,
    sigma: Sequence[float],
    compatibility: Tensor,
    iterations: int,
    normalization: str,
    include_self: bool,
    spatial: str,
    bilateral: str,
    output: str,
) -> Tensor:
    """unary [N, C, ...], features [N, d, ...] of the bilateral kernel, sigma of each axis in pixels, compatibility
    [2, C, C] of both kernels -> logits or probabilities [N, C, ...], or labels [N, ...]."""
    size, logits = unary.shape[2:], []
    deviations = torch.tensor(sigma, dtype=torch.float64, device=unary.device)
    for u, f in zip(unary.flatten(2), features.flatten(2), strict=True):
        if bilateral == "exact" and not f.isfinite().all():
            raise RuntimeError("fastseg::dense_crf: image must be finite, got NaN or infinity")
        kernels: list[Filter] = []
        places = positions(size, deviations).to(f.dtype)
        for argument, of, method in (("spatial_sigma", places, spatial), ("image", f, bilateral)):
            on = lattice(of, "dense_crf", argument) if method == "lattice" else None
            kernel = on_lattice(on) if on else gaussian(size, deviations) if not kernels else exact(of)
            selves = None if include_self else diagonal(on).to(u.dtype) if on else torch.ones_like(u[0])
            kernels.append(normalized(kernel, normalization, u, diagonal=selves))
        logits.append(mean_field(u, kernels, compatibility, iterations))
    result = (torch.stack(logits) if logits else -unary.flatten(2)).reshape(unary.shape)
    if output == "labels":
        return result.argmax(1)
    result = result.softmax(1) if output == "probabilities" else result
    return result if len(size) == 3 else result.contiguous(memory_format=memory_format(unary))
