"""Weights on disk: half-precision safetensors that carry what is needed to rebuild their model."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fastseg.models.segmentation import SegmentationModel

SHIPPED = Path(__file__).parent / "weights"
# Classifier tensors of the public ImageNet files, which a feature extractor has no use for.
_CLASSIFIER = ("fc.", "head.", "classifier.", "features.18.")


def save_file_atomic(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside its final name, then rename it: a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    content = save({key: value.detach().contiguous() for key, value in tensors.items()}, dict(metadata))
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save_weights(model: SegmentationModel, path: str | Path, *, half: bool = True, **notes: Any) -> None:
    """Save a model's weights with its constructor, arguments, preprocessing and class names.

    Args:
        model: a model of :mod:`fastseg.models`.
        path: safetensors file to write, atomically.
        half: store convolution weights as float16; biases and batch norm stay float32, whose range they need.
        notes: further JSON-able metadata.
    """
    tensors = {
        key: value.half() if half and value.is_floating_point() and value.ndim > 1 else value
        for key, value in model.state_dict().items()
    }
    description = {**model.recipe, "preprocess": asdict(model.preprocess), **notes}
    save_file_atomic(tensors, path, {"fastseg": json.dumps(description)})


def find_weights(weights: str | Path) -> Path:
    """Resolve shipped weights by name, or a path, to an existing file."""
    path = Path(weights)
    shipped = SHIPPED / f"{weights}.safetensors"
    if path.is_file():
        return path
    if shipped.is_file():
        return shipped
    names = ", ".join(list_weights()) or "none"
    raise ValueError(f"fastseg::weights: weights must be a file or shipped weights ({names}), got {str(weights)!r}")


def list_weights() -> list[str]:
    """Name the weights that the package ships."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def read_weights(weights: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and description; pickles other than plain state dicts are refused.

    Args:
        weights: path of a ``.safetensors``, ``.pth`` or ``.pt`` file, or the name of shipped weights.

    Returns:
        The tensors, floating ones as float32, and the description that :func:`save_weights` stored (empty without one).
    """
    path = find_weights(weights)
    description: dict[str, Any] = {}
    try:
        if path.suffix in (".pth", ".pt"):
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
                raise ValueError("it holds other things than tensors")
        else:
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                description = json.loads((file.metadata() or {}).get("fastseg", "{}"))
    except (SafetensorError, ValueError, RuntimeError, EOFError, OSError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"fastseg::weights: {path} must be safetensors or a plain state dict, got: {reason}"
        ) from error
    except Exception as error:  # an unpickling error has no common base class
        raise ValueError(
            f"fastseg::weights: {path} must be free of pickled objects, got {type(error).__name__}"
        ) from error
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, description


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose keys and shapes must all match; the error lists those that do not."""
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unknown {key}" for key in state if key not in own]
    faults += [
        f"{key} {list(state[key].shape)} for {list(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise ValueError(f"fastseg::weights: keys and shapes must match the model's, got {shown}")
    module.load_state_dict(dict(state))


def load_backbone(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load ImageNet weights into a backbone, leaving their classifier aside.

    Args:
        backbone: a module of :mod:`fastseg.models.backbones`.
        state: state dict of torchvision's ``resnet50``, ``resnet101`` or ``mobilenet_v2``, or of
            :func:`fastseg.models.backbones.efficientnet_lite0.imagenet_state`.
    """
    load_state(backbone, {key: value for key, value in state.items() if not key.startswith(_CLASSIFIER)})
