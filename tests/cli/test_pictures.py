"""Overlays colour the classes and nothing else; the blur spares the person and takes no colour from it."""

import numpy as np
import pytest

from fastseg.cli.pictures import blur_background, overlay, palette

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (120, 100, 3), dtype=np.uint8)
LABELS = np.zeros((120, 100), np.uint8)
LABELS[30:, 30:70] = 3


@pytest.mark.parametrize("classes", [1, 7, 21, 256])
def test_colours_differ(classes: int) -> None:
    colours = palette(classes)
    assert colours.shape == (classes, 3) and not colours[0].any()
    apart = np.abs(colours[:, None].astype(int) - colours).sum(2) + 1000 * np.eye(classes, dtype=int)
    assert apart.min() > (0 if classes > 21 else 24)


def test_overlay_mixes_where_a_class_is() -> None:
    shown = overlay(PHOTO, LABELS, palette(7), opacity=0.5)
    np.testing.assert_array_equal(shown[:29, :29], PHOTO[:29, :29])
    expected = (PHOTO[40:, 40:60].astype(int) + palette(7)[3]) // 2
    np.testing.assert_array_equal(shown[40:, 40:60], expected)
    assert (shown[29, 30:69] == 245).all(), "a line parts the classes"


def test_blur_keeps_the_person_and_smooths_the_rest() -> None:
    blurred = blur_background(PHOTO, LABELS)
    np.testing.assert_array_equal(blurred[45:, 45:55], PHOTO[45:, 45:55])
    assert blurred[:20].std() < 0.5 * PHOTO[:20].std()


def test_the_person_does_not_bleed_into_the_background() -> None:
    photo = np.where(LABELS[..., None] > 0, np.uint8([255, 0, 0]), np.uint8([0, 0, 200]))
    blurred = blur_background(photo, LABELS)
    assert blurred[:27, :, 0].max() == 0 and blurred[60:, :26, 0].max() == 0
    assert (np.abs(blurred[:27, :, 2].astype(int) - 200) <= 2).all()


@pytest.mark.parametrize("label", [0, 3])
def test_one_class_alone(label: int) -> None:
    labels = np.full((120, 100), label, np.uint8)
    assert overlay(PHOTO, labels, palette(7)).shape == PHOTO.shape
    assert np.array_equal(blur_background(PHOTO, labels), PHOTO) == (label == 3)
