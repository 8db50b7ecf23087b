"""Photos come out as the eye sees them or are refused in one line; results are written whole or not at all."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fastseg.data.formats.images import MAX_PIXELS, ImageError, read_image, write_image, write_labels

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY = PHOTO[..., 0]
DEEP = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
ALPHA = np.dstack([PHOTO, np.where(GREY > 128, 255, 0).astype(np.uint8)])


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    """A PNG by hand, of kinds and sizes that no library writes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def rows(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


def encoded(kind: str, picture: np.ndarray = PHOTO) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


DEEP_RGB = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
PALETTE = Image.fromarray(PHOTO).quantize(8)
PALETTE_RGB = np.array(PALETTE.convert("RGB"))
CMYK = Image.fromarray(PHOTO).convert("CMYK")

# name, writer, what the eye sees
GOOD: list[tuple[str, Callable[[Path], object], np.ndarray]] = [
    ("rgb.png", lambda p: Image.fromarray(PHOTO).save(p), PHOTO),
    ("rgb.bmp", lambda p: Image.fromarray(PHOTO).save(p), PHOTO),
    ("rgb.webp", lambda p: Image.fromarray(PHOTO).save(p, lossless=True), PHOTO),
    ("rgb.ppm", lambda p: Image.fromarray(PHOTO).save(p), PHOTO),
    ("no_suffix", lambda p: p.write_bytes(encoded("PNG")), PHOTO),
    ("wrong_suffix.jpg", lambda p: p.write_bytes(encoded("PNG")), PHOTO),
    ("grey.png", lambda p: Image.fromarray(GREY).save(p), as_rgb(GREY)),
    ("deep.png", lambda p: Image.fromarray(DEEP).save(p), as_rgb(DEEP >> 8)),
    ("deep_rgb.png", lambda p: p.write_bytes(png(17, 13, 16, 2, rows(DEEP_RGB.reshape(13, -1)))), DEEP_RGB >> 8),
    ("deep.tif", lambda p: tifffile.imwrite(p, DEEP), as_rgb(DEEP >> 8)),
    ("deep_big.tif", lambda p: tifffile.imwrite(p, DEEP.astype(">u2"), byteorder=">"), as_rgb(DEEP >> 8)),
    ("deep_rgb.tif", lambda p: tifffile.imwrite(p, DEEP_RGB, photometric="rgb"), DEEP_RGB >> 8),
    ("int32_deep.tif", lambda p: tifffile.imwrite(p, DEEP.astype(np.int32)), as_rgb(DEEP >> 8)),
    ("int32.tif", lambda p: tifffile.imwrite(p, GREY.astype(np.int32)), as_rgb(GREY)),
    ("unit.tif", lambda p: tifffile.imwrite(p, (GREY / 255).astype(np.float32)), as_rgb(GREY)),
    ("float.tif", lambda p: tifffile.imwrite(p, GREY.astype(np.float32)), as_rgb(GREY)),
    ("palette.png", lambda p: PALETTE.save(p), PALETTE_RGB),
    (
        "palette_transparent.png",
        lambda p: PALETTE.save(p, transparency=3),
        np.where(as_rgb(np.array(PALETTE)) == 3, np.uint8(255), PALETTE_RGB),
    ),
    ("rgba.png", lambda p: Image.fromarray(ALPHA).save(p), np.where(ALPHA[..., 3:] > 0, PHOTO, np.uint8(255))),
    (
        "la.png",
        lambda p: Image.fromarray(ALPHA[..., 2:], "LA").save(p),
        np.where(ALPHA[..., 3:] > 0, as_rgb(PHOTO[..., 2]), np.uint8(255)),
    ),
    ("bits.png", lambda p: Image.fromarray(GREY > 128).save(p), as_rgb(np.where(GREY > 128, 255, 0).astype(np.uint8))),
    ("cmyk.tif", lambda p: CMYK.save(p), np.array(CMYK.convert("RGB"))),
    (
        "frames.gif",
        lambda p: PALETTE.save(p, save_all=True, append_images=[Image.new("P", PALETTE.size)]),
        PALETTE_RGB,
    ),
    (
        "frames.tif",
        lambda p: Image.fromarray(PHOTO).save(p, save_all=True, append_images=[Image.new("RGB", (3, 3))]),
        PHOTO,
    ),
]


@pytest.mark.parametrize(("name", "write", "seen"), GOOD, ids=[row[0] for row in GOOD])
def test_every_kind_comes_out_as_seen(
    tmp_path: Path, name: str, write: Callable[[Path], object], seen: np.ndarray
) -> None:
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, seen)


