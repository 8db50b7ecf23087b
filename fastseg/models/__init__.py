"""Segmentation networks: plain constructors, and weights that rebuild their model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastseg.models.deeplab_v3_plus import DeepLabV3Plus, deeplab_v3_plus
from fastseg.models.loading import list_weights, load_backbone, load_state, read_weights, save_weights
from fastseg.models.preprocess import Preprocess
from fastseg.models.segmentation import SegmentationModel

__all__ = [
    "DeepLabV3Plus",
    "Preprocess",
    "SegmentationModel",
    "create_model",
    "deeplab_v3_plus",
    "list_models",
    "list_weights",
    "load_backbone",
    "load_state",
    "read_weights",
    "save_weights",
]

_CONSTRUCTORS: tuple[Callable[..., SegmentationModel], ...] = (deeplab_v3_plus,)


def list_models() -> list[str]:
    """Name the constructors that :func:`create_model` knows."""
    return sorted(constructor.__name__ for constructor in _CONSTRUCTORS)


def create_model(name: str, weights: str | Path | None = None, **arguments: Any) -> SegmentationModel:
    """Build a model by name, in the memory format channels_last, and in evaluation mode where it gets weights.

    Args:
        name: one of :func:`list_models`, or of :func:`list_weights`, which stands for its model with those weights.
        weights: path of a weights file, or one of :func:`list_weights`. Constructor arguments and preprocessing stored
            in it are used.
        arguments: constructor arguments; they win over the stored ones.

    Returns:
        The model.
    """
    if weights is None and name in list_weights():
        weights = name
    state, description = read_weights(weights) if weights is not None else ({}, {})
    if name == weights:
        name = description["model"]
    constructor = next((item for item in _CONSTRUCTORS if item.__name__ == name), None)
    if constructor is None:
        known = ", ".join(list_models() + list_weights())
        raise ValueError(f"fastseg::create_model: name must be one of {known}, got {name!r}")
    if description.get("model", name) != name:
        raise ValueError(f"fastseg::create_model: weights must be of {name}, got weights of {description['model']}")
    model = constructor(**{**description.get("arguments", {}), **arguments})
    # Convolutions of this kind run up to twice as fast on a CPU with the channels innermost.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if weights is None:
        return model
    load_state(model, state)
    if "preprocess" in description and "longer_side" not in arguments:
        stored = description["preprocess"]
        model.preprocess = Preprocess(
            tuple(stored["mean"]), tuple(stored["std"]), stored["longer_side"], stored["multiple"]
        )
    return model.eval()
