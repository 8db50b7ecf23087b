"""``fastseg gpu-report``: what the compilers make of the GPU kernels, and times predicted from it, without a GPU."""

import json
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fastseg.testing.ladder.gate import Row
    from fastseg.testing.ladder.static import Report


def gpu_report(
    arch: Annotated[int | None, typer.Option(help="Architecture, for example 90; the worst of each kernel.")] = None,
    kernel: Annotated[str, typer.Option(help="Kernels by pattern, for example 'upsample/argmax*'.")] = "*",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile anew, judge, and write the rows (in a checkout).")
    ] = False,
    accept: Annotated[bool, typer.Option(help="With --compile: take numbers of instructions as they now are.")] = False,
    predict: Annotated[bool, typer.Option(help="Print predicted times instead.")] = False,
    device: Annotated[list[str] | None, typer.Option(help="GPU to predict for (repeatable); all.")] = None,
    dtype: Annotated[str, typer.Option(help="To predict for: float32, float64, bfloat16 or float16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print registers, shared memory, occupancy and instructions of every GPU kernel, as its machine code has them.

    With --compile the exit code is 1 where a kernel breaks a promise, and nothing is written then; it is 3 where nvcc
    or triton is missing.
    """
    from fastseg.cli.errors import UserError
    from fastseg.testing.ladder.devices import ARCHS
    from fastseg.testing.ladder.static import load

    if arch is not None and arch not in ARCHS:
        raise UserError(f"--arch must be one of {', '.join(map(str, ARCHS))}, got {arch}")
    if accept and not compile_:
        raise UserError("--accept must be given with --compile")
    if device and not predict:
        raise UserError("--device must be given with --predict")
    report = _compile(accept, as_json) if compile_ else None
    if report and report.faults:
        raise typer.Exit(1)
    if predict:
        _predict(dtype, device, as_json)
        return
    rows = [row for row in load() if fnmatchcase(row["kernel"], kernel) and arch in (None, row["arch"])]
    if not rows:
        raise UserError("no rows: benchmarks/results of a checkout has them, and --kernel must match some")
    if as_json:
        typer.echo(json.dumps(rows))
        return
    _print(rows if arch else worst(rows), "sm_" + str(arch) if arch else "each kernel where it fares worst")


def _compile(accept: bool, quiet: bool) -> "Report":
    """Compile, judge and, where every gate holds, write the rows."""
    from rich.console import Console
    from rich.progress import Progress

    from fastseg.cli.errors import Lacking, UserError
    from fastseg.testing.ladder import static, toolchain
    from fastseg.testing.ladder.devices import ARCHS
    from fastseg.testing.ladder.sources import find_sources

    sources = find_sources()
    if not sources:
        raise UserError("--compile must be given in a checkout, which has the sources of the kernels")
    try:
        toolchain.require(tuple({source.language for source in sources}))
    except toolchain.MissingTool as error:
        raise Lacking(str(error)) from error
    with Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
        bar = progress.add_task("compile", total=len(sources) * len(ARCHS))
        stored = () if accept else static.load()
        report = static.check(sources, stored=stored, done=lambda _: progress.advance(bar))
    for line in report.notes:
        typer.echo(f"note: {line}", err=True)
    for line in report.faults:
        typer.echo(f"FAIL {line}", err=True)
    if not report.faults:
        static.save(report.rows)
    return report


def worst(rows: "list[Row]") -> "list[Row]":
    """Of each kernel the row with the lowest occupancy, then the most registers and instructions."""
    found: dict[str, Any] = {}
    for row in sorted(rows, key=lambda r: (-r["occupancy"], r["registers"], r["instructions"])):
        found[row["kernel"]] = row
    return [found[name] for name in sorted(found)]


def _print(rows: "list[Row]", what: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fastseg.testing.ladder.gate import wide_share

    compilers = ", ".join(sorted({row["compiler"] for row in rows}))
    table = Table(box=SIMPLE_HEAD, title=f"GPU kernels, {what} ({compilers})", title_justify="left")
    table.add_column("kernel", no_wrap=True)
    for name in ("sm", "registers", "shared", "local", "occupancy", "instr.", "loads", "stores", "barriers", "tensor"):
        table.add_column(name, justify="right")
    for row in rows:
        wide = (f"{sum(row[what].values())}, {wide_share(row[what], 128):.0%}" for what in ("loads", "stores"))
        cells = (row["arch"], row["registers"], row["shared"] + row["dynamic"], row["local"])
        rest = (row["instructions"], *wide, row["barriers"], row["tensor_cores"])
        table.add_row(row["kernel"], *map(str, cells), f"{row['occupancy']:.0%}", *map(str, rest))
    _show(table, "loads, stores: instructions on global memory, and how many of them move 128 bits or more per thread")


def _predict(dtype: str, names: list[str] | None, as_json: bool) -> None:
    import torch
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from fastseg.cli.errors import UserError
    from fastseg.testing import FLOATS
    from fastseg.testing.ladder import prediction
    from fastseg.testing.ladder.devices import DEVICES, find_device

    number = getattr(torch, dtype, None)
    if number not in FLOATS:
        raise UserError(f"--dtype must be a floating dtype, got {dtype}")
    try:
        devices = tuple(find_device(name).name for name in names or [device.name for device in DEVICES])
    except LookupError as error:
        raise UserError(f"--device: {error}") from error
    lines = prediction.table(number, devices)
    if as_json:
        told = [
            {"op": c.op, "case": c.id, "mode": m, "dtype": dtype, "predicted": [*map(asdict, p)]} for c, m, p in lines
        ]
        typer.echo(json.dumps(told))
        return
    table = Table(box=SIMPLE_HEAD, title=f"Predicted times in ms, {dtype}: nothing of this is measured")
    table.add_column("op and case", no_wrap=True)
    for name in devices:
        table.add_column(name, justify="right")
    for case, mode, predicted in lines:
        table.add_row(f"{case.op} {mode} {case.id}", *(f"{p.ms:.3f} {p.bound[0]}" for p in predicted))
    blind = sorted({case.op for case, _, predicted in lines if not all(p.kernels for p in predicted)})
    without = f"; without rows of the compilers, so at full occupancy: {', '.join(blind)}" if blind else ""
    _show(table, "m: bound by memory; c: by arithmetic and the instructions around it" + without)


def _show(table: "Table", legend: str) -> None:
    """The table in its full width, whatever the terminal's: a column that is left out would be missed."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
    console.print(legend)
