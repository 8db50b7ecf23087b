"""Segment a photo with the shipped network: labels, an overlay, and the background blurred.

python examples/segment_photo.py PHOTO FOLDER [WEIGHTS]
"""

import sys
from pathlib import Path

import torch

from fastseg.cli.pictures import blur_background, overlay, palette
from fastseg.data.formats.images import read_image, write_image, write_labels
from fastseg.models import create_model, list_weights


def main(photo: str, folder: str, weights: str | None = None) -> None:
    model = create_model("deeplab_v3_plus", weights or list_weights()[0])
    image = read_image(photo)
    labels = model.predict(torch.from_numpy(image)).numpy()

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    colours = palette(len(model.classes))
    write_labels(out / "labels.png", labels, colours)
    write_image(out / "overlay.jpg", overlay(image, labels, colours))
    write_image(out / "blurred.jpg", blur_background(image, labels))
    for index, name in enumerate(model.classes):
        print(f"{name}: {(labels == index).mean():.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
