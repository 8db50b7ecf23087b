"""The sums of region losses and the Lovász losses: golden numbers, corners, and what the documentation promises."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg import _native, ops, testing
from fastseg.profiler.measure import peak_bytes
from fastseg.testing import tolerances
from fastseg.testing.signals import labels, logits

native = pytest.mark.skipif(not _native.loaded, reason="it is promised for the native kernels: " + _native.why_not)
SIDES = ("auto", "reference")
# Four pixels of three classes.
G1 = torch.tensor(
    [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.5, 0.4, 0.1]], dtype=torch.float64
).log().T.reshape(1, 3, 1, 4)  # fmt: skip
LABELS = torch.tensor([[[0, 1, 2, 1]]])
ABSENT = torch.tensor([[[0, 1, 0, 1]]])
BINARY = torch.tensor([2, -1, 0.5, -2], dtype=torch.float64).view(1, 1, 1, 4)
FOREGROUND = torch.tensor([[[1, 0, 0, 1]]])
# Probabilities of one class, and whose pixels are its own.
HAND = torch.tensor([0.9, 0.6, 0.3, 0.2], dtype=torch.float64)
OWN = torch.tensor([[[1, 1, 0, 0]]])


@pytest.fixture(autouse=True, params=SIDES)
def side(request: pytest.FixtureRequest) -> Any:
    with fastseg.backend(request.param):
        yield request.param


def near(value: Tensor, golden: float) -> bool:
    """Golden numbers have six digits."""
    return abs(float(value) - golden) < 6e-7


def sums_of(x: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return ops.region_statistics(x, target, **options).sum(0).unbind(-1)


def test_sums_of_four_pixels() -> None:
    overlap, predicted, squared, true, entropy, focal = sums_of(G1, LABELS, gamma=2.0)
    p = G1.exp()[0, :, 0]
    y = F.one_hot(LABELS[0, 0], 3).T
    for got, want in ((overlap, p * y), (predicted, p), (squared, p * p), (true, y), (entropy, -y * p.log())):
        torch.testing.assert_close(got, want.sum(1).double())
    assert near(entropy.sum() / 4, 0.619235) and near(focal.sum() / 4, 0.154246)
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert near((weight * entropy).sum() / (weight * true).sum(), 0.661294)
    assert near((1 - 2 * overlap / (predicted + true)).mean(), 0.457090)
    assert near((1 - (2 * overlap + 1e-5) / (squared + true + 1e-5)).mean(), 0.243219)  # as MONAI smooths
    assert near((1 - overlap / (predicted + true - overlap)).mean(), 0.626708)
    tversky = overlap / (overlap + 0.3 * (predicted - overlap) + 0.7 * (true - overlap))
    assert near((1 - tversky).mean(), 0.451394)
    assert near(((1 - tversky).mean()) ** 0.75, 0.550702)


def test_ignored_pixels_count_nowhere() -> None:
    overlap, predicted, _, true, entropy, _ = sums_of(G1, torch.tensor([[[0, 1, 2, 255]]]))
    assert near(entropy.sum() / true.sum(), 0.520216)
    assert near((1 - 2 * overlap / (predicted + true)).mean(), 0.401797)
    torch.testing.assert_close(ops.region_statistics(G1[..., :3], LABELS[..., :3])[0, :, 1], predicted)


def test_a_class_that_is_absent() -> None:
    overlap, predicted, _, true, *_ = sums_of(G1, ABSENT)
    assert true.tolist() == [2, 2, 0] and overlap[2] == 0
    assert near((1 - 2 * overlap / (predicted + true))[:2].sum() / 3, 0.295026)


def test_sums_of_one_class_against_the_rest() -> None:
    sums = sums_of(BINARY, FOREGROUND, activation="sigmoid", gamma=2.0)
    assert near((sums[4] + sums[6])[0] / 4, 0.885299) and near((sums[5] + sums[7])[0] / 4, 0.512988)
    assert near(1 - 2 * sums[0][0] / (sums[1] + sums[3])[0], 0.486046)
    x, y = HAND.logit().view(1, 1, 1, 4), OWN
    overlap, predicted, squared, true, *_ = sums_of(x, y, activation="sigmoid")
    assert near(overlap[0], 1.5) and near(predicted[0], 2) and true[0] == 2
    assert near(2 * overlap[0] / (squared + true)[0], 3 / 3.3)
    for gamma, golden in ((0.0, 0.299001), (1.0, 0.091624), (2.0, 0.030953)):
        sums = sums_of(x, y, activation="sigmoid", gamma=gamma)
        assert near((sums[5] + sums[7])[0] / 4, golden)


def test_lovasz_goldens() -> None:
    assert near(ops.lovasz_softmax(G1, LABELS), 0.466667)
    assert near(ops.lovasz_softmax(G1, LABELS, classes="all"), 0.466667)
    assert near(ops.lovasz_softmax(G1, ABSENT), 0.529167)
    assert near(ops.lovasz_softmax(G1, ABSENT, classes="all"), 0.519444)
    assert near(ops.lovasz_hinge(BINARY, FOREGROUND), 1.75)


def test_lovasz_steps_by_hand(side: str) -> None:
    """Errors .4 .3 .2 .1 of truths 1 0 0 1: the Jaccard loss rises to .5, .6667, .75 and 1."""
    x = torch.stack([1 - HAND, HAND]).log().view(1, 2, 1, 4)
    raw = torch.ops.fastseg if side == "auto" else torch.ops.fastseg_reference
    loss, slope = raw.lovasz_softmax(x, OWN, 255, True, False)
    steps = torch.tensor([-0.25, -0.5, 1 / 6, 1 / 12], dtype=torch.float64)
    torch.testing.assert_close(2 * slope[0, 1, 0], steps)
    assert near((HAND - OWN[0, 0]) @ steps, 0.291667)
    assert near(loss, (0.291667 + 0.3) / 2)  # of the other class the steps are 1/3, 1/3, 1/3 and 0


def test_of_equal_errors_the_first_pixel_has_the_first_step() -> None:
    x, target = torch.zeros(1, 1, 1, 4, requires_grad=True), torch.tensor([[[0, 1, 1, 0]]])
    (grad,) = torch.autograd.grad(ops.lovasz_hinge(x, target), x)
    torch.testing.assert_close(grad.flatten(), torch.tensor([1 / 3, -1 / 3, -1 / 3, 0]))


def test_images_without_a_pixel_count_as_zero() -> None:
    """As in the reference implementation: the mean is over all images."""
    x = torch.randn(2, 4, 5, 6)
    target = torch.randint(0, 4, (2, 5, 6))
    target[1] = 255
    alone = ops.lovasz_softmax(x[:1], target[:1])
    torch.testing.assert_close(ops.lovasz_softmax(x, target, per_image=True), alone / 2)
    torch.testing.assert_close(ops.lovasz_softmax(x, target), alone)
    binary = target.clamp(max=1).masked_fill(target == 255, 255)
    alone = ops.lovasz_hinge(x[:1, :1], binary[:1])
    torch.testing.assert_close(ops.lovasz_hinge(x[:, :1], binary), alone / 2)
    torch.testing.assert_close(ops.lovasz_hinge(x[:, :1], binary, per_image=False), alone)


@pytest.mark.parametrize("isa", testing.isas())
def test_with_everything_ignored_all_is_zero_and_so_is_the_gradient(isa: str) -> None:
    x = torch.randn(2, 1, 4, 5, requires_grad=True)
    target = torch.full((2, 4, 5), 255)
    with testing.use_isa(isa):
        for out in (
            ops.region_statistics(x, target, gamma=0.5),
            ops.region_statistics(x, target, activation="sigmoid", gamma=0.5),
            ops.lovasz_softmax(x, target),
            ops.lovasz_hinge(x, target),
        ):
            assert not out.any()
            assert not torch.autograd.grad(out.sum(), x)[0].any()


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_infinite_that_should_be_finite(dtype: torch.dtype, isa: str) -> None:
    x = torch.tensor([-1e4, 1e4, 30.0, -30.0], dtype=dtype).view(1, 1, 1, 4).requires_grad_()
    target = torch.tensor([[[1, 0, 1, 0]]])
    two = torch.cat([torch.zeros_like(x), x], 1)
    with testing.use_isa(isa):
        one = ops.region_statistics(x, target, activation="sigmoid", gamma=0.5)
        both = ops.region_statistics(two, target, gamma=0.5)
        (grad,) = torch.autograd.grad(one.sum() + both.sum(), x)
    small = torch.tensor(30.0, dtype=torch.float64).neg().exp().log1p().to(dtype)
    torch.testing.assert_close(one[0, 0, [4, 6]], 1e4 + small.expand(2))
    torch.testing.assert_close(both[0, :, 4], torch.tensor([1e4, 1e4], dtype=dtype))
    assert grad.isfinite().all()


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("gamma", [0.25, 0.5, 1.0])
def test_the_focal_slope_at_certainty_is_zero(gamma: float, isa: str) -> None:
    """That of (1 - p)^gamma alone is infinite below 1."""
    x = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).requires_grad_()
    single = torch.full((1, 1, 1, 1), 200.0, requires_grad=True)
    with testing.use_isa(isa):
        focal = ops.region_statistics(x, torch.zeros(1, 1, 1, dtype=torch.int64), gamma=gamma)[..., 5].sum()
        assert focal == 0 and not torch.autograd.grad(focal, x)[0].any()
        target = torch.ones(1, 1, 1, dtype=torch.int64)
        focal = ops.region_statistics(single, target, activation="sigmoid", gamma=gamma)[..., 5].sum()
        assert focal == 0 and not torch.autograd.grad(focal, single)[0].any()


def test_of_one_class_probabilities_are_one_and_the_gradient_is_zero() -> None:
    x = logits((1, 1, 5, 6), "noise", 6).float().requires_grad_()
    sums = ops.region_statistics(x, torch.zeros(1, 13, 19, dtype=torch.uint8), gamma=2.0)
    pixels = 13 * 19
    torch.testing.assert_close(sums.flatten(), torch.tensor([pixels, pixels, pixels, pixels, 0.0, 0.0]))
    # The largest term that cancels is 5 for each pixel.
    (grad,) = torch.autograd.grad(sums.sum(), x)
    assert grad.abs().max() <= 5 * pixels * tolerances.floor(torch.float32, 6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_images_are_independent_and_upsampling_is_fused(activation: str) -> None:
    x, target = logits((3, 5, 6, 7), "noise", 1), labels((3, 23, 30), 5, torch.uint8, 2, 255)
    options: dict[str, Any] = {"activation": activation, "gamma": 2.0}
    together = ops.region_statistics(x, target, **options)
    alone = [ops.region_statistics(a[None], b[None], **options) for a, b in zip(x, target, strict=True)]
    torch.testing.assert_close(torch.cat(alone), together)
    full = ops.upsample_bilinear(x, (23, 30))
    torch.testing.assert_close(ops.region_statistics(full, target, **options), together)


def test_cross_entropy_is_that_of_the_op_for_it() -> None:
    x, target = logits((2, 7, 6, 9), "noise", 4), labels((2, 23, 35), 7, torch.uint8, 5, 255)
    _, _, _, true, entropy, _ = sums_of(x, target)
    weight = torch.rand(7, dtype=torch.float64)
    want = ops.upsample_cross_entropy(x, target, weight=weight)
    torch.testing.assert_close((weight * entropy).sum() / (weight * true).sum(), want, rtol=1e-12, atol=0)


def test_autocast_computes_in_float32() -> None:
    x = torch.randn(1, 3, 9, 11, dtype=torch.bfloat16, requires_grad=True)
    target = torch.randint(0, 3, (1, 9, 11))
    for op in (ops.region_statistics, ops.lovasz_softmax):
        with torch.autocast("cpu", torch.bfloat16):
            out = op(x, target)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert out.dtype == torch.float32 and grad.dtype == torch.bfloat16
        assert torch.equal(out, op(x.float(), target))


def test_vmap_is_a_stack_of_calls() -> None:
    x, target = torch.randn(3, 2, 4, 9, 11, requires_grad=True), torch.randint(0, 4, (3, 2, 9, 11))
    for op in (ops.region_statistics, ops.lovasz_softmax):
        want = torch.stack([op(a, b) for a, b in zip(x, target, strict=True)])
        got = torch.vmap(op)(x, target)
        torch.testing.assert_close(got, want)
        gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (got, want)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("size", [(6, 8), (7, 4), (3, 4)])
@pytest.mark.parametrize("activation, classes", [("softmax", 3), ("sigmoid", 3), ("sigmoid", 1)])
def test_gradcheck_of_the_sums(activation: str, classes: int, size: tuple[int, int], layout: str, side: str) -> None:
    target = torch.randint(0, max(classes, 2), (2, *size))
    target[:, 0, 0] = 255
    x = testing.with_layout(torch.randn(2, classes, 3, 4, dtype=torch.float64), layout).requires_grad_()
    for gamma in (None, 0.5, 2.0):
        options: dict[str, Any] = {"activation": activation, "gamma": gamma, "align_corners": gamma == 2.0}
        with fastseg.trace() as paths:
            assert torch.autograd.gradcheck(
                lambda x, options=options: ops.region_statistics(x, target, **options), (x,), **tolerances.GRADCHECK
            )
        path = testing.expected_path(testing.best_isa()) if side == "auto" else "reference"
        assert paths and all(p.split(":")[1] == path for p in paths)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("per_image", [False, True])
def test_gradcheck_of_the_lovasz_losses(per_image: bool, layout: str) -> None:
    """No two errors are near each other, and none is near 0."""
    x = testing.with_layout(torch.randn(2, 4, 5, 6, dtype=torch.float64), layout).requires_grad_()
    target = torch.randint(0, 3, (2, 5, 6))
    target[:, 0, 0] = 255
    for classes in ("present", "all"):
        assert torch.autograd.gradcheck(
            lambda x, c=classes: ops.lovasz_softmax(x, target, classes=c, per_image=per_image),
            (x,),
            **tolerances.GRADCHECK,
        )
    x = testing.with_layout(torch.randn(2, 1, 5, 6, dtype=torch.float64), layout).requires_grad_()
    binary = target.clamp(max=1).masked_fill(target == 255, 255)
    assert torch.autograd.gradcheck(
        lambda x: ops.lovasz_hinge(x, binary, per_image=per_image), (x,), **tolerances.GRADCHECK
    )


@pytest.mark.parametrize("op", ["region_statistics", "lovasz_softmax"])
def test_a_second_derivative_is_refused(op: str) -> None:
    x = torch.randn(1, 3, 5, 6, requires_grad=True)
    out = getattr(ops, op)(x, torch.zeros(1, 5, 6, dtype=torch.int64))
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=f"fastseg::{op}_backward is not differentiable"):
        torch.autograd.grad(grad.sum(), x)


@native
def test_nothing_of_full_size_is_held(side: str) -> None:
    if side == "reference":
        return
    pixels = 1024 * 2048
    row = ("region_statistics", "cityscapes_noise", "fastseg", "both", "float32", "contiguous")
    gradient, scratch = 4 * 19 * 128 * 256, tolerances.SCRATCH_BYTES
    assert peak_bytes("fastseg.testing.contenders:prepared", *row) <= 2 * gradient + 4 * scratch < 4 * pixels * 19 / 10
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    x = torch.randn(1, 19, 8, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ops.region_statistics(x, torch.zeros(1, 64, 128, dtype=torch.uint8))
    assert sorted(saved) == [x.numel(), 64 * 128]


def test_more_pixels_than_the_sort_can_number() -> None:
    target = torch.zeros(1, 1, 1, dtype=torch.uint8).expand(1, 2**16, 2**15)
    x = torch.zeros(1, 1, 1, 1).expand(1, 1, 2**16, 2**15)
    for op in (ops.lovasz_softmax, ops.lovasz_hinge):
        with pytest.raises(ValueError, match="target must have less than 2\\^31 pixels"):
            op(x, target)
