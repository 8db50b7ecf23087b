"""`fastseg profile`: where the milliseconds of a model go."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastseg.cli.errors import UserError

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
    from fastseg.profiler.models import resolve
    from fastseg.profiler.report import measure, write_trace

    target = resolve(model, classes)
    report = measure(target, pixels, seconds)
    written = {}
    try:
        if chart is not None:
            from fastseg.cli.charts import profile_chart

            profile_chart(report, chart)
            written["chart"] = str(chart)
        if trace is not None:
            write_trace(target, pixels, trace)
            written["trace"] = str(trace)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{error.filename or chart or trace}: cannot be written ({reason})") from error
    if as_json:
        typer.echo(json.dumps({**report.as_dict(), **written}))
        return
    from rich.console import Console

    console = Console()
    console.print(*_lines(report), sep="\n")
    for kind, path in written.items():
        console.print(f"{kind} in {path}")


def parse_size(text: str) -> tuple[int, int]:
    """Read `HxW`."""
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(f"--size must be HEIGHTxWIDTH, such as 512x512, got {text!r}")
    return int(height), int(width)


def _lines(report: "Report") -> "list[RenderableType]":
    """Everything that is printed: the whole, the table, what fusing saves."""
    whole = (
        f"[bold]{report.model}[/bold]  1x3x{report.size[0]}x{report.size[1]} float32, {report.threads} threads, "
        f"{report.rounds} rounds: {report.total_ms} ms in all, peak memory {report.peak_bytes / 1e6:.1f} MB"
    )
    ceiling = report.ceiling_flops
    below = (
        f"ceiling: {ceiling / 1e9:.0f} GFLOP/s of fused multiply-adds, measured here"
        if ceiling
        else "no ceiling: fastseg._C, which measures it, is not built"
    )
    return [whole, _table(report), below, _saving(report.replacement)]


def _table(report: "Report") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("stage")
    for title in ("ms [p20-p80]", "%", "GFLOP", "GFLOP/s", "of ceiling", "parameters", "tensors MB"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("replaceable by")
    last = report.replacement
    for stage in report.stages:
        works = stage.flops > 0
        replaceable = ""
        if stage.name == "upsample + argmax" and last is not None:
            replaceable = "fused already" if last.in_use else "fastseg.ops.upsample_argmax"
        table.add_row(
            stage.name,
            str(stage.ms),
            f"{stage.share:.1%}",
            f"{stage.flops / 1e9:.2f}" if works else "",
            f"{stage.gflops:.1f}" if works else "",
            f"{1e9 * stage.gflops / report.ceiling_flops:.0%}" if works and report.ceiling_flops else "",
            f"{stage.parameters:,}" if stage.parameters else "",
            f"{stage.activation_bytes / 1e6:.1f}",
            replaceable,
        )
    return table


def _saving(last: "Replacement | None") -> str:
    if last is None:
        return "nothing to fuse: the labels need no bilinear upsampling"
    same = "labels equal" if not last.labels_different else f"{last.labels_different} of {last.labels} labels differ"
    return (
        f"upsample + argmax: plain PyTorch {last.plain_ms} ms and {last.plain_peak_bytes / 1e6:.1f} MB, "
        f"upsample_argmax ({last.path}) {last.fused_ms} ms and {last.fused_peak_bytes / 1e6:.1f} MB, "
        f"{last.plain_ms.median / last.fused_ms.median:.1f}x; {same}"
    )
