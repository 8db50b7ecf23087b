"""``fastseg train``: train a network from the command line."""

import json
import math
import time
from pathlib import Path
from typing import Annotated

import typer

from fastseg.cli.errors import UserError


def train(
    data: Annotated[str, typer.Option(help="Data set as KIND:PATH, for example ccp:/data/ccp.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint and the weights.")],
    backbone: Annotated[str, typer.Option(help="Feature extractor of DeepLab v3+.")] = "efficientnet_lite0",
    init: Annotated[
        str, typer.Option(help="imagenet (efficientnet_lite0), none, or a state-dict file for the backbone.")
    ] = "imagenet",
    separable: Annotated[bool, typer.Option(help="Use depthwise-separable ASPP and decoder.")] = True,
    output_stride: Annotated[int, typer.Option(help="16 or 8.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 3000,
    batch_size: Annotated[int, typer.Option(min=2, help="Samples per step.")] = 8,
    sizes: Annotated[
        str, typer.Option(help="HEIGHTxWIDTH of the training views, separated by commas; each batch draws one.")
    ] = "320x224,256x256,224x320,384x256",
    longer_side: Annotated[int, typer.Option(min=16, help="Longer side at which predict shows a photo.")] = 352,
    lr: Annotated[float, typer.Option(min=0.0, help="Learning rate of the new layers.")] = 1e-3,
    class_weights: Annotated[str, typer.Option(help="Loss weights of the classes, separated by commas.")] = "",
    head_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of views aimed at the head.")] = 0.5,
    background_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of replaced backgrounds.")] = 0.4,
    frozen: Annotated[str, typer.Option(help="Modules to leave untrained, separated by commas.")] = "",
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 autocast.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many steps in all, to go on later.")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 100,
    workers: Annotated[int, typer.Option(min=0, help="Data-loading processes.")] = 1,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON at the end; the log goes to stderr.")] = False,
) -> None:
    """Train DeepLab v3+; run the same command again to go on after an interruption."""
    import torch

    start = time.perf_counter()
    from fastseg import engine
    from fastseg.data.datasets import open_dataset
    from fastseg.data.transforms import PersonAugment
    from fastseg.engine.train import Milestone, steps_done
    from fastseg.models import deeplab_v3_plus, load_backbone, read_weights, save_weights
    from fastseg.models.backbones.efficientnet_lite0 import imagenet_state

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made a folder ({(error.strerror or str(error)).lower()})") from error
    dataset = open_dataset(data, "train", cache=True)
    try:
        weights = tuple(float(value) for value in class_weights.split(",")) if class_weights else ()
    except ValueError as error:
        raise UserError(f"--class-weights must be numbers, got {class_weights!r}") from error
    if weights and len(weights) != len(dataset.classes):
        raise UserError(f"--class-weights must be {len(dataset.classes)} numbers, got {len(weights)}")
    recipe = engine.Recipe(
        steps=steps,
        batch_size=batch_size,
        sizes=tuple(_size(text) for text in sizes.split(",")),
        lr=lr,
        frozen=tuple(frozen.split(",")) if frozen else (),
        class_weights=weights,
        bf16=bf16,
        seed=seed,
    )
    torch.manual_seed(seed)
    model = deeplab_v3_plus(
        backbone,
        len(dataset.classes),
        output_stride=output_stride,
        separable=separable,
        longer_side=longer_side,
        classes=dataset.classes,
    )
    if init != "none":
        load_backbone(model.backbone, imagenet_state() if init == "imagenet" else read_weights(init)[0])
    augment = PersonAugment(head_share=head_share, background_share=background_share)
    checkpoint, file = out / "checkpoint.safetensors", out / "weights.safetensors"
    reached: list[Milestone] = []

    def log(milestone: Milestone) -> None:
        reached.append(milestone)
        typer.echo(milestone, err=as_json)

    engine.train(
        model,
        dataset,
        augment,
        recipe,
        checkpoint,
        save_every=save_every,
        stop_after=stop_after,
        workers=workers,
        progress=progress and not as_json,
        log=log,
    )
    done = steps_done(checkpoint)
    save_weights(model, file, seed=seed, steps=done)
    if not as_json:
        typer.echo(f"saved {file}")
        return
    report = {
        "steps": done,
        # Of the last 50 steps; nothing where none was left to do.
        "loss": reached[-1].loss if reached and math.isfinite(reached[-1].loss) else None,
        "checkpoint": str(checkpoint),
        "weights": str(file),
        "seconds": time.perf_counter() - start,
    }
    typer.echo(json.dumps(report))


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(f"--sizes must be HEIGHTxWIDTH, got {text!r}")
    return int(height), int(width)
