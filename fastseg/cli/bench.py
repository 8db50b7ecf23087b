"""``fastseg bench``: time one op against what it replaces."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fastseg.testing.bench import Row


def bench(
    op: Annotated[str, typer.Argument(help="Op, for example upsample_argmax.")],
    case: Annotated[
        list[str] | None, typer.Option(help="Row of the table of cases (repeatable); all timed rows.")
    ] = None,
    mode: Annotated[str, typer.Option(help="forward, backward or both.")] = "forward",
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")] = "float32",
    layout: Annotated[str, typer.Option(help="contiguous, channels_last, sliced or permuted.")] = "contiguous",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to measure each row.")] = 4.0,
    compiled: Annotated[bool, typer.Option(help="Let torch.compile compete.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the op, then print medians, p20 to p80, speed-ups, peak memory and the share of the machine's ceiling."""
    import torch

    from fastseg import __version__, testing
    from fastseg.cli.errors import UserError
    from fastseg.profiler import measure
    from fastseg.testing.bench import best_rival, commit, measure_row

    rows = [c for c in testing.find_cases(op) if c.id in case] if case else testing.find_cases(op, "bench")
    missing = set(case or ()) - {c.id for c in rows}
    if not rows or missing:
        known = sorted({c.op for c in testing.find_cases()} if not testing.find_cases(op) else
                       {c.id for c in testing.find_cases(op)})  # fmt: skip
        raise UserError(f"no such op or case: {', '.join(sorted(missing)) or op}; there are {', '.join(known)}")
    number = getattr(torch, dtype, None)
    if number not in testing.FLOATS or layout not in testing.LAYOUTS:
        raise UserError(f"--dtype must be a floating dtype and --layout one of {', '.join(testing.LAYOUTS)}")

    revision, dirty = commit()
    measured = []
    for row in rows:
        try:
            measured.append(
                measure_row(row, mode, dtype=number, layout=layout, threads=threads, seconds=seconds, compiled=compiled)
            )
        except AssertionError as error:
            raise UserError(f"check   {row.name}: FAIL, so no speed is shown: {error}") from error
    if as_json:
        typer.echo(json.dumps([line for lines in measured for line in lines], indent=1))
        return

    state = f"{revision}{' dirty' if dirty else ''}"
    typer.echo(
        f"env     {measure.machine()} {testing.best_isa()} | torch {torch.__version__} "
        f"| fastseg {__version__} ({state}) | threads {threads} | clocks not locked"
    )
    faster = 0
    for row, lines in zip(rows, measured, strict=True):
        ours, rival = lines[0], best_rival(lines)
        faster += ours["ms"] < rival["ms"]
        typer.echo(f"\ncheck   {row.name} {mode} {dtype} {layout}: within tolerance of float64   PASS")
        typer.echo(f"floor   bytes {ours['bytes'] / 1e6:.2f} MB; ops {ours['flops'] / 1e6:.0f} MFLOP")
        typer.echo(_table(lines))
    typer.echo(f"\nverdict: faster than every rival in {faster} of {len(rows)} rows")


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
                f"{line['ms']:.2f}",
                f"[{line['ms20']:.2f}-{line['ms80']:.2f}]",
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
