"""``fastseg selftest``: prove this installation on the table of cases."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

SHOWN = 20


def selftest(
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the ops run.")] = "cpu",
    op: Annotated[list[str] | None, typer.Option(help="Only rows of this op (repeatable).")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this row, by its id (repeatable).")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only rows with this tag (repeatable).")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only smoke rows; on the CPU the default.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Report to write; on CUDA fastseg_selftest.json by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare every op with float64 arithmetic on the CPU, bit by bit with a repeat, and check the path it took.

    The exit code is 1 where a row fails or nothing was proved, and 3 where --device cuda finds no GPU.
    """
    # cuBLAS reads it once, and deterministic mode asks for it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from rich.console import Console
    from rich.progress import track

    from fastseg import testing
    from fastseg.cli.errors import UserError, checked_file, need_gpu
    from fastseg.testing import installation

    if device == "cuda":
        need_gpu()
    tags = ["smoke"] if quick or (device == "cpu" and not (case or tag)) else tag or []
    rows = [c for c in testing.find_cases(None, *tags) if (not op or c.op in op) and (not case or c.id in case)]
    rows = [c for c in rows if device == "cpu" or "cpu" not in c.tags]
    if not rows:
        raise UserError("no row of the table of cases has this --op, --case and --tag")
    path = output or (Path("fastseg_selftest.json") if device == "cuda" else None)
    if path:
        checked_file("--output", path)
    plan = installation.Plan(rows, device)
    bar = track(plan, "selftest", len(plan), console=Console(stderr=True), disable=as_json, transient=True)
    outcomes = list(bar)
    found = installation.report(plan, outcomes)
    if path:
        installation.save(path, found)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        faults = [f"FAIL {o.case} {o.dtype} {o.layout} [{', '.join(o.paths)}]: {o.fault}" for o in outcomes if o.fault]
        for line in faults[:SHOWN] + [f"and {len(faults) - SHOWN} more"] * (len(faults) > SHOWN):
            typer.echo(line)
        typer.echo(_verdict(found) + (f"; report in {path}" if path else ""))
    if not found["right"]:
        raise typer.Exit(1)


def _verdict(found: dict[str, Any]) -> str:
    counts = found["counts"]
    where = found["gpu"]["name"] if "gpu" in found else found["machine"]
    taken = ", ".join(dict.fromkeys(path.split(":")[1] for row in found["rows"] for path in row["paths"]))
    right = counts["run"] - counts["failed"] - counts["without_kernel"]
    said = f"{right} of {counts['planned']} right on {where} ({taken or 'nothing ran'})"
    notes = {
        f"{counts['failed']} failed": counts["failed"],
        f"{counts['without_kernel']} took the reference, for want of a kernel": counts["without_kernel"],
        "the rest was not run after an error of the GPU": counts["run"] < counts["planned"],
    }
    return "; ".join([said, *(note for note, applies in notes.items() if applies)])
