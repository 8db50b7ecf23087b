"""Train a segmentation network: a short loop that can stop at any step and go on as if it never had."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastseg import ops
from fastseg.models.loading import save_file_atomic
from fastseg.models.segmentation import SegmentationModel

Sample = tuple[np.ndarray, np.ndarray]
Size = tuple[int, int]


class Samples(Protocol):
    """Photos uint8 ``[H, W, 3]`` with their labels uint8 ``[H, W]``, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


Augment = Callable[[Sample, Size, np.random.Generator, Callable[[], Sample]], Sample]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides model and data.

    Args:
        steps: number of optimiser steps; the learning rate reaches zero after the last one.
        batch_size: samples per step.
        sizes: heights and widths of the views, one of which is drawn for every batch; several keep a network that pads
            its wide convolutions with zeros from being tied to one size.
        lr: learning rate of the new layers after the warm-up.
        backbone_lr: factor on ``lr`` for the backbone.
        weight_decay: decay of convolution weights, depthwise ones excepted.
        warmup: steps of linear warm-up.
        power: exponent of the poly schedule ``lr (1 - step / steps) ** power``.
        frozen: names of modules whose weights and batch-norm statistics stay as they are.
        ema: decay of the running average of the weights, which is what gets saved.
        class_weights: weights of the classes in the loss; empty for none.
        bf16: compute forward and backward under bfloat16 autocast.
        seed: seeds the order, the augmentation and dropout.
    """

    steps: int = 3000
    batch_size: int = 8
    sizes: tuple[Size, ...] = ((288, 224),)
    lr: float = 1e-3
    backbone_lr: float = 0.3
    weight_decay: float = 1e-2
    warmup: int = 100
    power: float = 0.9
    frozen: tuple[str, ...] = ()
    ema: float = 0.995
    class_weights: tuple[float, ...] = ()
    bf16: bool = False
    seed: int = 0

    def rate(self, step: int) -> float:
        """Give the factor on the learning rate at a step counted from 0."""
        return min(1.0, (step + 1) / max(1, self.warmup)) * (1 - step / self.steps) ** self.power


@dataclass(frozen=True)
class Milestone:
    """Where a run stands at a checkpoint: steps done of all, mean loss of the last 50 of this call, learning rate."""

    step: int
    steps: int
    loss: float
    lr: float

    def __str__(self) -> str:
        return f"step {self.step}/{self.steps} loss {self.loss:.4f} lr {self.lr:.2e}"


class TrainingStream(Dataset[tuple[Tensor, Tensor]]):
    """Endless shuffled, augmented samples in which item n depends on the seed and n alone, so that any of them can be
    redone.

    Args:
        dataset: gives (photo uint8 ``[H, W, 3]``, labels uint8 ``[H, W]``).
        augment: called with the sample, the view's size, a generator, and a function that gives another sample.
        recipe: gives seed, batch size and sizes.
    """

    def __init__(self, dataset: Samples, augment: Augment, recipe: Recipe) -> None:
        self.dataset, self.augment, self.recipe = dataset, augment, recipe

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        seed, sizes, length = self.recipe.seed, self.recipe.sizes, len(self.dataset)
        epoch, position = divmod(n, length)
        index = np.random.default_rng([seed, 0, epoch]).permutation(length)[position]
        rng = np.random.default_rng([seed, 1, n])
        size = sizes[np.random.default_rng([seed, 2, n // self.recipe.batch_size]).integers(len(sizes))]
        image, labels = self.augment(self.dataset[index], size, rng, lambda: self.dataset[int(rng.integers(length))])
        return torch.from_numpy(image.copy()), torch.from_numpy(labels.copy())


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Put the named modules in evaluation mode and leave their parameters out of training."""
    for name in names:
        try:
            module = model.get_submodule(name)
        except AttributeError as error:
            raise ValueError(f"fastseg::train: frozen must name modules of the model, got {name!r}") from error
        module.eval().requires_grad_(False)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Split the trained parameters into backbone or not, decayed or not (batch norm, biases and depthwise filters are
    not)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1 and parameter.shape[1] > 1
        groups.setdefault((name.startswith("backbone."), decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "base_lr": recipe.lr * (recipe.backbone_lr if in_backbone else 1.0),
            "weight_decay": recipe.weight_decay if decayed else 0.0,
        }
        for (in_backbone, decayed), parameters in groups.items()
    ]


