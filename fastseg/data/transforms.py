"""Training augmentation for photos of people: zoom, new backgrounds, colour."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from PIL.Image import Resampling

IGNORE = 255
# width and height of a crop's box, as (left, top, width, height) in source pixels
Box = tuple[float, float, float, float]
Sample = tuple[np.ndarray, np.ndarray]


def crop_resize(image: np.ndarray, labels: np.ndarray, box: Box, size: tuple[int, int]) -> Sample:
    """Cut a box, which may leave the image, and resize it with antialiasing.

    Args:
        image: uint8 ``[H, W, 3]``.
        labels: uint8 ``[H, W]``.
        box: left, top, width and height in source pixels.
        size: height and width of the result.

    Returns:
        Image (edge pixels repeated outside) and labels (255 outside, nearest neighbour) of that size.
    """
    left, top, width, height = box
    rows, cols = labels.shape
    before = (max(0, int(np.ceil(-top))), max(0, int(np.ceil(-left))))
    after = (max(0, int(np.ceil(top + height - rows))), max(0, int(np.ceil(left + width - cols))))
    if any(before + after):
        margin = tuple(zip(before, after, strict=True))
        image = np.pad(image, (*margin, (0, 0)), mode="edge")
        labels = np.pad(labels, margin, constant_values=IGNORE)
        left, top = left + before[1], top + before[0]
    region = (left, top, left + width, top + height)
    target = size[::-1]
    resized = Image.fromarray(image).resize(target, Resampling.BILINEAR, box=region)
    return np.asarray(resized), np.asarray(Image.fromarray(labels).resize(target, Resampling.NEAREST, box=region))


def rotate(image: np.ndarray, labels: np.ndarray, degrees: float) -> Sample:
    """Rotate about the centre at the same size; uncovered labels become 255."""
    return (
        np.asarray(Image.fromarray(image).rotate(degrees, Resampling.BILINEAR)),
        np.asarray(Image.fromarray(labels).rotate(degrees, Resampling.NEAREST, fillcolor=IGNORE)),
    )


def texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draw a person-free picture, uint8 ``[H, W, 3]``: gradient, stripes, checks, clouds or one colour, a few shapes
    upon it."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(size)

    def colour() -> np.ndarray:
        return rng.uniform(0, 255, 3).astype(np.float32)

    def pattern() -> np.ndarray:
        angle = rng.uniform(0, np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        kind = rng.choice(["gradient", "stripes", "checks", "clouds", "flat"], p=[0.3, 0.25, 0.1, 0.25, 0.1])
        if kind == "clouds":
            coarse = rng.uniform(0, 255, (*rng.integers(2, 24, 2), 3)).astype(np.uint8)
            return np.asarray(Image.fromarray(coarse).resize((width, height), Resampling.BICUBIC), np.float32)
        if kind == "flat":
            weight = np.zeros_like(x)
        elif kind == "gradient":
            weight = (along - along.min()) / np.ptp(along)
        else:
            period = rng.uniform(0.03, 0.4)
            weight = np.floor(along / period) % 2
            if kind == "checks":
                across = y * np.cos(angle) - x * np.sin(angle)
                weight = (weight + np.floor(across / period)) % 2
        weight = weight[..., None].astype(np.float32)
        return colour() * (1 - weight) + colour() * weight

    picture = pattern()
    for _ in range(rng.integers(0, 4)):
        centre, radius, angle = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.35, 2), rng.uniform(0, np.pi)
        u = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
        v = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
        power = rng.choice([2, 8])  # an ellipse or nearly a rectangle
        inside = np.abs(u / radius[0]) ** power + np.abs(v / radius[1]) ** power < 1
        picture = np.where(inside[..., None], pattern(), picture)
    return np.clip(picture + rng.normal(0, rng.uniform(0, 12), picture.shape), 0, 255).astype(np.uint8)


def empty_strip(
    image: np.ndarray, labels: np.ndarray, rng: np.random.Generator, size: tuple[int, int]
) -> np.ndarray | None:
    """Enlarge a random person-free piece beside the person to uint8 ``[*size, 3]``; None where none is wide enough."""
    columns = np.flatnonzero((labels != 0).any(axis=0))
    rows, cols = labels.shape
    left, right = (columns[0], cols - columns[-1] - 1) if columns.size else (cols, 0)
    room = max(left, right)
    if room < 48:
        return None
    width = rng.uniform(0.6, 1) * room
    height = min(rows, width * size[0] / size[1] * rng.uniform(0.7, 1.4))
    x = rng.uniform(0, room - width) + (0 if left >= right else cols - right)
    y = rng.uniform(0, rows - height)
    return np.asarray(Image.fromarray(image).resize(size[::-1], Resampling.BICUBIC, box=(x, y, x + width, y + height)))


def jitter(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Change gamma, contrast, brightness, saturation and colour balance of float RGB ``[H, W, 3]`` of 0..255."""
    spread = 0.6 * strength
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = rng.uniform(max(0.0, 1 - 1.5 * spread), 1 + spread)
    image = grey[..., None] + saturation * (image - grey[..., None])
    mean = grey.mean()
    image = (image - mean) * rng.uniform(1 - spread, 1 + spread) + mean * rng.uniform(1 - spread, 1 + spread)
    image = image * rng.uniform(1 - 0.3 * strength, 1 + 0.3 * strength, 3).astype(np.float32)
    gamma = np.exp(rng.uniform(-spread, spread))
    return 255 * (np.clip(image, 0, 255) / 255) ** np.float32(gamma)


