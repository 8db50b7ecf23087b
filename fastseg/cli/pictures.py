"""Pictures of label maps: class colours, overlays, and a background blurred as in portrait mode."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.uint8]

# Distinct in hue and in lightness, also for colour-blind eyes: the vibrant scheme of Tol 2021, extended.
COLOURS = ("#000000", "#ee7733", "#aa3377", "#0077bb", "#44bb66", "#cc3311", "#eecc33", "#33bbee", "#bbbbbb")


def palette(classes: int) -> Array:
    """Colours of class indices, uint8 ``[classes, 3]``; class 0 is black."""
    named = np.array([list(bytes.fromhex(colour[1:])) for colour in COLOURS])
    levels = np.linspace(40, 255, 7)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    # Beyond the named ones, always the colour of a grid that is farthest from all taken so far.
    distance = np.abs(grid[:, None] - named).sum(2).min(1)
    colours = [*named]
    while len(colours) < classes:
        colours.append(grid[distance.argmax()])
        distance = np.minimum(distance, np.abs(grid - colours[-1]).sum(1))
    return np.array(colours[:classes]).astype(np.uint8)


def overlay(image: Array, labels: Array, colours: Array, opacity: float = 0.55) -> Array:
    """Lay class colours on a photo; class 0 stays as it is, and thin light lines part the classes.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        labels: uint8 ``[H, W]``.
        colours: uint8 ``[C, 3]``.
        opacity: share of the colour where a class other than 0 is.
    """
    shares = np.where(labels == 0, 0, round(256 * opacity)).astype(np.uint16)[..., None]
    mixed = (image * (256 - shares) + colours[labels] * shares) >> 8
    mixed[_borders(labels)] = 245
    return mixed.astype(np.uint8)


def _borders(labels: Array) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class, about one 600th of the picture wide."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    width = max(labels.shape) // 600 // 2 * 2 + 1
    if width > 1:
        edge = np.asarray(Image.fromarray(edge.astype(np.uint8)).filter(ImageFilter.MaxFilter(width)), bool)
    return edge


def blur_background(image: Array, labels: Array, strength: float = 0.02) -> Array:
    """Blur everything of class 0, with soft edges.

    The background is averaged over itself alone (a normalised convolution), so no colour of the person bleeds into it.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        labels: uint8 ``[H, W]``; class 0 is the background.
        strength: radius of the blur as a share of the longer side.
    """
    radius = max(1.0, strength * max(labels.shape))
    behind = Image.fromarray(np.where(labels == 0, 255, 0).astype(np.uint8))
    dark = Image.composite(Image.fromarray(image), Image.new("RGB", behind.size), behind)
    weight = np.asarray(behind.filter(ImageFilter.GaussianBlur(radius)), np.float32)[..., None]
    blurred = np.asarray(dark.filter(ImageFilter.GaussianBlur(radius)), np.float32)
    background = np.clip(blurred * (255 / np.maximum(weight, 1)), 0, 255).astype(np.uint8)
    soft = behind.filter(ImageFilter.GaussianBlur(max(0.7, radius / 12)))
    return np.asarray(Image.composite(Image.fromarray(background), Image.fromarray(image), soft))
