"""Gradients by finite differences, in float64, native and reference, and the errors of what has no gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg import ops, testing
from fastseg.testing import tolerances

SIDES = ("auto", "reference")
SIZES = [((1, 3, 3, 4), (6, 8)), ((2, 2, 3, 5), (7, 4)), ((1, 4, 1, 3), (5, 7)), ((1, 3, 6, 5), (3, 2))]


def natively(function: Callable[..., Any], *args: Any) -> Any:
    """Call, and assert that every op of the call took the expected path."""
    with fastseg.trace() as paths:
        out = function(*args)
    assert paths and all(p.split(":")[1] == testing.expected_path(testing.best_isa()) for p in paths), paths
    return out


def gradcheck(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    natively(lambda: torch.autograd.grad(function(x).sum(), x))
    for side in SIDES:
        with fastseg.backend(side):
            assert torch.autograd.gradcheck(function, (x,), **tolerances.GRADCHECK), side


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape, size", SIZES)
@pytest.mark.parametrize("op", ["upsample_bilinear", "upsample_softmax"])
def test_gradcheck(op: str, shape: tuple[int, ...], size: tuple[int, int], align_corners: bool, layout: str) -> None:
    x = testing.with_layout(torch.randn(shape, dtype=torch.float64), layout).requires_grad_()
    gradcheck(lambda x: getattr(ops, op)(x, size, align_corners=align_corners), x)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", ["plain", "smoothed", "weighted", "pixel_weighted", "everything"])
@pytest.mark.parametrize("shape, size", SIZES)
def test_gradcheck_of_the_loss(shape: tuple[int, ...], size: tuple[int, int], options: str, reduction: str) -> None:
    target = torch.randint(0, shape[1], (shape[0], *size))
    target[:, 0, 0] = 255
    extra: dict[str, Any] = {"reduction": reduction}
    if options in ("smoothed", "everything"):
        extra["label_smoothing"] = 0.2
    if options in ("weighted", "everything"):
        extra["weight"] = torch.rand(shape[1], dtype=torch.float64)
    if options in ("pixel_weighted", "everything"):
        extra["pixel_weight"] = torch.rand(target.shape, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    gradcheck(lambda x: ops.upsample_cross_entropy(x, target, **extra), x)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape, size", SIZES)
def test_gradgradcheck_of_bilinear(shape: tuple[int, ...], size: tuple[int, int], align_corners: bool) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    function = lambda x: ops.upsample_bilinear(x, size, align_corners=align_corners)  # noqa: E731
    for side in SIDES:
        with fastseg.backend(side):
            assert torch.autograd.gradgradcheck(function, (x,), **tolerances.GRADCHECK), side


@pytest.mark.parametrize("side", SIDES)
def test_a_second_derivative_says_that_there_is_none(side: str) -> None:
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    target = torch.randint(0, 3, (1, 8, 10))
    with fastseg.backend(side):
        softmax, loss = ops.upsample_softmax(x, (8, 10)), ops.upsample_cross_entropy(x, target)
    for op, out in (("upsample_softmax", softmax.square().sum()), ("upsample_cross_entropy", loss)):
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        with pytest.raises(NotImplementedError, match=f"fastseg::{op}_backward is not differentiable"):
            grad.sum().backward()


@pytest.mark.parametrize("side", SIDES)
def test_labels_confidence_and_counts_do_not_require_a_gradient(side: str) -> None:
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    target = torch.randint(0, 3, (1, 8, 10))
    with fastseg.backend(side):
        confident = ops.upsample_argmax(x, (8, 10), return_confidence=True)
        rest = ops.upsample_argmax(x, (8, 10)), ops.upsample_threshold(x, (8, 10)), ops.confusion_matrix(x, target, 3)
    assert not any(t.requires_grad for t in (*confident, *rest))


def test_the_backward_runs_where_the_forward_ran() -> None:
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    with fastseg.backend("reference"):
        out = ops.upsample_bilinear(x, (8, 10))
    with fastseg.trace() as paths:
        out.sum().backward()
    assert paths == ["upsample_bilinear_backward:reference"]


@pytest.mark.parametrize("size", [(8, 20), (32, 80), (33, 81), (4, 10)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("spread", [1.0, 1e2, 1e4, 1e9])
def test_large_logits_cost_no_digits(spread: float, offset: float, size: tuple[int, int]) -> None:
    """What all classes share drops out before anything is rounded, and no probability passes 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 8, 20, generator=generator) * spread + offset
    target = torch.randint(0, 5, (2, *size), generator=generator)

    def run(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        loss = function(x)
        return loss.detach().double(), torch.autograd.grad(loss, x)[0].double()

    def plain(x: Tensor) -> Tensor:
        return F.cross_entropy(F.interpolate(x, size=size, mode="bilinear"), target, reduction="sum")

    truth = run(plain, x.double())
    reached = run(plain, x)
    got = natively(run, lambda x: ops.upsample_cross_entropy(x, target, reduction="sum"), x)
    for expected, torch_has, ours in zip(truth, reached, got, strict=True):
        largest = expected.abs().max()
        # Interpolation rounds what it mixes; where it mixes nothing, only the classes' differences are rounded.
        rounded = spread + (offset if size != (8, 20) else 0.0)
        granted = tolerances.floor(torch.float32, 20, tolerances.exponent(min(rounded, 1e4), 5))
        allowed = tolerances.PLAIN * (torch_has - expected).abs().max() + granted * largest
        assert (ours - expected).abs().max() <= allowed
        assert ours.abs().max() <= 1.01 * largest
