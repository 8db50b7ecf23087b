"""Dense CRFs of one image: `pydensecrf.densecrf`, on several threads.

Numbers are those of pydensecrf to 1e-5 in the logits: the lattice for every kernel, in float32. Matrices are NumPy
arrays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastseg._registry import call
from fastseg.ops.dense_crf_arguments import LEAST
from fastseg.ops.dense_crf_lattice import PermutohedralLattice
from fastseg.reference.dense_crf_filters import positions
from fastseg.reference.dense_crf_lattice import NORMALIZATIONS

Array = NDArray[np.float32]


class NormalizationType(IntEnum):
    """How a kernel is divided by its sums of rows."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


class KernelType(IntEnum):
    """What is learned of the features of a kernel, which inference does not depend on."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType
CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType


class Unary:
    """Energies [labels, variables]."""

    def __init__(self, energies: Array) -> None:
        self.energies = energies


class ConstUnary(Unary):
    """Energies as they are given."""

    def __init__(self, u: Array) -> None:
        super().__init__(_floats(u, 2))


class LogisticUnary(Unary):
    """Energies that are products of a matrix L [labels, F] and features f [F, variables]."""

    def __init__(self, L: Array, f: Array) -> None:
        super().__init__(_floats(L, 2) @ _floats(f, 2))


@dataclass
class _Energy:
    features: Tensor  # [d, variables]
    table: Tensor  # [labels, labels], what is added to the energies
    normalization: str
    sigma: tuple[float, float] | None = None  # along y and x, where the features are those of pixels

    @cached_property
    def lattice(self) -> PermutohedralLattice:
        return PermutohedralLattice(self.features[None])

    def __call__(self, q: Tensor) -> Tensor:
        return self.table @ self.lattice.filter(q[None], normalization=self.normalization)[0]


class DenseCRF:
    """A fully connected CRF of `nvar` variables with `nlabels` labels each.

    Energies are float32 [nlabels, nvar] and C-contiguous, or it raises `ValueError`. A compatibility is a number w,
    Potts: labels that agree gain w; a vector, added to the energy of labels that agree; or a matrix, whose symmetric
    part is added to the energies of pairs.
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        self._nvar, self._nlabel = nvar, nlabels
        self._unary = torch.zeros(nlabels, nvar)
        self._pairwise: list[_Energy] = []

    def addPairwiseEnergy(
        self,
        features: Array,
        compat: float | Array,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel of features float32 [d, nvar], each divided by its standard deviation."""
        features = _floats(features, 2)
        if features.shape[1] != self._nvar:
            raise ValueError(f"Bad shape for pairwise energy (Need (?, {self._nvar}), got {features.shape})")
        if not 1 <= len(features) <= 8:
            raise ValueError(f"fastseg::permutohedral_filter: features must have from 1 to 8 dimensions, got "
                             f"{len(features)}")  # fmt: skip
        self._add(torch.from_numpy(features.copy()), compat, kernel, normalization)

    def setUnary(self, u: Unary) -> None:
        """Set the energies of the labels."""
        self.setUnaryEnergy(u.energies)

    def setUnaryEnergy(self, u: Array, f: Array | None = None) -> None:
        """Set the energies of the labels: u [nlabels, nvar], or u f with u [nlabels, F] and f [F, nvar]."""
        energies = _floats(u, 2) if f is None else _floats(u, 2) @ _floats(f, 2)
        if energies.shape != (self._nlabel, self._nvar):
            need = self._nlabel, self._nvar
            raise ValueError(f"Bad shape for unary energy (Need {need}, got {energies.shape})")
        self._unary = torch.from_numpy(energies.copy())

    def inference(self, niter: int) -> Array:
        """Q [nlabels, nvar] after some iterations of mean field; before the first one, if `niter` is negative."""
        q, *rest = self.startInference()
        for _ in range(niter):
            self.stepInference(q, *rest)
        return q

    def startInference(self) -> tuple[Array, Array, Array]:
        """Q before any message, and two arrays that pydensecrf needs."""
        q: Array = (-self._unary).softmax(0).numpy()
        return q, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: Array, tmp1: Array | None = None, tmp2: Array | None = None) -> None:
        """One iteration of mean field, in place."""
        if np.shape(Q) != (self._nlabel, self._nvar):
            raise ValueError(f"Bad shape for Q (Need {(self._nlabel, self._nvar)}, got {np.shape(Q)})")
        q = torch.from_numpy(_writable(Q))
        logits = -self._unary
        for energy in self._pairwise:
            logits = logits - energy(q)
        torch.softmax(logits, 0, out=q)

    def klDivergence(self, Q: Array) -> float:
        """The divergence of Q from the CRF's distribution, up to a constant; as pydensecrf counts pairs."""
        q = torch.from_numpy(np.asarray(Q, np.float32))
        total = (q.double() * q.clamp(min=1e-20).log().double()).sum() + (self._unary.double() * q).sum()
        for energy in self._pairwise:
            total = total + (q.double() * energy(q)).sum()
        return float(total)

    def _add(
        self,
        features: Tensor,
        compat: float | Array,
        kernel: int,
        normalization: int,
        sigma: tuple[float, float] | None = None,
    ) -> None:
        KernelType(kernel)
        table = torch.from_numpy(_table(compat, self._nlabel))
        mode = NORMALIZATIONS[NormalizationType(normalization)]
        self._pairwise.append(_Energy(features, table, mode, sigma))


class DenseCRF2D(DenseCRF):
    """A fully connected CRF of the pixels of an image of width `w` and height `h`, row after row."""

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        super().__init__(w * h, nlabels)
        self._w, self._h = w, h

    def addPairwiseGaussian(
        self,
        sxy: float | Sequence[float],
        compat: float | Array,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the smoothness kernel; sxy are its deviations along x and y in pixels."""
        x, y = _deviations("sxy", sxy, 2)
        self._add(self._positions(sxy), compat, kernel, normalization, (y, x))

    def inference(self, niter: int) -> Array:
        """Q [nlabels, w h] after some iterations of mean field; of the two usual energies in one call."""
        pairs = sorted(self._pairwise, key=lambda energy: energy.sigma is None)
        alike = len(pairs) == 2 and pairs[0].normalization == pairs[1].normalization
        if not alike or pairs[0].sigma is None or pairs[1].sigma is not None:
            return super().inference(niter)
        unary, features = (x.view(1, -1, self._h, self._w) for x in (self._unary, pairs[1].features))
        tables = torch.stack([energy.table for energy in pairs])
        modes = pairs[0].normalization, True, "lattice", "lattice", "probabilities"
        q: Array = (
            call("dense_crf", unary, features, list(pairs[0].sigma), tables, max(niter, 0), *modes)[0]
            .flatten(1)
            .numpy()
        )
        return q

    def addPairwiseBilateral(
        self,
        sxy: float | Sequence[float],
        srgb: float | Sequence[float],
        rgbim: NDArray[np.uint8],
        compat: float | Array,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the appearance kernel of an image uint8 [h, w, 3]; srgb are the deviations of its channels."""
        image = _checked(rgbim, 3, np.dtype(np.uint8), "unsigned char")
        if image.shape[:2] != (self._h, self._w):
            need = self._h, self._w, 3
            raise ValueError(f"Bad shape for pairwise bilateral (Need {need}, got {image.shape})")
        if image.shape[2] != 3:
            raise ValueError(
                "addPairwiseBilateral only works for RGB images. For other types, use `utils.create_pairwise_bilateral`"
                " to construct your own pairwise energy and add it through `addPairwiseEnergy`."
            )
        deviations = torch.tensor(_deviations("srgb", srgb, 3), dtype=torch.float32)
        looks = torch.from_numpy(image.astype(np.float32)).view(-1, 3) / deviations
        self._add(torch.cat([self._positions(sxy), looks.T]), compat, kernel, normalization)

    def _positions(self, sxy: float | Sequence[float]) -> Tensor:
        x, y = _deviations("sxy", sxy, 2)
        return positions((self._h, self._w), torch.tensor([y, x], dtype=torch.float32))


def _deviations(argument: str, x: float | Sequence[float], n: int) -> list[float]:
    """Positive numbers, or one for all."""
    each = [x] * n if isinstance(x, Real | str) else list(x)  # type: ignore[arg-type]
    if len(each) != n or not all(isinstance(one, Real) and LEAST <= float(one) < math.inf for one in each):
        raise ValueError(
            f"fastseg::pydensecrf: {argument} must be a number of at least {LEAST}, or {n} of them, got {x!r}"
        )
    return [float(one) for one in each]


def _floats(x: Any, dims: int) -> Array:
    return _checked(x, dims, np.dtype(np.float32), "float")


def _writable(q: Any) -> Array:
    array = _floats(q, 2)
    if not array.flags.writeable:
        raise ValueError("buffer source array is read-only")
    return array


def _checked(x: Any, dims: int, dtype: "np.dtype[Any]", name: str) -> Any:
    """An array as pydensecrf takes it, or the errors that it has for others."""
    if x is None:
        raise TypeError("Argument must not be None")
    array = np.asarray(x)
    if array.ndim != dims:
        raise ValueError(f"Buffer has wrong number of dimensions (expected {dims}, got {array.ndim})")
    if array.dtype != dtype:
        raise ValueError(f"Buffer dtype mismatch, expected '{name}' but got {array.dtype.name!r}")
    if not array.flags.c_contiguous:
        raise ValueError("ndarray is not C-contiguous")
    return array


def _table(compat: float | Array, labels: int) -> Array:
    """What a compatibility adds to the energies, [labels, labels]."""
    if isinstance(compat, Real):
        return -float(compat) * np.eye(labels, dtype=np.float32)
    dims = np.ndim(compat)
    if dims not in (1, 2):
        raise ValueError("LabelCompatibility of dimension >2 not meaningful.")
    table = _floats(compat, dims)
    if table.shape != (labels,) * dims:
        raise ValueError(f"Bad shape for label compatibility (Need {(labels,) * dims}, got {table.shape})")
    both: Array = np.diag(table) if dims == 1 else (table + table.T) / np.float32(2)
    return both
