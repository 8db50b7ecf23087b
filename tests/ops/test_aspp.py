"""ASPP and the separable convolution: against their parts, gradients, packed weights, bad arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg import ops, testing
from fastseg.testing import contenders, tolerances
from fastseg.testing.check import differentiated
from fastseg.testing.rivals.aspp import aspp_conv2d as plain

SIDES = ("auto", "reference")


def row(op: str, id: str) -> testing.Case:
    """One row of the table."""
    return next(case for case in testing.find_cases(op) if case.id == id)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
def test_aspp_is_the_composition(layout: str) -> None:
    args, kwargs = testing.inputs_of(row("aspp_conv2d", "square"), torch.float64, layout)
    torch.testing.assert_close(ops.aspp_conv2d(*args, **kwargs), plain(*args, **kwargs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "op, id",
    [
        *(
            ("aspp_conv2d", f"trained_{id}")
            for id in ("square", "pooled", "no_pool", "no_tables", "no_rates", "rate_beyond")
        ),
        *(("separable_atrous_conv2d", id) for id in ("square", "silu", "plain", "stride2")),
    ],
)
def test_gradcheck(op: str, id: str, side: str) -> None:
    case = row(op, id)
    (args, kwargs), leaves = differentiated(case, testing.inputs_of(case, torch.float64))
    with fastseg.backend(side):
        assert torch.autograd.gradcheck(
            lambda *_: getattr(ops, op)(*args, **kwargs), tuple(leaves), fast_mode=True, **tolerances.GRADCHECK
        )


@pytest.mark.parametrize("op, id", [("aspp_conv2d", "trained_square"), ("separable_atrous_conv2d", "square")])
def test_a_part_of_the_gradients_is_enough(op: str, id: str) -> None:
    case = row(op, id)
    (args, kwargs), leaves = differentiated(case, testing.inputs_of(case, torch.float64))
    out = getattr(ops, op)(*args, **kwargs).sum()
    everything = torch.autograd.grad(out, leaves)
    for leaf, right in zip(leaves, everything, strict=True):
        fresh = [t.detach() if isinstance(t, Tensor) and t is not leaf else t for t in args]
        fresh = [[w.detach() if w is not leaf else w for w in t] if isinstance(t, list) else t for t in fresh]
        others = {k: t.detach() if isinstance(t, Tensor) and t is not leaf else t for k, t in kwargs.items()}
        (got,) = torch.autograd.grad(getattr(ops, op)(*fresh, **others).sum(), leaf)
        torch.testing.assert_close(got, right)


def test_pooled_takes_the_place_of_the_mean() -> None:
    args, kwargs = testing.inputs_of(row("aspp_conv2d", "square"), torch.float64)
    want = ops.aspp_conv2d(*args, **kwargs)
    torch.testing.assert_close(ops.aspp_conv2d(*args, **kwargs, pooled=args[0].mean((2, 3))), want)
    assert not torch.allclose(ops.aspp_conv2d(*args, **kwargs, pooled=args[0].amax((2, 3))), want)


def test_a_missing_packed_weight_is_made() -> None:
    args, kwargs = testing.inputs_of(row("aspp_conv2d", "tiles"), torch.float32)
    packed = [ops.prepack_atrous_weight(w, "winograd3") for w in args[2]]
    packed[1] = torch.empty(0)
    want = ops.aspp_conv2d(*args, **kwargs)
    with torch.inference_mode():
        got = ops.aspp_conv2d(*args, **kwargs, packed=packed)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_the_compiled_rival_owns_the_weights_of_a_list_too() -> None:
    args, kwargs = testing.inputs_of(row("aspp_conv2d", "square"), torch.float32)
    frozen = contenders._frozen("aspp_conv2d", args, kwargs)
    assert isinstance(frozen, torch.nn.Module)
    owned = {p.data_ptr() for p in frozen.parameters()}
    assert owned == {w.data_ptr() for w in (args[1], *args[2], *args[4:], *kwargs.values())}


def test_autocast_lowers_maps_and_weights_only() -> None:
    args, kwargs = testing.inputs_of(row("separable_atrous_conv2d", "square"), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.separable_atrous_conv2d(*args, **kwargs)
    lower = [t.bfloat16() for t in args]
    assert got.dtype == torch.bfloat16 and torch.equal(got, ops.separable_atrous_conv2d(*lower, **kwargs))


def test_autocast_lowers_the_weights_of_a_list_and_keeps_tables() -> None:
    args, kwargs = testing.inputs_of(row("aspp_conv2d", "square"), torch.float32)
    kwargs["branch_shift"] = kwargs["branch_shift"] + 1000.3
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.aspp_conv2d(*args, **kwargs)
    x, point, branches, rates, pool, project = args
    lower = [t.bfloat16() for t in (x, point, pool, project)]
    want = ops.aspp_conv2d(*lower[:2], [b.bfloat16() for b in branches], rates, *lower[2:], **kwargs)
    assert got.dtype == torch.bfloat16 and torch.equal(got, want)


def test_vmap_over_the_weights_of_a_list() -> None:
    args, kwargs = testing.inputs_of(row("aspp_conv2d", "square"), torch.float64)
    x, point, branches, *rest = args
    stacked = [torch.stack([b, -b]) for b in branches]
    got = torch.vmap(lambda own: ops.aspp_conv2d(x, point, own, *rest, **kwargs))(stacked)
    want = torch.stack([ops.aspp_conv2d(x, point, [s[i] for s in stacked], *rest, **kwargs) for i in range(2)])
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_rounds_as_inference_does_under_autocast(dtype: torch.dtype) -> None:
    case = row("aspp_conv2d", "trained_square")
    (args, kwargs), leaves = differentiated(case, testing.inputs_of(case, torch.float32))
    with torch.autocast("cpu", dtype):
        trained = ops.aspp_conv2d(*args, **kwargs)
        with torch.no_grad():
            want = ops.aspp_conv2d(*args, **kwargs)
    assert trained.dtype == dtype
    torch.testing.assert_close(trained, want, rtol=torch.finfo(dtype).eps, atol=1e-3)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(trained.sum(), leaves))


def test_training_takes_no_tiles() -> None:
    torch.manual_seed(0)
    x, point, branch = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 1, 1), torch.randn(256, 256, 3, 3) / 48
    project = torch.eye(512)[256:, :, None, None]  # the branch alone

    def off(y: Tensor) -> float:
        return float((y.double() - F.conv2d(x.double(), branch.double(), padding=2, dilation=2).relu()).norm())

    with torch.no_grad():
        tiled = off(ops.aspp_conv2d(x, point, [branch], (2,), None, project))
    trained = off(ops.aspp_conv2d(x, point, [branch], (2,), None, project.clone().requires_grad_()).detach())
    formats = (torch.contiguous_format, torch.channels_last)  # of which oneDNN is further off in one
    maps = [F.conv2d(x.contiguous(memory_format=f), branch, padding=2, dilation=2).relu() for f in formats]
    assert trained <= 1.01 * max(map(off, maps)) < tiled


@pytest.mark.parametrize("side", ["auto", "reference"])
def test_a_rate_far_beyond_the_map_reads_the_centre(side: str) -> None:
    x, depth, mix = torch.randn(1, 4, 5, 6, requires_grad=True), torch.randn(4, 1, 3, 3), torch.randn(3, 4, 1, 1)
    with fastseg.backend(side):
        y = ops.separable_atrous_conv2d(x, depth, mix, dilation=2**29)
        want = F.conv2d(x * depth[:, 0, 1, 1, None, None], mix)
        torch.testing.assert_close(y, want)
        torch.testing.assert_close(*(torch.autograd.grad(z.square().sum(), x)[0] for z in (y, want)))


def test_vmap_folds_images_of_one_weight() -> None:
    args, kwargs = testing.inputs_of(row("separable_atrous_conv2d", "square"), torch.float64)
    x = torch.stack([args[0], 2 * args[0], -args[0]])
    with fastseg.trace() as paths:
        got = torch.vmap(lambda one: ops.separable_atrous_conv2d(one, *args[1:], **kwargs))(x)
    assert len(paths) == 1
    torch.testing.assert_close(got, torch.stack([ops.separable_atrous_conv2d(t, *args[1:], **kwargs) for t in x]))


X, POINT, BRANCH = torch.randn(1, 4, 5, 6), torch.randn(3, 4, 1, 1), torch.randn(3, 4, 3, 3)
POOL, PROJECT = torch.randn(3, 4, 1, 1), torch.randn(2, 9, 1, 1)
DEPTH, MIX = torch.randn(4, 1, 3, 3), torch.randn(3, 4, 1, 1)


def aspp(**changes: Any) -> Tensor:
    given: dict[str, Any] = {
        "x": X, "pointwise_weight": POINT, "branch_weights": [BRANCH], "rates": (2,), "pool_weight": POOL,
        "project_weight": PROJECT, **changes,
    }  # fmt: skip
    return ops.aspp_conv2d(**given)


def separable(**changes: Any) -> Tensor:
    return ops.separable_atrous_conv2d(**{"x": X, "depthwise_weight": DEPTH, "pointwise_weight": MIX, **changes})


@pytest.mark.parametrize(
    "function, changes, message",
    [
        (aspp, {"x": X[0]}, "x must be a floating tensor"),
        (aspp, {"pointwise_weight": BRANCH}, "pointwise_weight must be torch.float32 of anyx4x1x1"),
        (aspp, {"branch_weights": []}, "branch_weights must be as many as rates, got 0"),
        (aspp, {"branch_weights": [POINT]}, "branch_weights must be torch.float32 of 3x4x3x3"),
        (aspp, {"rates": (0,)}, "rates must be whole numbers of at least 1"),
        (aspp, {"rates": 2}, "rates must be whole numbers of at least 1"),
        (aspp, {"pool_weight": POOL.double()}, "pool_weight must be torch.float32"),
        (aspp, {"project_weight": PROJECT[:, :6]}, "project_weight must be torch.float32 of anyx9x1x1"),
        (aspp, {"pool_weight": None}, "project_weight must be torch.float32 of anyx6x1x1"),
        (aspp, {"branch_scale": torch.ones(2, 3)}, "branch_scale must be floating"),
        (aspp, {"project_shift": torch.ones(3)}, "project_shift must be a floating tensor"),
        (aspp, {"pooled": torch.ones(1, 3)}, "pooled must be floating"),
        (aspp, {"project_scale": torch.ones(2, device="meta")}, "project_scale must be on cpu"),
        (separable, {"depthwise_weight": DEPTH[:3]}, "depthwise_weight must be torch.float32 of 4x1xanyxany"),
        (separable, {"depthwise_weight": DEPTH[..., :2]}, "depthwise_weight must have an odd kernel"),
        (separable, {"pointwise_weight": BRANCH}, "pointwise_weight must be torch.float32 of anyx4x1x1"),
        (separable, {"dilation": 0}, "dilation must be a whole number of at least 1"),
        (separable, {"stride": (1, 2, 3)}, "stride must be a whole number of at least 1, or two"),
        (separable, {"scale": torch.ones(4)}, "scale must be a floating tensor"),
        (separable, {"depthwise_activation": "gelu"}, "depthwise_activation must be one of none, relu"),
    ],
)
def test_bad_arguments(function: Callable[..., Tensor], changes: dict[str, Any], message: str) -> None:
    op = {aspp: "aspp_conv2d", separable: "separable_atrous_conv2d"}[function]
    with pytest.raises(ValueError, match=f"fastseg::{op}: {message}"):
        function(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": [-1]}, {"rates": [2**40]}, {"rates": []}, {"branch_weights": []}, {"project": PROJECT[:, :5]},
        {"pool": POOL[:2]}, {"x": X[0]}, {"x": X.double()}, {"packed": [BRANCH]}, {"packed": [BRANCH] * 3},
        {"branch_scale": torch.ones(3)}, {"pooled": torch.ones(2, 4)}, {"pointwise": POINT[:0]},
    ],
)  # fmt: skip
def test_raw_calls_never_crash(changes: dict[str, Any]) -> None:
    given = {
        "x": X, "pointwise": POINT, "branch_weights": [BRANCH], "packed": [], "rates": [2], "pool": POOL,
        "project": PROJECT, "branch_scale": None, "branch_shift": None, "project_scale": None, "project_shift": None,
        "pooled": None, **changes,
    }  # fmt: skip
    with pytest.raises((RuntimeError, ValueError)):
        torch.ops.fastseg.aspp_conv2d(*given.values())
