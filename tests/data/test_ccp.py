"""The CCP reader in both layouts, its grouping, and the augmentation that trains on it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fastseg.data.datasets import CCP, open_dataset
from fastseg.data.datasets.ccp import GROUPS, LABELS, group_table
from fastseg.data.transforms import PersonAugment, crop_resize, empty_strip, rotate, texture

REAL = Path(os.environ.get("FASTSEG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SIZE = (48, 40)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("photos", "labels", "annotations/pixel-level"):
        (tmp_path / folder).mkdir(parents=True)
    for number in (1, 2, 3, 13, 1004):
        Image.fromarray(rng.integers(0, 256, (12, 8, 3), np.uint8)).save(tmp_path / "photos" / f"{number:04}.jpg")
        labels = rng.integers(0, 59, (12, 8), np.uint8)
        Image.fromarray(labels).save(tmp_path / "labels" / f"{number:04}.png")
        savemat(tmp_path / "annotations/pixel-level" / f"{number:04}.mat", {"groundtruth": labels})
    return tmp_path


def test_splits(root):
    numbers = {split: [photo.stem for photo, _ in CCP(root, split).files] for split in ("train", "val", "all")}
    assert numbers["train"] == ["0001", "0002", "1004"]
    assert numbers["val"] == ["0003", "0013"]
    assert len(numbers["all"]) == 5


def test_both_layouts_agree(root):
    flat = CCP(root, "all", grouped=False)
    original = root / "original"
    original.mkdir()
    (original / "photos").symlink_to(root / "photos")
    (original / "annotations").symlink_to(root / "annotations")
    for (image, labels), (image_mat, labels_mat) in zip(flat, CCP(original, "all", grouped=False), strict=True):
        assert image.dtype == labels.dtype == labels_mat.dtype == np.uint8
        assert image.shape == (12, 8, 3)
        np.testing.assert_array_equal(image, image_mat)
        np.testing.assert_array_equal(labels, labels_mat)
        assert labels.max() > 7


def test_grouping(root):
    assert len(LABELS) == 59
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(LABELS)
    table = group_table()
    groups = list(GROUPS)
    for label, group in (
        (0, "background"),
        (14, "upper clothes"),
        (19, "hair"),
        (41, "skin"),
        (44, "lower clothes"),
        (58, "shoes"),
    ):
        assert groups[table[label]] == group
    assert (table[59:] == 255).all()
    plain, grouped = CCP(root, grouped=False), CCP(root, cache=True)
    assert grouped.classes == tuple(GROUPS)
    np.testing.assert_array_equal(table[plain[0][1]], grouped[0][1])


def test_errors(root):
    with pytest.raises(ValueError, match="root must hold photos/ and labels/"):
        CCP(root / "photos")
    with pytest.raises(ValueError, match="data must be ccp:PATH, got 'voc:x'"):
        open_dataset("voc:x", "val")
    with pytest.raises(ValueError, match="split must be"):
        CCP(root, "test")
    Image.new("L", (9, 12)).save(root / "labels/0001.png")
    with pytest.raises(ValueError, match=r"size of their photo \(12, 8\), got \(12, 9\)"):
        CCP(root)[0]
    Image.new("L", (8, 12), 59).save(root / "labels/0001.png")
    with pytest.raises(ValueError, match=r"labels must be 0\.\.58, got 59"):
        CCP(root)[0]
    Image.new("RGB", (8, 12)).save(root / "labels/0001.png")
    with pytest.raises(ValueError, match="8-bit index image, got mode RGB"):
        CCP(root)[0]


@pytest.mark.skipif(not (REAL / "ccp_pixel").is_dir(), reason=f"the CCP sample is not in {REAL}")
def test_real_data():
    train, val = CCP(REAL / "ccp_pixel"), CCP(REAL / "ccp_pixel", "val")
    assert (len(train), len(val)) == (703, 101)
    table = json.loads((REAL / "class_tables" / "class_tables.json").read_text())["ccp_59"]
    assert tuple(table[str(label)] for label in range(59)) == LABELS
    image, labels = val[0]
    assert image.shape[:2] == labels.shape
    assert image.shape[1] == 368
    assert 0.5 < (labels == 0).mean() < 0.95


def test_crop_resize_pads_and_keeps_pixels():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    same = crop_resize(image, labels, (0, 0, 4, 4), (4, 4))
    np.testing.assert_array_equal(same[0], image)
    np.testing.assert_array_equal(same[1], labels)
    outside, ignored = crop_resize(image, labels, (-2, -1, 8, 6), (6, 8))
    np.testing.assert_array_equal(ignored[1:5, 2:6], labels)
    assert (ignored == 255).sum() == 48 - 16
    np.testing.assert_array_equal(outside[0, 0], image[0, 0])


def test_rotation_ignores_what_it_uncovers():
    labels = np.ones((20, 20), np.uint8)
    assert set(np.unique(rotate(np.zeros((20, 20, 3), np.uint8), labels, 30)[1])) == {1, 255}


@pytest.fixture
def person():
    labels = np.zeros((210, 160), np.uint8)
    labels[20:190, 60:100] = 3
    labels[20:40, 70:90] = 2
    image = np.full((210, 160, 3), 40, np.uint8)
    image[labels > 0] = 200
    return image, labels


def test_augmentation_is_a_function_of_the_generator(person):
    augment = PersonAugment()
    first, again = (augment(person, SIZE, np.random.default_rng(3), lambda: person) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0].shape == (48, 40, 3)
    assert not np.array_equal(first[0], augment(person, SIZE, np.random.default_rng(4), lambda: person)[0])


def test_head_views_show_the_head(person):
    heads = PersonAugment(head_share=1.0, background_share=0.0)
    views = [heads(person, SIZE, np.random.default_rng(n))[1] for n in range(40)]
    assert np.mean([(view == 2).any() for view in views]) > 0.9
    assert np.mean([(view == 2).mean() for view in views]) > 3 * (person[1] == 2).mean()


def test_new_backgrounds_keep_the_person(person):
    augment = PersonAugment(background_share=1.0, head_share=0.0, jitter_strength=0.0)
    for n in range(20):
        image, labels = augment(person, (210, 160), np.random.default_rng(n), lambda: person)
        assert set(np.unique(labels)) <= {0, 2, 3}
        assert image[labels == 0].std() > 0


def test_a_photo_without_a_person_is_augmented(person):
    empty = np.zeros_like(person[1])
    for n in range(10):
        labels = PersonAugment()((person[0], empty), SIZE, np.random.default_rng(n))[1]
        assert set(np.unique(labels)) <= {0, 255}


def test_backgrounds(person):
    rng = np.random.default_rng(0)
    assert texture(rng, (30, 20)).shape == (30, 20, 3)
    assert (empty_strip(*person, rng, (30, 20)) == 40).all()
    assert empty_strip(person[0], np.ones_like(person[1]), rng, (30, 20)) is None
