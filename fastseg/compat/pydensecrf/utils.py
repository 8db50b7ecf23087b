"""Unary energies from labels and probabilities, and features for pairwise energies: `pydensecrf.utils`."""

from collections.abc import Sequence
from logging import warning
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def unary_from_labels(labels: Array, n_labels: int, gt_prob: float, zero_unsure: bool = True) -> Array:
    """Energies float32 [n_labels, pixels] of labels that are right with a probability of `gt_prob`.

    With `zero_unsure`, label 0 is any of the `n_labels`, which count from 1; without, it is one of them.
    """
    assert 0 < gt_prob < 1, "`gt_prob must be in (0,1)."
    flat = np.asarray(labels).ravel()
    energies = np.full((n_labels, flat.size), -np.log((1 - gt_prob) / (n_labels - 1)), np.float32)
    energies[flat - 1 if zero_unsure else flat, np.arange(flat.size)] = -np.log(gt_prob)
    if zero_unsure:
        energies[:, flat == 0] = -np.log(1 / n_labels)
    return energies


def unary_from_softmax(sm: Array, scale: float | None = None, clip: float | None = 1e-5) -> Array:
    """Energies float32 [classes, pixels] of probabilities [classes, ...]: minus their logarithms.

    `scale` mixes them with the uniform distribution, which has the rest of the weight; `clip` is the least probability.
    """
    if scale is not None:
        assert 0 < scale <= 1, "`scale` needs to be in (0,1]"
        sm = scale * sm + (1 - scale) / len(sm)
    if clip is not None:
        sm = np.clip(sm, clip, 1)
    energies: Array = -np.log(sm).reshape(len(sm), -1)
    return energies.astype(np.float32)


def compute_unary(labels: Array, M: int, GT_PROB: float = 0.5) -> Array:
    """Deprecated: `unary_from_labels`."""
    warning("pydensecrf.compute_unary is deprecated, use unary_from_labels instead.")
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: Array, GT_PROB: float = 1) -> Array:
    """Deprecated: `unary_from_softmax`."""
    warning("pydensecrf.softmax_to_unary is deprecated, use unary_from_softmax instead.")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> Array:
    """Features float32 [dimensions, pixels] of the smoothness kernel: coordinates over `sdims`, rows first."""
    mesh = np.array(np.meshgrid(*map(range, shape), indexing="ij"), np.float32)
    for axis, deviation in zip(mesh, sdims, strict=False):
        axis /= deviation
    return mesh.reshape(len(sdims), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: Array, chdim: int = -1
) -> Array:
    """Features float32 [dimensions + channels, pixels] of the appearance kernel.

    `schan` are the deviations of the channels, which are dimension `chdim` of the image; -1 where it has one and no
    dimension for it.
    """
    looks = (img[None] if chdim == -1 else np.moveaxis(img, chdim, 0)).astype(np.float32)
    deviations = [schan] * len(looks) if isinstance(schan, Real) else schan
    for channel, deviation in zip(looks, deviations, strict=False):  # type: ignore[arg-type]
        channel /= deviation
    mesh = create_pairwise_gaussian([1] * (looks.ndim - 1), looks.shape[1:])
    for axis, deviation in zip(mesh, sdims, strict=False):
        axis /= deviation
    return np.concatenate([mesh, looks.reshape(len(looks), -1)])
