"""Read photos of any common kind as 8-bit RGB, and write label maps and pictures whole or not at all."""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
# Formats whose decoder is fit for untrusted files: EPS would start a second program, FITS and the like are no photos.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png",
    ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})  # fmt: skip
_opening = threading.Lock()


class ImageError(ValueError):
    """A file that cannot be read as a photo; the message is one line, `path: reason`."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a photo as the eye sees it.

    The EXIF rotation is applied and of several frames the first is taken. Transparency is laid on white. Of 16-bit
    samples the high byte is kept. Floating-point samples in [0, 1] are scaled by 255, those in [0, 255] are rounded;
    32-bit integers in [0, 255] are kept, those in [0, 65535] read as 16-bit; any other range is refused. CMYK is
    converted without its colour profile.

    Args:
        path: a file of one of :data:`FORMATS`.
        max_pixels: larger images are refused by their header, before anything is decoded.

    Returns:
        uint8 RGB ``[H, W, 3]``, writable.

    Raises:
        ImageError: the file is missing, empty, no image, damaged, too large, or of a kind that has no agreed meaning.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise ImageError(path, "is a folder, not an image file" if stat.S_ISDIR(mode) else "is not a regular file")
        with open(path, "rb") as file:
            return _read(path, file, max_pixels)
    except OSError as error:
        raise ImageError(path, (error.strerror or str(error)).lower()) from error


def _read(path: str | Path, file: IO[bytes], max_pixels: int) -> NDArray[np.uint8]:
    if os.fstat(file.fileno()).st_size == 0:
        raise ImageError(path, "is empty")
    try:
        with _header(file) as image:
            width, height = image.size
            if width < 1 or height < 1:
                raise ImageError(path, f"has no pixels ({width} x {height})")
            if width * height > max_pixels:
                raise ImageError(path, f"has {width} x {height} pixels, over the limit of {max_pixels:,}")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return np.array(_rgb(image))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, "is not an image of a known kind, or its header is damaged") from error
    except MemoryError as error:
        raise ImageError(path, "does not fit into memory") from error
    except Exception as error:  # on a damaged file a decoder raises whatever its parser stumbles over
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ImageError(path, f"is truncated, damaged or unsupported ({reason})") from error


def _header(file: IO[bytes]) -> Image.Image:
    """Open an image without decoding it; the caller applies its own pixel limit in the place of Pillow's global one."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # a build of Pillow may lack a codec
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any decoded image to mode RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_grey8(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _grey8(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map 16-bit, 32-bit or floating-point samples to 8 bits."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 255):
            raise ValueError(f"floating-point samples must be in [0, 1] or [0, 255], got [{low:g}, {high:g}]")
        return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"integer samples must be in [0, 65535], got [{low:.0f}, {high:.0f}]")
    eight_bit = values.dtype.itemsize == 4 and high <= 255
    return (values.astype(np.uint16) >> (0 if eight_bit else 8)).astype(np.uint8)


def write_labels(path: str | Path, labels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> None:
    """Write a label map as an index PNG: its pixels are the class indices. The file appears whole or not at all.

    Args:
        path: file to write; its folder must exist.
        labels: uint8 ``[H, W]``.
        palette: uint8 ``[C, 3]``, colours in which viewers show the classes; None writes a greyscale PNG.

    Example:
        >>> write_labels("labels.png", labels)
        >>> np.array_equal(np.array(Image.open("labels.png")), labels)
        True
    """
    labels = np.asarray(labels)
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"fastseg::write_labels: labels must be uint8 [H, W], got {labels.dtype} {list(labels.shape)}")
    image = Image.fromarray(labels)
    if palette is not None:
        # All 256 entries, because Pillow packs a short palette into fewer bits and would cut off larger indices.
        entries = np.zeros((256, 3), np.uint8)
        entries[: len(palette)] = palette
        image.putpalette(entries.tobytes())
    _write(Path(path), image, "PNG")


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write a picture in the format of its suffix (JPEG at quality 92). The file appears whole or not at all.

    Args:
        path: file to write, of suffix ``.png``, ``.jpg``, ``.webp`` or another that Pillow writes; its folder exists.
        image: uint8 RGB ``[H, W, 3]``.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"fastseg::write_image: image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"fastseg::write_image: path must have an image suffix such as .png, got {str(path)!r}")
    _write(Path(path), Image.fromarray(image), kind)


def _write(path: Path, image: Image.Image, kind: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    options = {"quality": 92, "subsampling": 0} if kind == "JPEG" else {}
    try:
        with open(partial, "xb") as file:
            image.save(file, kind, **options)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            partial.unlink()
        raise
