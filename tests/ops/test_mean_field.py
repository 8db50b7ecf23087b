"""What holds for any dense CRF, with every kernel it can have."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import fastseg
from fastseg import ops
from fastseg.reference.dense_crf_lattice import NORMALIZATIONS

SHAPE = (2, 3, 5, 6)
KERNELS = st.sampled_from(["exact", "lattice"])


@pytest.fixture(autouse=True, scope="module", params=["auto", "reference"])
def side(request: pytest.FixtureRequest) -> Iterator[str]:
    with fastseg.backend(request.param):
        yield request.param


def problem(seed: int) -> tuple[Tensor, Tensor]:
    """Energies [N, C, H, W], and a picture with two channels."""
    g = torch.Generator().manual_seed(seed)
    return torch.rand(SHAPE, generator=g).double() * 3, torch.rand(2, 2, 5, 6, generator=g).double() * 4


def run(unary: Tensor, image: Tensor, **changes: Any) -> Tensor:
    """Q after three iterations."""
    options: dict[str, Any] = {
        "spatial_weight": 1.5,
        "bilateral_weight": 2.0,
        "spatial_sigma": (1.0, 1.5),
        "bilateral_sigma_xy": (3.0, 4.0),
        "bilateral_sigma_color": (1.0, 0.5),
        "iterations": 3,
    }
    return ops.dense_crf(unary, image, **{**options, **changes})


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@given(st.integers(0, 99), KERNELS, KERNELS, st.sampled_from(NORMALIZATIONS), st.booleans())
def test_labels_and_offsets(seed: int, spatial: str, bilateral: str, mode: str, include_self: bool) -> None:
    unary, image = problem(seed)
    options = {"spatial": spatial, "bilateral": bilateral, "normalization": mode, "include_self": include_self}
    q = run(unary, image, **options)
    same(q.sum(1), torch.ones_like(q[:, 0]))
    order = torch.tensor([2, 0, 1])
    same(run(unary[:, order], image, **options), q[:, order])
    same(run(unary + unary[:, :1] * 7, image, **options), q)
    same(run(unary[1:], image[1:], **options), q[1:])
    potts = -torch.eye(3).double()
    same(run(unary, image, compatibility=potts, **options), q)
    same(run(unary, image, compatibility=torch.ones(3), **options), q)
    if mode == "after" and include_self:  # where messages of all labels sum to one
        same(run(unary, image, compatibility=1 + potts, **options), q)


@given(st.integers(0, 99), KERNELS)
def test_nothing_to_do(seed: int, bilateral: str) -> None:
    unary, image = problem(seed)
    right = (-unary).softmax(1)
    same(run(unary, image, compatibility=0.0, bilateral=bilateral), right)
    same(run(unary, image, iterations=0, bilateral=bilateral), right)
    one = run(unary[:, :1], image, bilateral=bilateral)
    same(one, torch.ones_like(one))


@given(st.integers(0, 99), st.booleans())
def test_a_flipped_image(seed: int, include_self: bool) -> None:
    unary, image = problem(seed)
    options = {"bilateral": "exact", "include_self": include_self}
    same(run(unary.flip(3), image.flip(3), **options), run(unary, image, **options).flip(3))


@given(st.integers(0, 99))
def test_a_constant_image_only_smooths(seed: int) -> None:
    unary, image = problem(seed)
    alike = run(unary, torch.full_like(image, 0.3), spatial_weight=0.0, bilateral="exact")
    same(run(unary, image, spatial_weight=2.0, bilateral_weight=0.0, spatial_sigma=(3.0, 4.0)), alike)


def test_a_pixel_alone_has_no_neighbour() -> None:
    unary, image = problem(0)
    pixel, looks = unary[:, :, :1, :1], image[:, :, :1, :1]
    for mode in NORMALIZATIONS:
        options = {"include_self": False, "normalization": mode, "bilateral": "exact"}
        same(run(pixel, looks, **options), (-pixel).softmax(1))


def test_volumes() -> None:
    g = torch.Generator().manual_seed(1)
    unary, image = torch.rand(1, 2, 3, 4, 5, generator=g).double(), torch.rand(1, 1, 3, 4, 5, generator=g).double()
    sigma = (2.0, 1.0, 1.5)
    options: dict[str, Any] = {"spatial_sigma": sigma, "bilateral_sigma_xy": sigma, "bilateral_sigma_color": 1.0}
    q = run(unary, image, bilateral="exact", **options)
    # The axes may change places, with their deviations.
    turned = {**options, "spatial_sigma": sigma[::-1], "bilateral_sigma_xy": sigma[::-1]}
    back = run(unary.transpose(2, 4), image.transpose(2, 4), bilateral="exact", **turned)
    same(back.transpose(2, 4), q)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(dtype: torch.dtype) -> None:
    unary, image = torch.randn(1, 3, 6, 7).to(dtype), torch.rand(1, 3, 6, 7) * 255
    with torch.autocast("cpu", dtype=dtype):
        got = ops.dense_crf(unary, image)
    assert torch.equal(got, ops.dense_crf(unary.float(), image))


@pytest.mark.parametrize(
    "options", [{"recompute": False}, {"bilateral": "exact"}, {"spatial_sigma": torch.tensor(2.0)}]
)
def test_autocast_changes_no_gradient(options: dict[str, Any]) -> None:
    unary, image = torch.randn(1, 3, 6, 7), torch.rand(1, 3, 6, 7) * 255
    results = []
    for on in (False, True):
        x = unary.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            q = ops.dense_crf(x, image, iterations=2, **options)
        results.append((q, torch.autograd.grad((q * image).sum(), x)[0]))
    torch.testing.assert_close(results[1], results[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("output", ["probabilities", "labels"])
def test_vmap_is_a_stack_of_calls(output: str) -> None:
    unary, image = torch.randn(2, 1, 3, 6, 7), torch.rand(2, 1, 3, 6, 7) * 255
    want = torch.stack([ops.dense_crf(u, i, output=output) for u, i in zip(unary, image, strict=True)])
    got = torch.vmap(lambda u, i: ops.dense_crf(u, i, output=output))(unary, image)
    assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("dynamic", "output", "sigma"),
    [
        (True, "probabilities", 1.5),
        (True, "probabilities", torch.tensor([1.0, 1.5])),
        (None, "labels", torch.tensor([1.0, 1.5])),
    ],
)
def test_compiled_in_one_graph(dynamic: bool | None, output: str, sigma: Any) -> None:
    torch._dynamo.reset()
    unary, image = problem(3)
    compiled = torch.compile(lambda s: run(unary, image, spatial_sigma=s, output=output), fullgraph=True,
                             dynamic=dynamic)  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(compiled(sigma), run(unary, image, spatial_sigma=sigma, output=output))
