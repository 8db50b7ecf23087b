"""Clothing Co-Parsing: street-fashion photos of one person each, with 59 labels per pixel."""

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

LABELS = (
    "null", "accessories", "bag", "belt", "blazer", "blouse", "bodysuit", "boots", "bra", "bracelet", "cape",
    "cardigan", "clogs", "coat", "dress", "earrings", "flats", "glasses", "gloves", "hair", "hat", "heels", "hoodie",
    "intimate", "jacket", "jeans", "jumper", "leggings", "loafers", "necklace", "panties", "pants", "pumps", "purse",
    "ring", "romper", "sandals", "scarf", "shirt", "shoes", "shorts", "skin", "skirt", "sneakers", "socks",
    "stockings", "suit", "sunglasses", "sweater", "sweatshirt", "swimwear", "t-shirt", "tie", "tights", "top",
    "vest", "wallet", "watch", "wedges",
)  # fmt: skip

# A garment that covers torso and legs counts as upper clothes; whatever is worn on the legs alone, socks included, as
# lower.
GROUPS = {
    "background": ("null",),
    "skin": ("skin",),
    "hair": ("hair",),
    "upper clothes": (
        "blazer", "blouse", "bodysuit", "bra", "cape", "cardigan", "coat", "dress", "hoodie", "intimate", "jacket",
        "jumper", "romper", "shirt", "suit", "sweater", "sweatshirt", "swimwear", "t-shirt", "top", "vest",
    ),
    "lower clothes": (
        "jeans", "leggings", "panties", "pants", "shorts", "skirt", "socks", "stockings", "tights",
    ),
    "shoes": (
        "boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "shoes", "sneakers", "wedges",
    ),
    "accessories": (
        "accessories", "bag", "belt", "bracelet", "earrings", "glasses", "gloves", "hat", "necklace", "purse",
        "ring", "scarf", "sunglasses", "tie", "wallet", "watch",
    ),
}  # fmt: skip

Split = Literal["train", "val", "all"]


def group_table() -> np.ndarray:
    """Give the lookup table uint8 ``[256]`` from label to group; what is no label becomes 255."""
    table = np.full(256, 255, np.uint8)
    for group, names in enumerate(GROUPS.values()):
        table[[LABELS.index(name) for name in names]] = group
    return table


class CCP(Dataset[tuple[np.ndarray, np.ndarray]]):
    """Photos and labels of Clothing Co-Parsing.

    Two layouts are read: ``photos/NNNN.jpg`` with ``labels/NNNN.png`` (index images), and the original with
    ``annotations/pixel-level/NNNN.mat``. There is no official split: photos whose number ends in 3 are for validation.

    Args:
        root: folder that holds ``photos``.
        split: ``"train"``, ``"val"`` or ``"all"``.
        grouped: give the 7 groups of :data:`GROUPS` rather than the 59 labels of :data:`LABELS`.
        cache: read every file now and keep it in memory (about 0.8 MB a photo of 368 x 555).

    An item is the photo, uint8 RGB ``[H, W, 3]``, and its labels, uint8 ``[H, W]``.

    Source: Yang, Luo, Lin 2014, "Clothing Co-Parsing by Joint Image Segmentation and Labeling" (arXiv 1502.00739).
    """

    def __init__(self, root: str | Path, split: Split = "train", *, grouped: bool = True, cache: bool = False) -> None:
        if split not in ("train", "val", "all"):
            raise ValueError(f"fastseg::CCP: split must be train, val or all, got {split!r}")
        root = Path(root)
        labels = root / "labels" if (root / "labels").is_dir() else root / "annotations" / "pixel-level"
        if not (root / "photos").is_dir() or not labels.is_dir():
            raise ValueError(
                f"fastseg::CCP: root must hold photos/ and labels/ (or annotations/pixel-level/), got {root}"
            )
        self.classes = tuple(GROUPS) if grouped else LABELS
        self._table = group_table() if grouped else None
        numbers = sorted(path.stem for path in labels.iterdir() if path.suffix in (".png", ".mat"))
        if split != "all":
            numbers = [number for number in numbers if number.endswith("3") == (split == "val")]
        if not numbers:
            raise ValueError(f"fastseg::CCP: root must hold labels of the split {split!r}, got none in {labels}")
        suffix = ".png" if any(labels.glob("*.png")) else ".mat"
        self.files = [(root / "photos" / f"{number}.jpg", labels / f"{number}{suffix}") for number in numbers]
        self._cache = [self._read(index) for index in range(len(self))] if cache else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._cache[index] if self._cache is not None else self._read(index)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        photo, annotation = self.files[index]
        try:
            with Image.open(photo) as file:
                image = np.asarray(file.convert("RGB"))
            labels = read_labels(annotation)
        except OSError as error:
            raise ValueError(f"fastseg::CCP: photos and labels must be readable images, got {error}") from error
        if labels.shape != image.shape[:2]:
            raise ValueError(
                f"fastseg::CCP: labels must have the size of their photo {image.shape[:2]}, "
                f"got {labels.shape} in {annotation}"
            )
        if labels.max() >= len(LABELS):
            raise ValueError(f"fastseg::CCP: labels must be 0..{len(LABELS) - 1}, got {labels.max()} in {annotation}")
        return image, labels if self._table is None else self._table[labels]


def read_labels(path: Path) -> np.ndarray:
    """Read one annotation, an index PNG or a MATLAB file with the variable ``groundtruth``, as uint8 ``[H, W]``."""
    if path.suffix == ".mat":
        from scipy.io import loadmat

        contents = loadmat(path)
        if "groundtruth" not in contents:
            raise ValueError(f"fastseg::CCP: annotation must hold the variable 'groundtruth', got none in {path}")
        return contents["groundtruth"].astype(np.uint8)
    with Image.open(path) as file:
        if file.mode not in ("L", "P"):
            raise ValueError(f"fastseg::CCP: annotation must be an 8-bit index image, got mode {file.mode} in {path}")
        return np.asarray(file)
