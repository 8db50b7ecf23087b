"""From the name of a model on the command line to the model."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from fastseg.models import create_model, list_models, list_weights

# torchvision registers its own ops at import, and its build for CUDA lacks those of the CPU build of torch.
_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_stand_ins: list[torch.library.Library] = []

# Our segmentation models are a backbone and what follows it.
OUR_STAGES = {"backbone": "backbone", "*": "head"}


@dataclass(frozen=True)
class Target:
    """A model to profile.

    Args:
        name: what the user called it.
        model: in evaluation mode.
        stages: stage by name of the top-level child, where several children make one stage.
        fused: the model's labels come from `upsample_argmax` already.
    """

    name: str
    model: nn.Module
    stages: Mapping[str, str] = field(default_factory=dict)
    fused: bool = False


def resolve(name: str, num_classes: int = 21) -> Target:
    """Build the model that a name stands for; with random weights unless the name is that of shipped weights.

    Args:
        name: one of ours, `file.py:function`, `torchvision:NAME`, `smp:NAME` or `smp:NAME/ENCODER`.
        num_classes: classes of a model that takes their number and brings none of its own.
    """
    kind, _, rest = name.rpartition(":")
    if kind.endswith(".py"):
        model = _from_file(Path(kind), rest)
    elif kind == "torchvision":
        model = _from_torchvision(rest, num_classes)
    elif kind == "smp":
        model = _from_smp(rest, num_classes)
    elif name in list_weights():
        model = create_model(name)
    elif name in list_models():
        model = create_model(name, num_classes=num_classes)
    else:
        known = ", ".join([*list_models(), *list_weights(), "FILE.py:FUNCTION", "torchvision:NAME", "smp:NAME"])
        raise ValueError(f"fastseg::profile: model must be one of {known}, got {name!r}")
    return Target(name, model.eval(), {} if kind else OUR_STAGES, fused=not kind)


def _from_file(path: Path, function: str) -> nn.Module:
    if not path.is_file():
        raise ValueError(f"fastseg::profile: model must name an existing file, got {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        build = getattr(module, function, None)
        model = build() if callable(build) else None
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise ValueError(f"fastseg::profile: model must build without error, got {got}") from error
    if not isinstance(model, nn.Module):
        got = "no such function" if build is None else type(model).__name__
        raise ValueError(f"fastseg::profile: {path}:{function} must be a function that returns an nn.Module, got {got}")
    return model


def _from_torchvision(name: str, num_classes: int) -> nn.Module:
    torchvision = _package("torchvision", "torchvision")
    segmentation = torchvision.models.list_models(module=torchvision.models.segmentation)
    if name not in torchvision.models.list_models():
        known = f"a model of torchvision, such as {', '.join(segmentation)}"
        raise ValueError(f"fastseg::profile: model must be {known}, got {name!r}")
    options: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name in segmentation:
        options["weights_backbone"] = None
    model = torchvision.models.get_model(name, **options)
    assert isinstance(model, nn.Module)
    return model


def _from_smp(name: str, num_classes: int) -> nn.Module:
    smp = _package("segmentation_models_pytorch", "segmentation-models-pytorch")
    architecture, _, encoder = name.partition("/")
    try:
        model = smp.create_model(architecture, encoder or "resnet34", encoder_weights=None, classes=num_classes)
    except (KeyError, ValueError) as error:
        raise ValueError(f"fastseg::profile: smp model must be one that it knows, got {name!r}: {error}") from error
    assert isinstance(model, nn.Module)
    return model


def _package(module: str, distribution: str) -> ModuleType:
    """Import an optional package; torchvision's missing ops are declared first where its own library does not load."""
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"fastseg::profile: {distribution} must be installed for this model, got no such package")
    try:
        return importlib.import_module(module)
    except (RuntimeError, ImportError) as error:
        if "torchvision::nms" not in str(error) or _stand_ins:
            got = f"{type(error).__name__}: {error}"
            raise ValueError(f"fastseg::profile: {distribution} must import, got {got}") from error
    library = torch.library.Library("torchvision", "DEF")
    for op in ("nms", "qnms"):
        library.define(op + _BOXES)
    _stand_ins.append(library)  # the ops live as long as the library object
    return _package(module, distribution)
