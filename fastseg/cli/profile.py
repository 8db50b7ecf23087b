"""`fastseg profile`: where the milliseconds of a model go."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastseg.cli.errors import UserError
from fastseg.cli.tables import megabytes, spread

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fastseg.profiler.report import Replacement, Report


def profile(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Our model by name, FILE.py:FUNCTION, torchvision:NAME or smp:NAME.")
    ],
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of the image.")] = "512x512",
    classes: Annotated[int, typer.Option(min=2, help="Number of classes, where the model takes one.")] = 21,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to measure.")] = 8.0,
    chart: Annotated[Path | None, typer.Option("--out", "-o", help="Write a chart to this PNG.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace (for ui.perfetto.dev) to this JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a model stage by stage, and show what fusing its last upsampling with the argmax would save."""
    pixels = parse_size(size)
    for path, suffix in ((chart, ".png"), (trace, ".json")):
        if path is not None and (path.suffix != suffix or not path.parent.is_dir()):
            raise UserError(f"{path}: must be a {suffix} file in a folder that exists")
    from fastseg.profiler.models import resolve
    from fastseg.profiler.report import measure, write_trace

    target = resolve(model, classes)
    report = measure(target, pixels, seconds)
    written = {}
    if chart is not None:
        from fastseg.cli.charts import profile_chart

        profile_chart(report, chart)
        written["chart"] = str(chart)
    if trace is not None:
        write_trace(target, pixels, trace)
        written["trace"] = str(trace)
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), **written}))
        return
    from rich.console import Console

    console = Console()
    console.print(*_lines(report), sep="\n")
    for kind, place in written.items():
        console.print(f"{kind} in {place}", markup=False, soft_wrap=True)


def parse_size(text: str) -> tuple[int, int]:
    """Read `HxW`."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(f"--size must be HEIGHTxWIDTH, such as 512x512, got {text!r}")
    return int(height), int(width)


def _lines(report: "Report") -> "list[RenderableType]":
    """Everything that is printed: the whole, the table, what fusing saves."""
    from rich.markup import escape

    whole = (
        f"[bold]{escape(report.model)}[/bold]  1x3x{report.size[0]}x{report.size[1]} float32, "
        f"{report.threads} threads, {report.total.rounds} rounds: {spread(report.total)} ms in all, "
        f"peak memory {megabytes(report.peak_bytes)} MB"
    )
    ceiling = report.ceiling_flops
    below = "MB: bytes of the tensors that the stage creates. Peak: " + (
        f"{ceiling / 1e9:.0f} GFLOP/s of fused multiply-adds, measured here."
        if ceiling
        else "unknown, because fastseg._C, which measures it, is not built."
    )
    return [whole, _table(report), below, _saving(report.replacement)]


def _table(report: "Report") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from fastseg.profiler.stages import LABELS

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    for title in (r"ms \[p20-p80]", "%", "GFLOP", "per s", "of peak", "weights", "MB"):
        table.add_column(title, justify="right", no_wrap=True)
    last = report.replacement
    for stage in report.stages:
        works = stage.flops > 0
        table.add_row(
            escape(stage.name),
            spread(stage.timing),
            f"{100 * stage.share:.0f}",
            f"{stage.flops / 1e9:.2f}" if works else "",
            f"{stage.gflops:.0f}" if works else "",
            f"{1e9 * stage.gflops / report.ceiling_flops:.0%}" if works and report.ceiling_flops else "",
            f"{stage.parameters / 1e6:.2f}M" if stage.parameters else "",
            megabytes(stage.activation_bytes),
        )
        if stage.name == LABELS and last is not None and not last.in_use:
            share = f"{100 * last.fused.ms / report.total.ms:.0f}"
            memory = megabytes(last.fused_peak_bytes)
            table.add_row("  replaceable by", spread(last.fused), share, "", "", "", "", memory, style="dark_orange")
    return table


def _saving(last: "Replacement | None") -> str:
    if last is None:
        return "Nothing to fuse: the labels need no bilinear upsampling."
    same = "labels equal" if not last.labels_different else f"{last.labels_different} of {last.labels} labels differ"
    state = "is fused already" if last.in_use else "is replaceable by fastseg.ops.upsample_argmax"
    return (
        f"upsample + argmax {state}: {last.plain.ms / last.fused.ms:.1f}x faster ({last.path}) than plain PyTorch, "
        f"{spread(last.fused)} against {spread(last.plain)} ms, "
        f"{megabytes(last.fused_peak_bytes)} against {megabytes(last.plain_peak_bytes)} MB; {same}."
    )
