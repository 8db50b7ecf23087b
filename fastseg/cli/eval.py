"""``fastseg eval``: score weights on a data set."""

import json
import math
from typing import Annotated, Any, Literal

import typer


def evaluate(
    weights: Annotated[str, typer.Argument(help="Weights file, or the name of shipped weights.")],
    data: Annotated[str, typer.Option(help="Data set as KIND:PATH, for example ccp:/data/ccp.")],
    split: Annotated[Literal["train", "val", "all"], typer.Option(help="Part of the data set.")] = "val",
    longer_side: Annotated[int | None, typer.Option(min=16, help="Override the weights' size policy.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print pixel accuracy, mean IoU, IoU per class and IoU of person against background."""
    from fastseg import engine
    from fastseg.data.datasets import open_dataset
    from fastseg.metrics import foreground, scores
    from fastseg.models import create_model, read_weights

    dataset = open_dataset(data, split)
    override = {} if longer_side is None else {"longer_side": longer_side}
    model = create_model(read_weights(weights)[1].get("model", "deeplab_v3_plus"), weights, **override)
    if model.classes != dataset.classes:
        raise ValueError(
            f"fastseg::eval: weights must have the classes of the data, {', '.join(dataset.classes)}, "
            f"got {', '.join(model.classes) or 'none'}"
        )
    matrix = engine.evaluate(model, dataset, len(dataset.classes), progress=not as_json).matrix
    result = scores(matrix)
    report: dict[str, Any] = {
        "photos": len(dataset),
        "pixel_accuracy": result.pixel_accuracy,
        "mean_accuracy": result.mean_accuracy,
        "mean_iou": result.mean_iou,
        "person_iou": scores(foreground(matrix)).iou[1].item(),
        "iou": dict(zip(dataset.classes, result.iou.tolist(), strict=True)),
    }
    if as_json:
        finite = {name: None if math.isnan(value) else value for name, value in report["iou"].items()}
        typer.echo(json.dumps({**report, "iou": finite}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("score", "value", title=f"{weights} on {data} ({split}, {len(dataset)} photos)")
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iou", "person_iou"):
        table.add_row(name.replace("_", " "), f"{report[name]:.4f}")
    for name, value in report["iou"].items():
        table.add_row(f"IoU {name}", f"{value:.4f}")
    Console().print(table)
