"""What the dense CRF refuses, by name."""

from typing import Any

import pytest
import torch

import fastseg
from fastseg import _native, ops
from fastseg.nn import DenseCRF

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("iterations", {"iterations": -1}),
    ("iterations", {"iterations": 1.5}),
    ("spatial_sigma", {"spatial_sigma": 0.0}),
    ("spatial_sigma", {"spatial_sigma": (1.0, 2.0, 3.0)}),
    ("spatial_sigma", {"spatial_sigma": float("nan")}),
    ("spatial_sigma", {"spatial_sigma": torch.ones(3)}),
    ("bilateral_sigma_xy", {"bilateral_sigma_xy": float("inf")}),
    ("bilateral_sigma_color", {"bilateral_sigma_color": (1.0, 2.0)}),
    ("bilateral_sigma_color", {"bilateral_sigma_color": "13"}),
    ("spatial_weight", {"spatial_weight": "much"}),
    ("bilateral_weight", {"bilateral_weight": torch.ones(3)}),
    ("compatibility", {"compatibility": torch.ones(3, 2)}),
    ("normalization", {"normalization": "both"}),
    ("spatial", {"spatial": "fft"}),
    ("bilateral", {"bilateral": "grid"}),
    ("output", {"output": "mask"}),
    ("include_self", {"include_self": "no"}),
    ("spatial_sigma", {"spatial_sigma": torch.tensor(-1.0)}),
    ("spatial_sigma", {"spatial_sigma": torch.tensor([1.0, float("inf")])}),
    ("bilateral_sigma_xy", {"bilateral_sigma_xy": 1e-300}),
    ("bilateral_sigma_xy", {"bilateral_sigma_xy": torch.tensor(0.0)}),
    ("bilateral_sigma_color", {"bilateral_sigma_color": torch.tensor([1.0, 1.0, float("nan")])}),
]


@pytest.mark.parametrize(("argument", "options"), OPTIONS)
def test_wrong_options_are_named(argument: str, options: dict[str, Any]) -> None:
    unary, image = torch.zeros(1, 2, 4, 5), torch.zeros(1, 3, 4, 5)
    with pytest.raises(ValueError, match=f"^fastseg::dense_crf: {argument} must "):
        ops.dense_crf(unary, image, **options)


@pytest.mark.parametrize(
    ("unary", "image", "argument"),
    [
        (torch.zeros(2, 4, 5), torch.zeros(1, 3, 4, 5), "unary"),
        (torch.zeros(1, 0, 4, 5), torch.zeros(1, 3, 4, 5), "unary"),
        (torch.zeros(1, 2, 4, 5).half(), torch.zeros(1, 3, 4, 5), "unary"),
        (torch.zeros(1, 2, 4, 5), torch.zeros(1, 3, 5, 4), "image"),
        (torch.zeros(1, 2, 4, 5), torch.zeros(2, 3, 4, 5), "image"),
        (torch.zeros(1, 2, 4, 5), torch.zeros(1, 7, 4, 5), "image"),
        (torch.zeros(1, 2, 4, 5), None, "image"),
    ],
)
def test_wrong_tensors_are_named(unary: Any, image: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"^fastseg::dense_crf: {argument} must "):
        ops.dense_crf(unary, image)


@pytest.mark.parametrize("side", ["auto", "reference"])
@pytest.mark.parametrize("bilateral", ["lattice", "exact"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kept", [False, True])
def test_an_image_that_is_not_finite(kept: bool, bad: float, bilateral: str, side: str) -> None:
    unary, image = torch.zeros(2, 2, 4, 5), torch.zeros(2, 3, 4, 5)
    image[1, 2, 3, 3] = bad
    with fastseg.backend(side), pytest.raises(RuntimeError, match="dense_crf: image must be finite"):
        ops.dense_crf(unary.requires_grad_(kept), image, bilateral=bilateral, recompute=not kept)


def test_an_image_of_30000_x_30000() -> None:
    """Far more corners than fit 32 bits: refused before anything is allocated."""
    unary, image = torch.zeros(1).expand(1, 2, 30000, 30000), torch.zeros(1).expand(1, 5, 30000, 30000)
    arguments = [3.0, 3.0], torch.zeros(2, 2, 2), 5, "symmetric", True, "exact", "lattice", "logits"
    if not _native.loaded:
        pytest.skip("the kernels count corners: " + _native.why_not)
    with pytest.raises(RuntimeError, match="unary must have fewer than 2\\^31"):
        torch.ops.fastseg.dense_crf(unary, image, *arguments)


@pytest.mark.parametrize(
    ("argument", "level", "options"),
    [
        ("image", 1e20, {}),
        ("image", 3.4e38, {}),
        ("spatial_sigma", 1.0, {"spatial_sigma": 1e-30, "spatial": "lattice"}),
    ],
)
def test_what_no_lattice_holds_is_named(argument: str, level: float, options: dict[str, Any]) -> None:
    unary, image = torch.zeros(1, 2, 4, 5), torch.ones(1, 3, 4, 5)
    with pytest.raises(RuntimeError, match=f"dense_crf: {argument} must "):
        ops.dense_crf(unary, torch.full_like(image, level), **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"iterations": -1}, ValueError),
        ({"eval_iterations": 2.5}, ValueError),
        ({"output": "mask"}, ValueError),
        ({"include_self": 1}, ValueError),
        ({"spatial": "grid"}, ValueError),
        ({"sigma": 3.0}, TypeError),
    ],
)
def test_a_layer_refuses_wrong_options_when_it_is_made(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^fastseg::DenseCRF: .* must be .*, got "):
        DenseCRF(2, **options)