def test_cmyk_jpeg_is_close(tmp_path: Path) -> None:
    CMYK.resize((64, 64)).save(tmp_path / "x.jpg", quality=100, subsampling=0)
    seen = np.array(CMYK.resize((64, 64)).convert("RGB"), np.int16)
    assert np.abs(read_image(tmp_path / "x.jpg") - seen).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = {
        1: PHOTO, 2: PHOTO[:, ::-1], 3: PHOTO[::-1, ::-1], 4: PHOTO[::-1], 5: PHOTO.transpose(1, 0, 2),
        6: np.rot90(PHOTO, -1), 7: PHOTO[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(PHOTO),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PHOTO).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), upright)


def test_damaged_exif_does_not_stop_a_photo(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "x.jpg", exif=b"Exif\0\0garbage!")
    assert read_image(tmp_path / "x.jpg").shape == PHOTO.shape


def test_sixteen_bit_mapping_keeps_the_ends_and_every_8_bit_value(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values * 257).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), as_rgb(values.astype(np.uint8)))


LARGE = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing.png", lambda p: None, "no such file"),
    ("folder.png", lambda p: p.mkdir(), "folder"),
    ("fifo.png", os.mkfifo, "not a regular file"),
    ("empty.png", lambda p: p.write_bytes(b""), "empty"),
    ("text.png", lambda p: p.write_text("<html>not found</html>"), "not an image"),
    ("signature.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "not an image"),
    ("script.eps", lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"),
    ("nan.tif", lambda p: tifffile.imwrite(p, np.full((4, 4), np.nan, np.float32)), "floating-point samples"),
    ("range.tif", lambda p: tifffile.imwrite(p, np.full((4, 4), 1e6, np.float32)), "floating-point samples"),
    ("negative.tif", lambda p: tifffile.imwrite(p, np.full((4, 4), -1, np.int32)), "integer samples"),
    *[
        (
            f"cut.{kind.lower()}",
            lambda p, kind=kind: p.write_bytes(encoded(kind, LARGE)[: -len(encoded(kind, LARGE)) // 2]),
            "",
        )
        for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP")
    ],
    ("corrupt.png", lambda p: p.write_bytes(encoded("PNG", LARGE).replace(b"IDAT", b"IDAT\0\0\0", 1)), ""),
]


@pytest.mark.parametrize(("name", "write", "reason"), BAD, ids=[row[0] for row in BAD])
def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, name: str, write: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ") and reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.png").write_bytes(encoded("PNG"))
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"x\.png: permission denied"):
        read_image(tmp_path / "x.png")


def test_pixel_limit_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(60_000, 60_000, 8, 2, b""))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=f"60000 x 60000 pixels, over the limit of {MAX_PIXELS:,}"):
        read_image(bomb)


def test_pixel_limit_is_inclusive_and_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(tmp_path / "x.png", max_pixels=13 * 17).shape == (13, 17, 3)
    with pytest.raises(ImageError, match="over the limit"):
        read_image(tmp_path / "x.png", max_pixels=13 * 17 - 1)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("colours", [None, 3, 256])
def test_labels_are_the_pixels_of_the_index_png(tmp_path: Path, colours: int | None) -> None:
    labels = GREY.copy()
    palette = None if colours is None else RNG.integers(0, 256, (colours, 3), dtype=np.uint8)
    write_labels(tmp_path / "x.png", labels, palette)
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG" and image.mode == ("L" if colours is None else "P")
        np.testing.assert_array_equal(np.array(image), labels)
        if palette is not None:
            known = labels < len(palette)
            np.testing.assert_array_equal(np.array(image.convert("RGB"))[known], palette[labels[known]])


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif"])
def test_pictures_survive(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, PHOTO)
    np.testing.assert_array_equal(read_image(tmp_path / name), PHOTO)


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.png"
    write_labels(target, GREY)
    before = target.read_bytes()

    def fails(self: Image.Image, file: io.BufferedWriter, *args: object, **options: object) -> None:
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fails)
    for write in (lambda: write_labels(target, GREY), lambda: write_image(tmp_path / "y.png", PHOTO)):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"] and target.read_bytes() == before


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: write_labels(p / "x.png", GREY.astype(np.int64)), "labels must be uint8"),
        (lambda p: write_labels(p / "x.png", PHOTO), "labels must be uint8"),
        (lambda p: write_image(p / "x.png", GREY), "image must be uint8"),
        (lambda p: write_image(p / "x.txt", PHOTO), "path must have an image suffix"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path)
    assert not list(tmp_path.iterdir())
