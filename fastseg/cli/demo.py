"""`fastseg demo`: two portraits segmented, and where the time goes with and without fastseg."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastseg.cli.errors import UserError
from fastseg.data.formats.images import read_image, write_image

if TYPE_CHECKING:
    from rich.table import Table

    from fastseg.cli.comparison import Case

# Portraits in the public domain, and the packages that ship them.
PORTRAITS = {
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
}
BAR = 11


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("demo_output"),
    model: Annotated[str | None, typer.Option(help="Model or shipped weights by name.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file, or shipped weights by name.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to measure.")] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Segment the portraits that matplotlib and scikit-image ship, and time every stage against stock PyTorch."""
    try:
        from fastseg.cli import charts
    except ImportError as error:
        raise UserError("the demo draws with matplotlib, which is not installed (pip install matplotlib)") from error
    import torch
    from rich.console import Console

    from fastseg.cli import pictures
    from fastseg.cli.network import load_network
    from fastseg.cli.segment import class_names

    console = Console(quiet=as_json, highlight=False)
    name, network = load_network(model, weights)
    names = class_names(network)
    colours = pictures.palette(len(names))
    photos = dict(_portraits(console))
    if not photos:
        raise UserError("no portrait found: install matplotlib or scikit-image, which ship one each")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({(error.strerror or str(error)).lower()})") from error
    console.print(f"[bold]fastseg demo[/bold]  model {name}, {torch.get_num_threads()} threads\n")
    written = {}
    for title, photo in photos.items():
        image = read_image(photo)
        labels = network.predict(torch.from_numpy(image)).numpy()
        written[title] = out / f"{title}.png"
        charts.portrait(written[title], image, labels, names, colours)
        console.print(f"  {written[title]}: photo, classes, background blurred", soft_wrap=True)
    console.print("\nFrom photo to labels, stock PyTorch and fastseg in turn:\n")
    cases = []
    for case in _cases(network, next(iter(photos.values())), seconds, console):
        cases.append(case)
        console.print(_table(case))
    chart = out / "stages.png"
    charts.comparison_chart(chart, cases)
    console.print(_remarks(cases, chart))
    if as_json:
        report = [{**asdict(case), "gain": case.gain} for case in cases]
        pictures_written = {title: str(path) for title, path in written.items()}
        typer.echo(json.dumps({"model": name, "pictures": pictures_written, "chart": str(chart), "cases": report}))


def _portraits(console: Any) -> Iterator[tuple[str, Path]]:
    for title, (package, inside) in PORTRAITS.items():
        found = util.find_spec(package)
        path = Path(found.origin).parent / inside if found and found.origin else None
        if path is not None and path.is_file():
            yield title, path
        else:
            console.print(f"{title}: skipped, because {package} is not installed")


def _cases(network: Any, photo: Path, seconds: float, console: Any) -> "Iterator[Case]":
    """The photo as `predict` shows it to the network, at its own resolution, and twice as large.

    A case that the rest of the time cannot hold, judged by the one before it, is left out with a line that says so.
    """
    import numpy as np
    from PIL import Image

    from fastseg.cli.comparison import Contest, compare

    image = read_image(photo)
    height, width = image.shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.png"
        write_image(large, np.asarray(Image.fromarray(image).resize((2 * width, 2 * height))))
        plans = [
            ("as predicted", photo, network.preprocess.longer_side),
            ("at its own resolution", photo, None),
            ("twice as large", large, None),
        ]
        start, per_pixel = time.perf_counter(), 0.0
        for number, (what, path, longer_side) in enumerate(plans):
            contest = Contest(network, path, longer_side)
            factor = 2 if path == large else 1
            shown = contest.preprocess.size(height * factor, width * factor)
            left = start + seconds - time.perf_counter()
            if number and 3 * per_pixel * shown[0] * shown[1] > 2 * max(left, 0.0):
                console.print(f"{photo.stem} {what}: left out, because this machine is busy or slow (see --seconds)")
                continue
            before = time.perf_counter()
            case = compare(contest, f"{photo.stem} {what}", max(0.0, left) / (len(plans) - number))
            per_pixel = (time.perf_counter() - before) / case.rounds / (shown[0] * shown[1])
            yield case


def _table(case: "Case") -> "Table":
    """Stages in milliseconds; a bar's solid part is fastseg's time, its light part what stock PyTorch needs beyond it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fastseg.profiler.stages import LABELS

    sizes = [f"{width} x {height}" for height, width in (case.photo, case.network)]
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"[bold]{case.title}[/bold]: photo {sizes[0]}, network {sizes[1]}",
        title_justify="left",
        title_style="",
    )
    table.add_column("stage", no_wrap=True)
    for title in ("PyTorch ms", "fastseg ms", "faster"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", width=BAR, no_wrap=True)
    stock, ours = case.stock, case.ours
    rows = {stage: (spread, spread) for stage, spread in case.shared.items()} | {LABELS: (stock.last, ours.last)}
    longest = max(spread.median for pair in rows.values() for spread in pair)
    for stage, (theirs, mine) in rows.items():
        solid = round(BAR * mine.median / longest)
        light = max(0, round(BAR * theirs.median / longest) - solid)
        bar = f"[dark_orange]{'█' * solid or '▏'}[/dark_orange]{'░' * light}"
        faster = f"{case.gain:.1f}x" if stage == LABELS else "same code"
        table.add_row(stage, str(theirs), str(mine), faster, bar)
    table.add_section()
    table.add_row("all", str(stock.total), str(ours.total), f"{stock.total.median / ours.total.median:.2f}x")
    table.add_row("peak memory", _megabytes(stock.peak_bytes), _megabytes(ours.peak_bytes))
    table.add_row("of the last stage", _megabytes(stock.last_peak_bytes), _megabytes(ours.last_peak_bytes))
    pixels = case.photo[0] * case.photo[1]
    same = "yes" if not case.labels_different else f"no, {case.labels_different} of {pixels} pixels differ"
    table.add_row("labels equal", "", same)
    return table


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _remarks(cases: "list[Case]", chart: Path) -> str:
    trials = "; ".join(", ".join(f"{name} {ms:.0f} ms" for name, ms in case.trial_ms.items()) for case in cases)
    return (
        f"Chart: {chart}\n\n"
        "Milliseconds are medians with p20 to p80. Bars: solid is fastseg, light is what PyTorch takes beyond it. The "
        "network is the same PyTorch code on both sides and runs once for both; fastseg makes interpolate + argmax "
        f"one kernel (here {cases[0].path}). The memory layout is that in which PyTorch was faster in a trial "
        f"({trials}). Peak memory is the high-water mark of torch's allocator; what oneDNN takes by itself is not in it."
    )
