"""Draw the figures of docs/ops/distance.md: `python docs/draw_distance.py`."""

from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from fastseg import losses, ops
from fastseg.testing.cases.distance import blobs, cells

FIGURES = Path(__file__).parent / "figures"
SIDE = 128


def outline(mask: Tensor) -> Tensor:
    """Elements of the inner boundary; beyond the image everything is outside."""
    framed = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    return (ops.distance_transform(framed) == 1)[1:-1, 1:-1]  # type: ignore[index]


def draw_transforms() -> None:
    """One shape by metric, sign, labels, and what U-Net makes of gaps."""
    shape = blobs((SIDE, SIDE), 32, 3) > 0.2
    labels = cells((SIDE, SIDE), 14, 14, 5).long() + 1
    instances = torch.where(ops.distance_transform(labels, labels=True) > 3, labels, 0)  # type: ignore[operator]
    panels = {
        "mask": shape.float(),
        "Euclidean": ops.distance_transform(shape),
        "taxicab": ops.distance_transform(shape, metric="taxicab"),
        "chessboard": ops.distance_transform(shape, metric="chessboard"),
        "signed": ops.distance_transform(shape, signed="symmetric"),
        "labels, all at once": ops.distance_transform(labels, labels=True),
        "border weights of U-Net": losses.border_weight_map(instances[None])[0],
    }
    figure = Figure((14, 2.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, values) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        reach = values.abs().max()
        signed = title == "signed"
        axes.imshow(values, cmap="RdBu" if signed else "magma", vmin=-reach if signed else 0, vmax=reach)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(FIGURES / "distance_transforms.png", dpi=110)


def draw_surfaces() -> None:
    """Two outlines, each coloured by its distance to the other, and the lists with their percentiles."""
    smooth = blobs((SIDE, SIDE), 48, 8)
    target, prediction = smooth > 0.1, smooth + 0.25 * blobs((SIDE, SIDE), 16, 9) > 0.1
    prediction[6:14, 20:28] = True
    pair = prediction, target
    found = ops.surface_distances(*pair)
    lists = found.distances.split(found.counts.tolist())
    figure = Figure((13, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    *maps, curve = figure.subplots(1, 3)
    for axes, mask, distances, name in zip(maps, pair, lists, ("prediction", "target"), strict=True):
        y, x = outline(mask).nonzero(as_tuple=True)
        axes.imshow(mask, cmap="Greys", vmax=4)
        dots = axes.scatter(x, y, c=distances, s=4, cmap="viridis", vmin=0, vmax=found.distances.max())
        axes.set_title(f"outline of the {name}, by its distance to the other", fontsize=9)
        axes.set_axis_off()
    figure.colorbar(dots, ax=maps)
    for distances, name in zip(lists, ("prediction", "target"), strict=True):
        curve.plot(torch.linspace(0, 100, len(distances)), distances.sort().values, label=name)
    for convention in ("max_of_directed", "pooled"):
        value = ops.hausdorff_distance(*pair, percentile=95, convention=convention).item()
        curve.axhline(value, linestyle=":", color="#888888")
        curve.annotate(f"hd95, {convention}: {value:.2f}", (2, value), fontsize=8, va="bottom")
    curve.axvline(95, linewidth=0.6, color="#888888")
    curve.set(xlabel="percent of the list", ylabel="distance")
    curve.legend(fontsize=8, loc="upper left")
    figure.savefig(FIGURES / "distance_surfaces.png", dpi=110)


if __name__ == "__main__":
    draw_transforms()
    draw_surfaces()
