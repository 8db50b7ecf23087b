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
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME...]", help="Which scores; a wrong name lists them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print pixel accuracy, mean IoU, IoU per class and IoU of person against background, or the metrics chosen."""
    from fastseg.metrics import names

    chosen = names.DEFAULT if metrics is None else names.checked_names("eval", metrics.split(","))

    import fastseg.metrics
    from fastseg import engine
    from fastseg.data.datasets import open_dataset
    from fastseg.models import create_model, read_weights

    dataset = open_dataset(data, split)
    override = {} if longer_side is None else {"longer_side": longer_side}
    model = create_model(read_weights(weights)[1].get("model", "deeplab_v3_plus"), weights, **override)
    if model.classes != dataset.classes:
        raise ValueError(
            f"fastseg::eval: weights must have the classes of the data, {', '.join(dataset.classes)}, "
            f"got {', '.join(model.classes) or 'none'}"
        )
    count = len(dataset.classes)
    images = {
        name: getattr(fastseg.metrics, names.OF_IMAGES[name])(count) for name in chosen if name in names.OF_IMAGES
    }
    matrix = engine.evaluate(model, dataset, count, metrics=list(images.values()), progress=not as_json).matrix
    report: dict[str, Any] = {"photos": len(dataset)}
    for name in chosen:
        value = images[name].compute().mean if name in images else names.OF_MATRIX[name](matrix)
        report[name] = value.item() if value.dim() == 0 else dict(zip(dataset.classes, value.tolist(), strict=True))
    if images:
        report["empty"] = {name: metric.compute().empty._asdict() for name, metric in images.items()}
    if as_json:
        typer.echo(json.dumps(_finite(report)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("score", "value", title=f"{weights} on {data} ({split}, {len(dataset)} photos)")
    for name in chosen:
        if isinstance(report[name], dict):
            title = {"iou": "IoU", "dice": "Dice"}.get(name, name)
            for label, value in report[name].items():
                table.add_row(f"{title} {label}", f"{value:.4f}")
        else:
            empty = f" ({sum(images[name].compute().empty)} empty masks)" if name in images else ""
            table.add_row(name.replace("_", " "), f"{report[name]:.4f}{empty}")
    Console().print(table)


def _finite(report: Any) -> Any:
    """JSON has no nan, which is null, and no infinity, which is "inf"."""
    if isinstance(report, dict):
        return {name: _finite(value) for name, value in report.items()}
    if not isinstance(report, float) or math.isfinite(report):
        return report
    return None if math.isnan(report) else "inf"
