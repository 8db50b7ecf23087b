"""What `fastseg.compat.pydensecrf` takes and refuses; its numbers are held against pydensecrf's in tests/parity."""

from collections.abc import Callable

import numpy as np
import pytest

from fastseg.compat.pydensecrf import densecrf

LABELS, HEIGHT, WIDTH = 3, 5, 6
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
FEATURES = np.random.default_rng(1).standard_normal((4, HEIGHT * WIDTH)).astype(np.float32)


def made() -> densecrf.DenseCRF2D:
    crf = densecrf.DenseCRF2D(WIDTH, HEIGHT, LABELS)
    crf.setUnaryEnergy(np.random.default_rng(2).random((LABELS, HEIGHT * WIDTH), np.float32))
    return crf


REFUSED: list[tuple[str, Callable[[densecrf.DenseCRF2D], object]]] = [
    ("sxy must be", lambda crf: crf.addPairwiseGaussian(0, 3)),
    ("sxy must be", lambda crf: crf.addPairwiseGaussian((3, 3, 3), 3)),
    ("sxy must be", lambda crf: crf.addPairwiseBilateral(-1.0, 13, RGB, 3)),
    ("sxy must be", lambda crf: crf.addPairwiseGaussian("33", 3)),
    ("sxy must be", lambda crf: crf.addPairwiseGaussian(1e-50, 3)),
    ("srgb must be", lambda crf: crf.addPairwiseBilateral(80, (1, 2), RGB, 3)),
    ("srgb must be", lambda crf: crf.addPairwiseBilateral(80, float("nan"), RGB, 3)),
    ("from 1 to 8", lambda crf: crf.addPairwiseEnergy(np.zeros((9, HEIGHT * WIDTH), np.float32), 3)),
    ("Bad shape", lambda crf: crf.addPairwiseEnergy(FEATURES[:, 1:].copy(), 3)),
    ("expected 'float'", lambda crf: crf.stepInference(np.zeros((LABELS, HEIGHT * WIDTH)))),
    ("Bad shape", lambda crf: crf.stepInference(np.zeros((LABELS, HEIGHT * WIDTH + 1), np.float32))),
    ("read-only", lambda crf: crf.stepInference(frozen(np.zeros((LABELS, HEIGHT * WIDTH), np.float32)))),
]


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(("message", "call"), REFUSED)
def test_wrong_arguments_are_named(message: str, call: Callable[[densecrf.DenseCRF2D], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call(made())


@pytest.mark.filterwarnings("error")
def test_arrays_are_copied_and_may_be_read_only() -> None:
    results = []
    for spoil in (False, True):
        crf, features, image = made(), FEATURES.copy(), frozen(RGB.copy())
        crf.addPairwiseEnergy(features, 2)
        crf.addPairwiseBilateral(np.float64(20), np.float32([13, 13, 7]), image, 3)
        if spoil:
            features[:] = 0
        results.append(crf.inference(3))
    np.testing.assert_array_equal(*results)
    assert not np.allclose(results[0], made().inference(3))
