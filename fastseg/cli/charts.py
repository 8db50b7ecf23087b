"""Figures: a segmented portrait, the demo's comparison, a model's profile. Drawn off screen, whatever the display."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from fastseg.cli.pictures import Array, blur_background, overlay
from fastseg.data.formats.images import write_image
from fastseg.profiler.stages import LABELS

if TYPE_CHECKING:
    from fastseg.cli.comparison import Case
    from fastseg.profiler.report import Report

STOCK, OURS = "#8c9bab", "#ee7733"
# load, backbone, head, upsample + argmax
STAGE_COLOURS = ("#bbbbbb", "#0077bb", "#33bbee", OURS)


def _figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def portrait(path: Path, image: Array, labels: Array, names: Sequence[str], colours: Array) -> None:
    """Draw photo, class overlay with its legend, and the photo with its background blurred, side by side.

    Args:
        path: PNG to write.
        image: uint8 RGB ``[H, W, 3]``.
        labels: uint8 ``[H, W]``; class 0 is the background.
        names: of the classes.
        colours: uint8 ``[C, 3]``.
    """
    height, width = labels.shape
    gap, above, below, dpi = 16, 44, 56, 100
    size = (3 * width + 4 * gap, height + above + below)
    figure = Figure((size[0] / dpi, size[1] / dpi), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = {
        "photo": image,
        "classes": overlay(image, labels, colours),
        "background blurred": blur_background(image, labels),
    }
    for column, (title, panel) in enumerate(panels.items()):
        left = gap + column * (width + gap)
        place = (left / size[0], below / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(place)
        axes.imshow(panel, interpolation="none")
        axes.set_axis_off()
        axes.set_title(title, loc="left", fontsize=13, color="#333333")
    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    patches = [
        Patch(color=colours[i] / 255, label=f"{names[i]} {shares[i]:.0%}")
        for i in np.argsort(-shares, kind="stable")
        if i and shares[i] >= 0.001
    ]
    figure.legend(handles=patches, loc="lower center", ncols=max(1, len(patches)), frameon=False, fontsize=12)
    canvas.draw()
    write_image(path, np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def edges(path: Path, image: Array, before: Array, after: Array, colours: Array) -> None:
    """Draw where a CRF changed the labels most: the whole overlay, and a close-up of it before and after.

    Args:
        path: PNG to write.
        image: uint8 RGB ``[H, W, 3]``.
        before: labels of the network, uint8 ``[H, W]``.
        after: those of the CRF.
        colours: uint8 ``[C, 3]``.
    """
    top, left, side = busiest(before != after)
    figure = _figure(12, 4.4)
    whole, *close = figure.subplots(1, 3)
    pictures = overlay(image, before, colours), overlay(image, after, colours)
    share = (before != after).mean()
    whole.imshow(pictures[1])
    whole.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="white", linewidth=2))
    whole.set_title(f"dense CRF: {share:.1%} of the labels changed", loc="left", fontsize=11)
    for axes, picture, title in zip(close, pictures, ("before", "after"), strict=True):
        axes.imshow(picture[top : top + side, left : left + side], interpolation="nearest")
        axes.set_title(title, loc="left", fontsize=11)
    for axes in (whole, *close):
        axes.set_axis_off()
    figure.savefig(path, dpi=140)


def busiest(changed: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Top, left and side of the square, a third of the shorter side, that holds most of what is true."""
    side = max(1, min(changed.shape) // 3)
    sums = np.pad(changed.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    within = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(within.argmax(), within.shape)
    return int(top), int(left), side


def comparison_chart(path: Path, cases: "Sequence[Case]") -> None:
    """Draw every case of the demo: all stages on the left, the last one alone on the right.

    Args:
        path: PNG to write.
        cases: as measured.
    """
    figure = _figure(11, 1.5 + 1.15 * len(cases))
    whole, last = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    places: dict[float, str] = {}
    for row, case in enumerate(cases):
        whole.text(0, row - 0.4, f" {case.title}", fontsize=10, fontweight="bold", va="center")
        for y, name, variant in ((row - 0.12, "PyTorch", case.stock), (row + 0.22, "fastseg", case.ours)):
            places[y] = name
            left, final = 0.0, variant.last
            for (stage, timing), colour in zip({**case.shared, LABELS: final}.items(), STAGE_COLOURS, strict=True):
                whole.barh(y, timing.ms, left=left, height=0.28, color=colour, label=stage if y < 0 else None)
                left += timing.ms
            whole.text(left, y, f" {variant.total.ms:.0f} ms", va="center", fontsize=9)
            error = [[final.ms - final.ms20], [final.ms80 - final.ms]]
            colour = STOCK if variant is case.stock else OURS
            last.barh(y, final.ms, xerr=error, height=0.28, color=colour, ecolor="#555555")
            gain = f", {case.gain:.1f}x faster" if variant is case.ours else ""
            last.text(final.ms80, y, f"  {final.ms:.1f} ms{gain}", va="center", fontsize=9)
    whole.set_yticks(list(places), list(places.values()))
    whole.set_ylim(len(cases) - 0.5, -0.6)
    whole.set_title("photo to labels", loc="left", fontsize=11)
    last.set_title("upsample + argmax alone", loc="left", fontsize=11)
    last.tick_params(axis="y", left=False)
    sides = [side for case in cases for side in (case.stock, case.ours)]
    whole.set_xlim(0, 1.15 * max(side.total.ms for side in sides))
    # Logarithmic, because a large photo's time would leave no bar of a small one's.
    last.set_xscale("log")
    last.set_xlim(0.3 * min(side.last.ms20 for side in sides), 20 * max(side.last.ms80 for side in sides))
    for axes in (whole, last):
        axes.set_xlabel("ms, median" if axes is whole else "ms, median, logarithmic")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(STAGE_COLOURS), frameon=False)
    figure.savefig(path, dpi=140)


def profile_chart(report: "Report", path: Path) -> None:
    """Draw the stages of a profile as bars, median with p20 to p80."""
    stages = report.stages[::-1]
    figure = _figure(8, 1.2 + 0.42 * len(stages))
    axes = figure.subplots()
    medians = [stage.timing.ms for stage in stages]
    spread = [[s.timing.ms - s.timing.ms20 for s in stages], [s.timing.ms80 - s.timing.ms for s in stages]]
    axes.barh([s.name for s in stages], medians, xerr=spread, color="#0077bb", ecolor="#555555", height=0.62)
    reach = max(stage.timing.ms80 for stage in stages)
    for y, stage in enumerate(stages):
        axes.text(stage.timing.ms80 + 0.015 * reach, y, f"{stage.timing.ms:.1f} ms, {stage.share:.0%}", va="center")
    last = report.replacement
    if last is not None and not last.in_use:
        y = [stage.name for stage in stages].index("upsample + argmax")
        axes.barh(y, last.fused.ms, color="#ee7733", height=0.3, label="with fastseg.ops.upsample_argmax")
        axes.legend(loc="lower right", frameon=False)
    axes.set_xlim(0, 1.25 * reach)
    axes.set_xlabel("ms (median, p20 to p80)")
    axes.set_title(f"{report.model} at {report.size[0]}x{report.size[1]}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
