"""How images are resized for a model: small ones in float32, large ones in uint8."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fastseg.models.preprocess import IMAGENET, LITE

SHOWN = replace(LITE, longer_side=64)  # 64 x 48 of an image of these proportions


def photo(height, width):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(noisy)[None]


def in_float(image):
    planes = image.permute(0, 3, 1, 2).float()
    return F.interpolate(planes, size=(64, 48), mode="bilinear", antialias=True)


@pytest.mark.parametrize("size", [(64, 48), (40, 30), (96, 72), (128, 96)])
def test_small_images_are_resized_in_float(size):
    image = photo(*size)
    assert torch.equal(SHOWN(image), SHOWN.normalise(in_float(image)))


@pytest.mark.parametrize("size", [(132, 99), (400, 300), (1000, 750)])
def test_large_images_are_within_a_grey_level(size):
    image = photo(*size)
    shown = SHOWN(image) * 128 + 127
    error = (shown - in_float(image)).abs()
    assert torch.equal(shown, shown.round()), "it was not resized in uint8"
    assert error.max() < 1 and error.mean() < 0.3


def test_large_batches_and_views_are_as_their_copies():
    image = photo(400, 300)
    flipped = image.flip(2)
    batch = SHOWN(torch.cat([image, flipped]))
    for got, one in zip(batch, (image, flipped), strict=True):
        assert torch.equal(got, SHOWN(one)[0])
    view = photo(900, 700)[:, 50:850:2, 40:640:2]
    assert torch.equal(SHOWN(view), SHOWN(view.clone(memory_format=torch.contiguous_format)))


def test_without_a_size_nothing_is_resized():
    image = photo(200, 150)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    expected = (image.permute(0, 3, 1, 2).float() - mean) / std
    assert torch.equal(IMAGENET(image), expected)