@dataclass(frozen=True)
class PersonAugment:
    """Random view of a photo of one person, from the whole body to head and shoulders, on its own or a new background.

    Args:
        head_share: share of views aimed at the head.
        background_share: share of views that get a new background.
        jitter_strength: 0 leaves the colours alone, 1 is strong.
        hair: label of hair, which tells where the head is.
    """

    head_share: float = 0.5
    background_share: float = 0.4
    jitter_strength: float = 0.6
    hair: int = 2

    def __call__(
        self,
        sample: Sample,
        size: tuple[int, int],
        rng: np.random.Generator,
        other: Callable[[], Sample] | None = None,
    ) -> Sample:
        """Draw one view.

        Args:
            sample: photo uint8 ``[H, W, 3]`` and labels uint8 ``[H, W]`` (0 = background, 255 = ignored).
            size: height and width of the view.
            rng: source of every random choice.
            other: gives another sample, whose person-free sides may become the background.

        Returns:
            Image uint8 ``[*size, 3]`` and labels uint8 ``[*size]``.
        """
        image, labels = sample
        if rng.random() < 0.3:
            image, labels = rotate(image, labels, rng.uniform(-15, 15))
        image, labels = crop_resize(image, labels, self._box(labels, size, rng), size)
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        view = image.astype(np.float32)
        if rng.random() < self.background_share:
            view, labels = self._replace_background(view, labels, rng, other)
        if rng.random() < 0.8:
            view = jitter(view, rng, self.jitter_strength)
        if rng.random() < 0.1:
            view = np.repeat(view.mean(axis=2, keepdims=True), 3, axis=2)
        if rng.random() < 0.2:
            view = view + rng.normal(0, rng.uniform(2, 12), view.shape).astype(np.float32)
        result = np.clip(view, 0, 255).astype(np.uint8)
        if rng.random() < 0.2:
            blurred = Image.fromarray(result).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.6)))
            result = np.asarray(blurred)
        return result, np.ascontiguousarray(labels)

    def _box(self, labels: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Box:
        rows, cols = labels.shape
        person = (labels != 0) & (labels != IGNORE)
        lines = np.flatnonzero(person.any(axis=1))
        aspect = size[1] / size[0] * np.exp(rng.uniform(-0.15, 0.15))
        if not lines.size:
            height = rows * rng.uniform(0.5, 1)
            return (
                rng.uniform(0, max(1, cols - height * aspect)),
                rng.uniform(0, rows - height),
                height * aspect,
                height,
            )
        top, tall = lines[0], lines[-1] - lines[0] + 1
        if rng.random() < self.head_share:
            # A standing person is about seven heads tall; hair in the top quarter says where the head is.
            head = np.zeros_like(person)
            head[top : top + tall // 4] = labels[top : top + tall // 4] == self.hair
            if np.count_nonzero(head) < 20:
                head[top : top + max(1, tall // 8)] = person[top : top + max(1, tall // 8)]
            y, x = (np.mean(axis) for axis in np.nonzero(head))
            height = max(32.0, tall / 7 * np.exp(rng.uniform(np.log(1.4), np.log(5))))
            place = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.55)
        else:
            height = rows * np.exp(rng.uniform(np.log(0.35), np.log(1.15)))
            points = np.argwhere(person)
            y, x = points[rng.integers(len(points))]
            place = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
            if height > tall:
                # The whole person fits: keep it inside and keep the photo filling the view where it can.
                y, place = top + tall / 2, (place[0], rng.uniform(0.45, 0.55))
        width = height * aspect
        left, upper = x - place[0] * width, y - place[1] * height
        # Slide the box back over the photo as far as it goes.
        left = np.clip(left, min(0, cols - width), max(0, cols - width))
        upper = np.clip(upper, min(0, rows - height), max(0, rows - height))
        return float(left), float(upper), float(width), float(height)

    def _replace_background(
        self, view: np.ndarray, labels: np.ndarray, rng: np.random.Generator, other: Callable[[], Sample] | None
    ) -> Sample:
        person = (labels != 0) & (labels != IGNORE)
        background = None
        if other is not None and rng.random() < 0.5:
            background = empty_strip(*other(), rng, person.shape)
        if background is None:
            background = texture(rng, person.shape)
        background = jitter(background.astype(np.float32), rng, 0.4)
        if rng.random() < 0.4:
            view = jitter(view, rng, 0.4)
        mask = Image.fromarray(person.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.2)))
        alpha = np.asarray(mask, np.float32)[..., None] / 255
        return background * (1 - alpha) + view * alpha, np.where(person, labels, 0).astype(np.uint8)
