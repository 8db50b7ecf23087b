"""Parameters of dense CRFs that well-known code uses, as arguments of `dense_crf`."""

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Scripts around the VGG models of DeepLab v1 and v2.
    "deeplab_vgg": {
        "iterations": 10,
        "spatial_sigma": 3.0,
        "spatial_weight": 3.0,
        "bilateral_sigma_xy": 49.0,
        "bilateral_sigma_color": 5.0,
        "bilateral_weight": 4.0,
    },
    # kazuto1011/deeplab-pytorch, voc12.yaml, for the ResNet-101 of DeepLab v2.
    "deeplab_resnet": {
        "iterations": 10,
        "spatial_sigma": 1.0,
        "spatial_weight": 3.0,
        "bilateral_sigma_xy": 67.0,
        "bilateral_sigma_color": 3.0,
        "bilateral_weight": 4.0,
    },
    # sadeepj/crfasrnn_pytorch; more iterations, 10, are made in tests.
    "crfrnn": {
        "iterations": 5,
        "spatial_sigma": 3.0,
        "spatial_weight": 3.0,
        "bilateral_sigma_xy": 160.0,
        "bilateral_sigma_color": 3.0,
        "bilateral_weight": 5.0,
        "normalization": "after",
    },
    # The README and the example of pydensecrf.
    "pydensecrf_readme": {
        "iterations": 5,
        "spatial_sigma": 3.0,
        "spatial_weight": 3.0,
        "bilateral_sigma_xy": 80.0,
        "bilateral_sigma_color": 13.0,
        "bilateral_weight": 10.0,
    },
}
DEFAULT = "pydensecrf_readme"


def dense_crf_preset(name: str) -> dict[str, Any]:
    """Arguments of `dense_crf` by the name of what uses them, for images with colours from 0 to 255.

    Args:
        name: "deeplab_vgg", "deeplab_resnet", "crfrnn" or "pydensecrf_readme".

    Returns:
        A dictionary of its own: iterations, deviations and weights of both kernels, and the normalization where it is
        not the usual one.

    Errors: `ValueError` for a name that is none of these.

    Example:
        >>> dense_crf_preset("deeplab_vgg")["bilateral_sigma_xy"]
        49.0
    """
    if name not in PRESETS:
        raise ValueError(f"fastseg::dense_crf_preset: name must be one of {', '.join(PRESETS)}, got {name!r}")
    return dict(PRESETS[name])
