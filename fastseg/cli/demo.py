"""`fastseg demo`: two portraits segmented, and where the time goes with and without fastseg."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastseg.cli.errors import UserError, reason
from fastseg.data.formats.images import read_image
from fastseg.ops.dense_crf_presets import DEFAULT, dense_crf_preset

if TYPE_CHECKING:
    from rich.table import Table

    from fastseg.cli.comparison import Case

# Portraits in the public domain, and the packages that ship them.
PORTRAITS = {
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
}
# What is measured: enlarged by a factor, and shown to the network in full or at the size of its preprocessing.
CASES = (
    ("four times as large", 4, False),
    ("as it is", 1, False),
    ("as it is, in full to the network", 1, True),
    ("twice as large, in full to the network", 2, True),
)
BAR = 11


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("demo_output"),
    model: Annotated[str | None, typer.Option(help="Model or shipped weights by name.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights file, or shipped weights by name.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to measure.")] = 16.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Segment the portraits that matplotlib and scikit-image ship, and time every stage against stock PyTorch."""
    try:
        from fastseg.cli import charts
    except ImportError as error:
        raise UserError("the demo draws with matplotlib, which is not installed (pip install matplotlib)") from error
    import torch
    from rich.console import Console
    from rich.markup import escape

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
        raise UserError(f"{out}: cannot be made a folder ({reason(error)})") from error
    console.print(f"[bold]fastseg demo[/bold]  model {escape(name)}, {torch.get_num_threads()} threads\n")
    written = {}
    for title, photo in photos.items():
        image = read_image(photo)
        labels = network.predict(torch.from_numpy(image)).numpy()
        written[title] = out / f"{title}.png"
        charts.portrait(written[title], image, labels, names, colours)
        console.print(f"  {written[title]}: photo, classes, background blurred", soft_wrap=True, markup=False)
        start = time.perf_counter()
        refined = network.predict(torch.from_numpy(image), dense_crf_preset(DEFAULT)).numpy()
        took = time.perf_counter() - start
        written[f"{title}_crf"] = out / f"{title}_crf.png"
        charts.edges(written[f"{title}_crf"], image, labels, refined, colours)
        what = f"edges before and after a dense CRF, {took:.1f} s with the network"
        console.print(f"  {written[f'{title}_crf']}: {what}", soft_wrap=True, markup=False)
    console.print("\nFrom photo to labels, stock PyTorch and fastseg in turn:\n")
    cases = []
    for case in _cases(network, next(iter(photos.values())), seconds, console):
        cases.append(case)
        console.print(_table(case), _verdict(case), sep="")
    chart = out / "stages.png"
    charts.comparison_chart(chart, cases)
    console.print(_remarks(cases, chart), markup=False)
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
    """The photo enlarged to 5 megapixels and as it is, as `predict` shows them to the network; then shown in full.

    A case that the rest of the time cannot hold, judged by the one before it, is left out with a line that says so.
    """
    from PIL import Image

    from fastseg.cli.comparison import Contest, compare

    image = Image.fromarray(read_image(photo))
    contest = Contest(network)
    start, pace = time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, (what, factor, in_full) in enumerate(CASES):
            longer_side = None if in_full else network.preprocess.longer_side
            width, height = image.width * factor, image.height * factor
            file = Path(folder) / f"{factor}.jpg"
            image.resize((width, height)).save(file, quality=92)
            shown = replace(network.preprocess, longer_side=longer_side).size(height, width)
            # Passes over the photo's pixels are cheap beside the network's over those that it is shown.
            work = shown[0] * shown[1] + width * height / 32
            left = start + seconds - time.perf_counter()
            if number and pace * work > 2 * left:
                console.print(f"{photo.stem} {what}: left out, because this machine is busy or slow (--seconds)\n")
                continue
            case = compare(contest, file, longer_side, f"{photo.stem} {what}", left / (len(CASES) - number))
            pace = 8e-3 * case.stock.total.ms / work  # warm-up, trials, three rounds and the memory: about 8 passes
            yield case


def _table(case: "Case") -> "Table":
    """Stages in milliseconds; a bar's solid part is fastseg's time, its light part what PyTorch needs beyond it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fastseg.cli.tables import megabytes, spread
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
    rows = {stage: (timing, timing) for stage, timing in case.shared.items()} | {LABELS: (stock.last, ours.last)}
    longest = max(timing.ms for pair in rows.values() for timing in pair)
    for stage, (theirs, mine) in rows.items():
        solid, whole = (round(BAR * timing.ms / longest) for timing in (mine, theirs))
        bar = f"[dark_orange]{'█' * solid or '▏'}[/dark_orange]{'░' * (whole - max(solid, 1))}"
        faster = f"{case.gain:.1f}x" if stage == LABELS else "same code"
        table.add_row(stage, spread(theirs), spread(mine), faster, bar)
    table.add_section()
    table.add_row("all", spread(stock.total), spread(ours.total), f"{stock.total.ms / ours.total.ms:.2f}x")
    table.add_row("peak MB", megabytes(stock.peak_bytes), megabytes(ours.peak_bytes))
    table.add_row("  of the last", megabytes(stock.last_peak_bytes), megabytes(ours.last_peak_bytes))
    return table


def _verdict(case: "Case") -> str:
    """Whether the labels agree, and in which memory layout all this was."""
    pixels = case.photo[0] * case.photo[1]
    equal = "yes" if not case.labels_different else (
        f"no, {case.labels_different} of {pixels:,} differ, where two classes lie within {case.tie_gap:.0e}"
    )  # fmt: skip
    trials = ", ".join(f"{name} {ms:.0f} ms" for name, ms in case.trial_ms.items())
    return (
        f"labels equal: {equal}\n{case.layout}, the faster layout for PyTorch here ({trials}); {case.rounds} rounds\n"
    )


def _remarks(cases: "list[Case]", chart: Path) -> str:
    return (
        f"Chart: {chart}\n\n"
        "Milliseconds are medians with p20 to p80. Bars: solid is fastseg, light is what PyTorch takes beyond it. The "
        "network is the same PyTorch code on both sides and runs once for both; fastseg makes interpolate + argmax "
        f"one kernel (here {cases[0].path}). Peak memory is the high-water mark of torch's allocator; what oneDNN "
        "takes by itself is not in it."
    )
