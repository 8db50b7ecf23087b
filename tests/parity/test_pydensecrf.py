"""Scripts written for pydensecrf, with theirs and with ours."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastseg.compat.pydensecrf import densecrf as our_crf
from fastseg.compat.pydensecrf import utils as our_utils

pytestmark = pytest.mark.parity
their_crf: Any = pytest.importorskip("pydensecrf.densecrf")
their_utils: Any = pytest.importorskip("pydensecrf.utils")

OURS = SimpleNamespace(dcrf=our_crf, utils=our_utils)
THEIRS = SimpleNamespace(dcrf=their_crf, utils=their_utils)
WIDTH, HEIGHT, LABELS = 23, 17, 4
rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
PROBABILITIES = np.ascontiguousarray(rng.dirichlet(np.ones(LABELS), (HEIGHT, WIDTH)).transpose(2, 0, 1))
MAP = rng.integers(0, LABELS + 1, (HEIGHT, WIDTH))
MATRIX = rng.standard_normal((LABELS, LABELS)).astype(np.float32)
COMPATIBILITIES = {"potts": 2.0, "vector": np.float32([1, -2, 3, 0.5]), "matrix": MATRIX}


def readme(lib: Any, compat: Any = 3, iterations: int = 5) -> Any:
    """The README's example."""
    crf = lib.dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(lib.utils.unary_from_softmax(PROBABILITIES))
    crf.addPairwiseGaussian(sxy=(3, 2), compat=compat)
    crf.addPairwiseBilateral(sxy=(40, 30), srgb=(50, 60, 70), rgbim=RGB, compat=compat)
    return np.array(crf.inference(iterations))


def other_kernels(lib: Any, compat: Any) -> Any:
    """Energies from the utilities, each with another normalization; step by step."""
    crf = lib.dcrf.DenseCRF(WIDTH * HEIGHT, LABELS)
    crf.setUnaryEnergy(lib.utils.unary_from_labels(MAP, LABELS, gt_prob=0.7))
    near = lib.utils.create_pairwise_gaussian(sdims=(3, 4), shape=(HEIGHT, WIDTH))
    crf.addPairwiseEnergy(near, compat=compat, kernel=lib.dcrf.FULL_KERNEL, normalization=lib.dcrf.NORMALIZE_AFTER)
    grey = RGB[..., :1]
    alike = lib.utils.create_pairwise_bilateral(sdims=(20, 20), schan=(40,), img=grey, chdim=2)
    crf.addPairwiseEnergy(alike, compat=2, normalization=lib.dcrf.NORMALIZE_BEFORE)
    q, *rest = crf.startInference()
    divergences = []
    for _ in range(3):
        crf.stepInference(q, *rest)
        divergences.append(crf.klDivergence(q))
    return np.array(q), divergences


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", COMPATIBILITIES)
def test_readme(kind: str) -> None:
    ours, theirs = (readme(lib, COMPATIBILITIES[kind]) for lib in (OURS, THEIRS))
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    close(ours, theirs)


@pytest.mark.parametrize("kind", COMPATIBILITIES)
def test_other_kernels(kind: str) -> None:
    (ours, our_kl), (theirs, their_kl) = (other_kernels(lib, COMPATIBILITIES[kind]) for lib in (OURS, THEIRS))
    close(ours, theirs)
    np.testing.assert_allclose(our_kl, their_kl, rtol=1e-5)


def test_one_kernel_and_none() -> None:
    for kernels in (0, 1):
        results = []
        for lib in (OURS, THEIRS):
            crf = lib.dcrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
            crf.setUnaryEnergy(lib.utils.unary_from_softmax(PROBABILITIES, scale=0.8))
            if kernels:
                crf.addPairwiseGaussian(3, 0.1, normalization=lib.dcrf.NO_NORMALIZATION)
            results.append(np.array(crf.inference(2)))
        close(*results)


def test_logistic_unary() -> None:
    weights, f = np.float32(rng.standard_normal((LABELS, 2))), np.float32(rng.standard_normal((2, 30)))
    results = []
    for lib in (OURS, THEIRS):
        crf = lib.dcrf.DenseCRF(30, LABELS)
        crf.setUnary(lib.dcrf.LogisticUnary(weights, f))
        results.append(np.array(crf.inference(0)))
    close(*results)


@pytest.mark.parametrize("chdim", [-1, 0, 2])
def test_utilities(chdim: int) -> None:
    image = {-1: RGB[..., 0], 0: RGB.transpose(2, 0, 1), 2: RGB}[chdim]
    schan: Any = (3.0,) if chdim == -1 else (3.0, 5.0, 7.0)
    for deviations in (schan, 4.0):
        ours, theirs = (lib.utils.create_pairwise_bilateral((5, 9), deviations, image, chdim) for lib in (OURS, THEIRS))
        np.testing.assert_array_equal(ours, theirs)
    for zero_unsure in (True, False):
        labels = MAP if zero_unsure else MAP % LABELS
        ours, theirs = (lib.utils.unary_from_labels(labels, LABELS, 0.6, zero_unsure) for lib in (OURS, THEIRS))
        np.testing.assert_array_equal(ours, theirs)


WRONG = {
    "float64 energies": lambda lib: lib.dcrf.DenseCRF(5, 2).setUnaryEnergy(np.zeros((2, 5))),
    "shape of energies": lambda lib: lib.dcrf.DenseCRF(5, 2).setUnaryEnergy(np.zeros((2, 6), np.float32)),
    "strides": lambda lib: lib.dcrf.DenseCRF(5, 2).setUnaryEnergy(np.zeros((5, 2), np.float32).T),
    "one dimension": lambda lib: lib.dcrf.DenseCRF(5, 2).setUnaryEnergy(np.zeros(10, np.float32)),
    "features": lambda lib: lib.dcrf.DenseCRF(5, 2).addPairwiseEnergy(np.zeros((3, 6), np.float32), 3),
    "image size": lambda lib: lib.dcrf.DenseCRF2D(9, 9, 2).addPairwiseBilateral(3, 3, RGB, 3),
    "image dtype": lambda lib: lib.dcrf.DenseCRF2D(WIDTH, HEIGHT, 2).addPairwiseBilateral(3, 3, RGB * 1.0, 3),
    "grey image": lambda lib: lib.dcrf.DenseCRF2D(WIDTH, HEIGHT, 2).addPairwiseBilateral(3, 3, RGB[..., :1].copy(), 3),
    "compat": lambda lib: lib.dcrf.DenseCRF2D(9, 9, 2).addPairwiseGaussian(3, np.zeros((2, 2, 2), np.float32)),
    "compat dtype": lambda lib: lib.dcrf.DenseCRF2D(9, 9, 2).addPairwiseGaussian(3, np.zeros((2, 2))),
    "no energies": lambda lib: lib.dcrf.DenseCRF(5, 2).setUnaryEnergy(None),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors(what: str) -> None:
    with pytest.raises((ValueError, TypeError)) as theirs:
        WRONG[what](THEIRS)
    with pytest.raises(theirs.type) as ours:
        WRONG[what](OURS)
    if "Bad shape" in str(theirs.value) or "only works" in str(theirs.value):
        assert str(ours.value).split(", got")[0] == str(theirs.value).split(", got")[0]
