"""Atrous convolution: against plain PyTorch, gradients and theirs, autocast, vmap, bad arguments."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fastseg
from fastseg import _native, ops, testing
from fastseg.testing import tolerances
from fastseg.testing.cases import atrous_conv as cases
from fastseg.testing.check import differentiated
from fastseg.testing.layouts import LAYOUTS

OP = "atrous_conv2d"
SIDES = ("auto", "reference")
needs_kernels = pytest.mark.skipif(not _native.loaded, reason="algorithms are the kernels': " + _native.why_not)
X, WEIGHT = torch.randn(2, 8, 9, 10), torch.randn(5, 8, 3, 3)
ACTIVATION = {"none": lambda z: z, "relu": F.relu, "relu6": F.relu6, "silu": F.silu}


def row(id: str, op: str = OP) -> testing.Case:
    """One row of the table."""
    return next(case for case in testing.find_cases(op) if case.id == id)


def error(got: Tensor, want: Tensor) -> float:
    """Largest error relative to the largest magnitude."""
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("activation", ACTIVATION)
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_it_is_a_convolution_and_what_follows(groups: int, activation: str) -> None:
    x, weight = torch.randn(2, 8, 9, 10).double(), torch.randn(8, 8 // groups, 3, 5).double()
    bias, scale, shift = torch.randn(3, 8).double()
    residual = torch.randn(2, 8, 5, 4).double()
    plain = F.conv2d(x, weight, bias, (2, 3), (2, 6), (2, 3), groups)
    want = ACTIVATION[activation](scale.view(-1, 1, 1) * plain + shift.view(-1, 1, 1) + residual)
    got = ops.atrous_conv2d(x, weight, bias, stride=(2, 3), dilation=(2, 3), groups=groups, scale=scale, shift=shift,
                            activation=activation, residual=residual)  # fmt: skip
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("id", ["square", "epilogue", "depthwise_stride2", "stride2", "k1x7", "groups", "rate_beyond"])
def test_gradients_and_theirs(id: str, side: str) -> None:
    case = row(id)
    (args, kwargs), leaves = differentiated(case, testing.inputs_of(case, torch.float64))
    function = lambda *_: ops.atrous_conv2d(*args, **kwargs)  # noqa: E731
    with fastseg.backend(side):
        assert torch.autograd.gradcheck(function, tuple(leaves), fast_mode=True, **tolerances.GRADCHECK)
        assert torch.autograd.gradgradcheck(function, tuple(leaves), fast_mode=True, **tolerances.GRADCHECK)


def test_half_precision_is_rounded_once() -> None:
    x, weight = X.bfloat16(), WEIGHT.bfloat16()
    options: dict[str, Any] = {"dilation": 2, "scale": torch.rand(5), "shift": torch.randn(5), "activation": "silu"}
    wide = ops.atrous_conv2d(x.float(), weight.float(), **options)
    got = ops.atrous_conv2d(x, weight, **options)
    assert error(got.float(), wide) <= torch.finfo(torch.bfloat16).eps / 2 + 1e-6


def test_autocast_lowers_maps_and_weights_only() -> None:
    scale = torch.rand(5)
    with torch.autocast("cpu", torch.bfloat16):
        got = ops.atrous_conv2d(X, WEIGHT, scale=scale)
    assert torch.equal(got, ops.atrous_conv2d(X.bfloat16(), WEIGHT.bfloat16(), scale=scale))


def test_vmap_folds_images_of_one_weight() -> None:
    x = torch.stack([X, 2 * X, -X])
    with fastseg.trace() as paths:
        got = torch.vmap(lambda one: ops.atrous_conv2d(one, WEIGHT, dilation=2))(x)
    assert len(paths) == 1
    torch.testing.assert_close(got, torch.stack([ops.atrous_conv2d(one, WEIGHT, dilation=2) for one in x]))


def test_flops_are_those_of_a_convolution() -> None:
    x, weight = X.clone().requires_grad_(), WEIGHT.clone().requires_grad_()
    with FlopCounterMode(display=False) as ours:
        ops.atrous_conv2d(x, weight, dilation=2).sum().backward()
    with FlopCounterMode(display=False) as theirs:
        F.conv2d(x, weight, padding=2, dilation=2).sum().backward()
    assert ours.get_total_flops() == theirs.get_total_flops() > 0


EXTENT = st.sampled_from([1, 2, 3, 5, 8, 13, 16, 17, 33])


@given(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 3, 16, 17, 40]), EXTENT, EXTENT),
    st.sampled_from([1, 3, 16, 19, 33]),
    st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 7])),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(["dense", "depthwise", "tiles"]),
    st.sampled_from(LAYOUTS),
    st.sampled_from(testing.isas()),
)
def test_any_convolution(shape: Any, outputs: int, kernel: Any, stride: Any, rate: Any, kind: str, layout: str,
                         isa: str) -> None:  # fmt: skip
    if kind == "tiles":
        options: dict[str, Any] = {"dilation": rate, "algorithm": "winograd4" if rate[0] % 2 else "winograd3"}
        kernel, dtype, grad = (3, 3), torch.float32, ()
    else:
        grouped = {"groups": shape[1]} if kind == "depthwise" else {}
        options = {"dilation": rate, "stride": stride, **grouped}
        dtype, grad = torch.float64, (0, 1)
        outputs = shape[1] if grouped else outputs
    make = cases.convolution(shape, outputs, kernel, parts=("bias", "scale"), activation="silu", **options)
    case = testing.Case(OP, "fuzz", make, grad, summands=cases.summands, terms=cases.terms, gemm=True)
    with testing.use_isa(isa):
        testing.judge(case, dtype, testing.run(case, dtype, layout))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x": X[0]}, "x must be"),
        ({"x": None}, "x must be"),
        ({"x": X.int()}, "x must be"),
        ({"weight": WEIGHT[:, :3]}, "weight must be torch.float32 of anyx8xanyxany"),
        ({"weight": WEIGHT.double()}, "weight must be torch.float32"),
        ({"weight": WEIGHT[..., :2]}, "weight must have an odd kernel for padding 'same', got 3x2"),
        ({"groups": 3}, "groups must divide the 8 channels of x, got 3"),
        ({"groups": 2, "weight": WEIGHT[:, :4]}, "groups must divide the outputs of weight, got 2"),
        ({"groups": 0}, "groups must divide"),
        ({"stride": 0}, "stride must be a whole number of at least 1"),
        ({"dilation": (1, 2, 3)}, "dilation must be a whole number of at least 1, or two"),
        ({"dilation": 1.5}, "dilation must be a whole number"),
        ({"padding": -1}, "padding must be a whole number of at least 0"),
        ({"padding": 0, "dilation": 9}, "padding must let the kernel fit into the map"),
        ({"bias": torch.ones(4)}, "bias must be a floating tensor"),
        ({"scale": torch.ones(5).int()}, "scale must be a floating tensor"),
        ({"shift": torch.ones(5, device="meta")}, "shift must be on cpu"),
        ({"activation": ["relu"]}, "activation must be one of none, relu"),
        ({"dilation": 2**29, "weight": torch.randn(5, 8, 7, 7)}, "dilation must keep padding 'same' below 2\\^30"),
        ({"activation": "gelu"}, "activation must be one of none, relu"),
        ({"algorithm": "fft"}, "algorithm must be one of auto, direct"),
        ({"residual": X}, r"residual must be floating \[2, 5, 9, 10\]"),
        ({"packed": WEIGHT}, "packed must be"),
        ({"packed": torch.ones(16, 8, 5), "algorithm": "direct"}, "packed must be None"),
        ({"packed": torch.ones(16, 8, 5), "algorithm": "winograd3"}, r"packed must be torch.float32 \[25, 8, 5\]"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"fastseg::{OP}: {message}"):
        ops.atrous_conv2d(**{"x": X, "weight": WEIGHT, **changes})


RAW = {
    "x": X, "weight": WEIGHT, "bias": None, "scale": None, "shift": None, "residual": None, "packed": None,
    "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "activation": "none", "algorithm": "auto",
}  # fmt: skip


@needs_kernels
@pytest.mark.parametrize(
    "changes",
    [
        {"x": X[0]}, {"x": X.double()}, {"x": X[:, :0]}, {"weight": WEIGHT[0]}, {"weight": WEIGHT[:0]},
        {"groups": 0}, {"groups": -1}, {"groups": 3}, {"stride": [1]}, {"stride": [0, 1]}, {"dilation": [2**40, 1]},
        {"dilation": []}, {"padding": [-1, 0]}, {"padding": [0, 2**31]}, {"dilation": [9, 9], "padding": [0, 0]},
        {"bias": torch.ones(4)}, {"scale": torch.ones(5, 1)}, {"shift": torch.ones(5).int()}, {"residual": X},
        {"packed": WEIGHT}, {"packed": torch.ones(16, 8, 5), "algorithm": "winograd3"}, {"activation": "gelu"},
        {"algorithm": "fft"}, {"algorithm": "winograd2", "stride": [2, 2]},
    ],
)  # fmt: skip
def test_raw_calls_never_crash(changes: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        torch.ops.fastseg.atrous_conv2d(*{**RAW, **changes}.values())


@needs_kernels
@pytest.mark.parametrize("call", [
    lambda raw: raw.atrous_conv2d_grad_input(X, WEIGHT, 9, 10, [1, 1], [1, 1], [1, 1], 1),
    lambda raw: raw.atrous_conv2d_grad_input(X[:, :5], WEIGHT, 9, -1, [1, 1], [1, 1], [1, 1], 1),
    lambda raw: raw.atrous_conv2d_grad_input(X[:, :5], WEIGHT, 9, 10, [1, 1], [1, 1], [1, 1], 0),
    lambda raw: raw.atrous_conv2d_grad_weight(X, X[..., :3], 3, 3, [1, 1], [1, 1], [1, 1], 1),
    lambda raw: raw.atrous_conv2d_grad_weight(X, X, 3, -3, [1, 1], [1, 1], [1, 1], 1),
    lambda raw: raw.atrous_conv2d_grad_weight(X, X.double(), 3, 3, [1, 1], [1, 1], [1, 1], 1),
    lambda raw: raw._atrous_algorithm([1, 2], 3, [1, 1]),
    lambda raw: raw._atrous_algorithm([1, 2, 3, -4], 3, [1, 1]),
])  # fmt: skip
def test_raw_calls_beside_it_never_crash(call: Any) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        call(torch.ops.fastseg)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_depthwise_rows_of_every_width(layout: str, dtype: torch.dtype, isa: str) -> None:
    weight = torch.randn(3, 1, 3, 3, dtype=dtype)
    for width in range(1, 200):
        x = testing.with_layout(torch.randn(1, 3, 2, width, dtype=dtype), layout)
        want = F.conv2d(x, weight, padding=1, groups=3)
        with testing.use_isa(isa):
            got = ops.atrous_conv2d(x, weight, groups=3)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, msg=lambda m, w=width: f"width {w}: {m}")
