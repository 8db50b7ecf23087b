"""``fastseg bench``: time one op against what it replaces."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fastseg.cli.tables import milliseconds

if TYPE_CHECKING:
    from fastseg.testing.bench import Row


def bench(
    op: Annotated[str, typer.Argument(help="Op, for example upsample_argmax.")],
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the ops run.")] = "cpu",
    case: Annotated[
        list[str] | None, typer.Option(help="Row of the table of cases (repeatable); all timed rows.")
    ] = None,
    mode: Annotated[str, typer.Option(help="forward, backward or both.")] = "forward",
    dtype: Annotated[str, typer.Option(help="Of the inputs: float32, bfloat16, uint8 ...")] = "float32",
    layout: Annotated[str, typer.Option(help="contiguous, channels_last, sliced or permuted.")] = "contiguous",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to measure each row.")] = 4.0,
    compiled: Annotated[bool, typer.Option(help="Let torch.compile compete.")] = True,
    submit: Annotated[
        Path | None, typer.Option(help="Append the rows to this file, in the format of benchmarks/results.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the op, then print medians, p20 to p80, speed-ups, peak memory and the share of the machine's ceiling.

    The exit code is 3 where --device cuda finds no GPU.
    """
    import torch

    from fastseg import testing
    from fastseg.cli.errors import UserError, checked_file, need_gpu
    from fastseg.testing.bed import cpu_bed, cuda_bed
    from fastseg.testing.bench import best_rival, measure_row
    from fastseg.testing.results import load, store

    if device == "cuda":
        need_gpu()
    if submit and checked_file("--submit", submit).exists():
        try:
            load(submit)
        except ValueError as error:
            raise UserError(f"--submit must be a file of JSON lines, got {submit}: {error}") from error
    rows = [c for c in testing.find_cases(op) if c.id in case] if case else testing.find_cases(op, "bench")
    missing = set(case or ()) - {c.id for c in rows}
    if not rows or missing:
        known = sorted({c.op for c in testing.find_cases()} if not testing.find_cases(op) else
                       {c.id for c in testing.find_cases(op)})  # fmt: skip
        raise UserError(f"no such op or case: {', '.join(sorted(missing)) or op}; there are {', '.join(known)}")
    if mode not in ("forward", "backward", "both"):
        raise UserError(f"--mode must be forward, backward or both, got {mode}")
    if layout not in testing.LAYOUTS:
        raise UserError(f"--layout must be one of {', '.join(testing.LAYOUTS)}, got {layout}")
    number: Any = getattr(torch, dtype, None)
    for row in rows:
        if number not in row.dtypes:
            taken = ", ".join(str(d).removeprefix("torch.") for d in row.dtypes)
            raise UserError(f"--dtype must be one of {taken} for {row.name}, got {dtype}")

    bed = cuda_bed(threads) if device == "cuda" else cpu_bed(threads)
    measured = []
    for row in rows:
        try:
            lines = measure_row(row, mode, bed=bed, dtype=number, layout=layout, seconds=seconds, compiled=compiled)
        except AssertionError as error:
            raise UserError(f"check   {row.name}: FAIL, so no speed is shown: {error}") from error
        except RuntimeError as error:
            raise UserError(f"{row.name} must run on ours and on every rival, got {error}") from error
        if submit:
            store(submit, lines)
        measured.append(lines)
    if as_json:
        typer.echo(json.dumps([line for lines in measured for line in lines], indent=1))
        return

    typer.echo(_environment(measured[0][0]))
    for row, lines in zip(rows, measured, strict=True):
        ours = lines[0]
        typer.echo(f"\ncheck   {row.name} {mode} {dtype} {layout}: within tolerance of float64   PASS")
        typer.echo(f"floor   bytes {ours['bytes'] / 1e6:.2f} MB; ops {ours['flops'] / 1e6:.0f} MFLOP")
        if device == "cuda":
            typer.echo(_prediction(ours))
        typer.echo(_table(lines))
    faster = sum(lines[0]["ms"] < best_rival(lines)["ms"] for lines in measured)
    typer.echo(f"\nverdict: faster than every rival in {faster} of {len(rows)} rows")


def _environment(row: "Row") -> str:
    from fastseg import __version__

    state = f"{row['commit']}{' dirty' if row['dirty'] else ''}"
    gpu = f"{row['device']}, driver {row['driver']}, " if "device" in row else ""
    clocks = row.get("clocks", "clocks not locked")
    return (
        f"env     {gpu}{row['cpu']} {row['isa']} | torch {row['torch']} "
        f"| fastseg {__version__} ({state}) | threads {row['threads']} | {clocks}"
    )


def _prediction(row: "Row") -> str:
    """What was predicted beside what was measured."""
    if row["predicted_ms"] is None:
        return f"predict none: {row['device']} is not in the table of devices"
    share = f"{100 * row['predicted_ms'] / row['ms']:.0f} %"
    return f"predict {milliseconds(row['predicted_ms'])} ms, bound by {row['bound']}: {share} of the time measured"


def _table(lines: "list[Row]") -> str:
    """One line for each contender, columns aligned."""
    eager = next(line["ms"] for line in lines if line["backend"] == "eager")
    head = ("impl", "path", "p50 ms", "[p20-p80]", "vs eager", "peak MiB", "% of ceiling")
    cells = [head]
    for line in lines:
        share, peak = line["share_of_ceiling"], line["peak_mib"]
        cells.append(
            (
                line["backend"],
                line["path"],
                milliseconds(line["ms"]),
                f"[{milliseconds(line['ms20'])}-{milliseconds(line['ms80'])}]",
                f"{eager / line['ms']:.2f}x",
                "" if peak is None else f"{peak:.1f}",
                "" if share is None else f"{100 * share:.1f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = (
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    )
    return "\n".join(text)