@contextmanager
def float32_depthwise(module: nn.Module) -> Iterator[None]:
    """Keep depthwise convolutions out of autocast: the CPU library's bfloat16 backward of them is 2 to 7 times
    slower."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]

    def wrap(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            with torch.autocast(x.device.type, enabled=False):
                return forward(x.float())

        return run

    for layer in layers:
        setattr(layer, "forward", wrap(layer.forward))  # noqa: B010
    try:
        yield
    finally:
        for layer in layers:
            delattr(layer, "forward")


def save_checkpoint(
    path: Path,
    step: int,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
) -> None:
    """Write the whole state of a run after ``step`` steps, atomically, as one safetensors file."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    save_file_atomic(tensors, path, {"step": str(step), "recipe": json.dumps(asdict(recipe))})


def steps_done(checkpoint: str | Path) -> int:
    """Say how many steps a checkpoint holds."""
    with safe_open(checkpoint, framework="pt") as file:
        return int((file.metadata() or {})["step"])


def load_checkpoint(
    path: Path, model: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, recipe: Recipe
) -> int:
    """Restore a run in place and give the number of steps it has done; the recipe may differ in ``steps`` only."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    stored, own = json.loads(metadata["recipe"]), json.loads(json.dumps(asdict(recipe)))
    differing = [f"{key}={stored[key]}" for key in own if key != "steps" and stored.get(key) != own[key]]
    if differing:
        raise ValueError(
            f"fastseg::train: a resumed recipe must be the checkpoint's, got one that had {', '.join(differing)}"
        )
    model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model.")})
    for key, value in average.items():
        value.copy_(tensors[f"average.{key}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(metadata["step"])


def _batches(stream: TrainingStream, first: int, recipe: Recipe, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = range(first * recipe.batch_size, recipe.steps * recipe.batch_size)
    yield from DataLoader(stream, recipe.batch_size, sampler=order, num_workers=workers)


def train(
    model: SegmentationModel,
    dataset: Samples,
    augment: Augment,
    recipe: Recipe,
    checkpoint: str | Path,
    *,
    save_every: int = 100,
    stop_after: int | None = None,
    workers: int = 1,
    progress: bool = True,
    log: Callable[[Milestone], object] | None = None,
) -> SegmentationModel:
    """Train with cross-entropy at full resolution, AdamW, the poly schedule and a running average of the weights.

    Where ``checkpoint`` exists, training goes on from it, and ends with the very weights of an uninterrupted run:
    order, augmentation and dropout depend on the seed and the step alone.

    Args:
        model: maps normalised ``[N, 3, H, W]`` to logits ``[N, C, h, w]``.
        dataset: gives (photo uint8 ``[H, W, 3]``, labels uint8 ``[H, W]`` with 255 ignored).
        augment: makes training views of a given size.
        recipe: what to do.
        checkpoint: safetensors file, written atomically every ``save_every`` steps and at the end.
        save_every: steps between checkpoints.
        stop_after: stop after this many steps in all, as if interrupted.
        workers: data-loading processes; 0 loads in this one.
        progress: show a progress bar.
        log: called at every checkpoint; `print` will do.

    Returns:
        The model with the averaged weights, in evaluation mode.
    """
    checkpoint = Path(checkpoint)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(model, recipe.frozen)
    average = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.lr)
    step = load_checkpoint(checkpoint, model, average, optimizer, recipe) if checkpoint.exists() else 0
    device = next(model.parameters()).device
    weight = torch.tensor(recipe.class_weights, device=device) if recipe.class_weights else None
    last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    depthwise = float32_depthwise(model.backbone) if recipe.bf16 and device.type == "cpu" else nullcontext()
    with depthwise, Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("training", total=recipe.steps, completed=step)
        losses: list[Tensor] = []
        for images, labels in _batches(TrainingStream(dataset, augment, recipe), step, recipe, workers):
            if step >= last:
                break
            torch.manual_seed(recipe.seed + step)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * recipe.rate(step)
            # [N, H, W, 3] seen as [N, 3, H, W] is channels_last, which is what the convolutions like best.
            x = model.preprocess.normalise(images.to(device).permute(0, 3, 1, 2))
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
                logits = model(x)
            loss = ops.upsample_cross_entropy(
                logits.float(), labels.to(device), weight=weight, align_corners=model.align_corners
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            # A young average follows the weights more closely than its final decay says.
            decay = min(recipe.ema, step / (step + 10))
            for key, value in model.state_dict().items():
                average[key].lerp_(value, 1 - decay) if value.is_floating_point() else average[key].copy_(value)
            losses.append(loss.detach())
            mean = torch.stack(losses[-50:]).mean().item()
            bar.update(task, advance=1, description=f"loss {mean:.3f}")
            if step % save_every == 0 or step == last:
                save_checkpoint(checkpoint, step, model, average, optimizer, recipe)
                if log is not None:
                    log(Milestone(step, recipe.steps, mean, recipe.lr * recipe.rate(step)))
    model.load_state_dict(average)
    return model.requires_grad_().eval()
