"""Draw the figures of docs/ops/dense_crf.md, and print its table: `python docs/draw_dense_crf.py`."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fastseg import ops
from fastseg.cli.demo import PORTRAITS
from fastseg.reference.dense_crf_lattice import NORMALIZATIONS, elevated, simplices

FIGURES = Path(__file__).parent / "figures"
SETTINGS = ((80.0, 13.0, 10.0), (67.0, 3.0, 4.0))


def plane(keys: Tensor) -> np.ndarray:
    """Vertices [..., 3] of the two-dimensional lattice, in units of features."""
    basis = elevated(torch.eye(2, dtype=torch.float64))  # [3, 2]
    return (keys.double() @ torch.linalg.pinv(basis).T).numpy()


def kernel(at: Tensor, others: Tensor) -> Tensor:
    """What others [2, P] receive from one point, all of them on the lattice."""
    features = torch.cat([at[:, None], others], 1)[None]
    values = torch.zeros(1, 1, features.shape[2], dtype=torch.float64)
    values[..., 0] = 1
    return ops.permutohedral_filter(values, features)[0, 0, 1:]


def draw_lattice() -> None:
    """The triangles of a plane with some points, and the kernel of one point beside the Gaussian."""
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(2, 9, generator=generator, dtype=torch.float64) * 5 - 2.5
    keys, weights = simplices(elevated(points))
    corners = plane(keys)
    figure = Figure((13, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    triangles, bump, gaussian, section = figure.subplots(1, 4)
    around = torch.cartesian_prod(torch.linspace(-4, 4, 60), torch.linspace(-4, 4, 60)).double().T
    for triangle in plane(simplices(elevated(around))[0]):
        triangles.fill(*triangle.T, fill=False, edgecolor="#cccccc", linewidth=0.6)
    for triangle, point, share in zip(corners, points.T.numpy(), weights.numpy(), strict=True):
        triangles.fill(*triangle.T, color="#0077bb", alpha=0.15)
        triangles.scatter(*triangle.T, s=120 * share, color="#0077bb")
        triangles.plot(*point, "x", color="#ee7733")
    triangles.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
    triangles.set_title("points, and the shares of their corners", fontsize=9)

    grid = torch.linspace(-4, 4, 161, dtype=torch.float64)
    ys, xs = torch.meshgrid(grid, grid, indexing="ij")
    others = torch.stack([xs.flatten(), ys.flatten()])
    middle = torch.zeros(2, dtype=torch.float64)
    approximate = kernel(middle, others).view(161, 161)
    exact = (-0.5 * (xs.square() + ys.square())).exp()
    for axes, values, title in ((bump, approximate, "kernel of the lattice"), (gaussian, exact, "Gaussian")):
        axes.imshow(values, extent=(-4, 4, 4, -4), vmin=0, vmax=1, cmap="magma")
        axes.set_title(title, fontsize=9)
    section.plot(grid, exact[80], color="#888888", label="Gaussian")
    for shift, style in ((0.0, "-"), (0.37, "--")):
        moved = kernel(middle + shift, others + shift).view(161, 161)[80]
        section.plot(grid, moved, style, color="#ee7733", label=f"lattice, moved by {shift:g}")
    section.set_title("along x, through the middle", fontsize=9)
    section.legend(fontsize=7)
    figure.savefig(FIGURES / "dense_crf_lattice.png", dpi=110)


def portrait(side: int) -> tuple[Tensor, Tensor]:
    """A portrait, and scores of three labels: face and hair, suit, the rest, with noise."""
    from importlib import util

    package, inside = PORTRAITS["astronaut"]
    found = util.find_spec(package)
    assert found and found.origin
    picture = Image.open(Path(found.origin).parent / inside).convert("RGB").crop((90, 0, 410, 320)).resize((side, side))
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].double()
    y, x = torch.meshgrid(*[torch.linspace(0, 1, side, dtype=torch.float64)] * 2, indexing="ij")
    head = 1 - 4 * ((x - 0.42).square() + (y - 0.35).square()).sqrt()
    suit = 4 * (y - 0.62)
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.stack([torch.zeros_like(x), head, suit])[None] * 2 + noise, image


def compare() -> None:
    """What the lattice changes, by normalization: the table of the page, and a picture of one row."""
    logits, image = portrait(96)
    print("| deviations | normalization | largest change of Q | mean | labels that change |\n|---|---|---|---|---|")
    shown: dict[str, Tensor] = {}
    for xy, color, weight in SETTINGS:
        for mode in NORMALIZATIONS:
            # Sums that are not normalized are of thousands of pixels.
            scale = 1.0 if mode != "none" else 1e-3
            results = [
                ops.dense_crf(
                    -logits, image, normalization=mode, bilateral=bilateral, bilateral_sigma_xy=xy,
                    bilateral_sigma_color=color, bilateral_weight=scale * weight, spatial_weight=3 * scale,
                )
                for bilateral in ("exact", "lattice")
            ]  # fmt: skip
            difference = (results[0] - results[1]).abs()
            moved = (results[0].argmax(1) != results[1].argmax(1)).double().mean()
            print(f"| {xy:g}, {color:g} | {mode} | {difference.max():.3f} | {difference.mean():.4f} | {moved:.2%} |")
            if mode == "symmetric" and color == 13:
                shown = {"exact kernel": results[0], "lattice": results[1], "difference": difference}
    figure = Figure((13, 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 5)
    panels[0].imshow(image[0].permute(1, 2, 0).byte())
    panels[1].imshow(logits.softmax(1)[0].permute(1, 2, 0))
    for axes, (name, values) in zip(panels[2:], shown.items(), strict=True):
        axes.imshow(values[0].permute(1, 2, 0) / (1 if name != "difference" else values.max()))
        axes.set_title(name if name != "difference" else f"difference, up to {values.max():.3f}", fontsize=9)
    panels[0].set_title("photo", fontsize=9)
    panels[1].set_title("scores of three labels", fontsize=9)
    for axes in panels:
        axes.set_axis_off()
    figure.savefig(FIGURES / "dense_crf_exact.png", dpi=110)


if __name__ == "__main__":
    draw_lattice()
    compare()
