"""Kernel-sharing atrous convolution: what the table of cases cannot say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fastseg
from fastseg import _native, ops, testing
from fastseg.profiler.measure import peak_bytes
from fastseg.testing import tolerances
from fastseg.testing.cases import ksac as rows

SIDES = ("auto", "reference")
X, WEIGHT, RATES = torch.zeros(1, 3, 8, 9), torch.zeros(5, 3, 3, 3), (2, 3)
RAW = torch.ops.fastseg


def noise(*shape: int, **options: Any) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64, **options)


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("shape, rates", [((2, 3, 5, 6), (1, 2)), ((1, 2, 4, 3), (3, 5)), ((1, 2, 1, 7), (2, 2))])
def test_gradcheck(shape: tuple[int, ...], rates: tuple[int, ...], fusion: str, layout: str) -> None:
    torch.set_num_threads(1)
    vectors = noise(2, 3), noise(2, 3) / 2
    leaves = [
        testing.with_layout(t, layout).requires_grad_() for t in (noise(*shape), noise(3, shape[1], 3, 3), *vectors)
    ]

    def fixed(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return ops.ksac_conv2d(x, weight, rates, scale=scale, shift=shift, fusion=fusion, activation="silu")

    def normed(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
        return ops.ksac_conv2d_train(x, weight, rates, gamma, beta, fusion=fusion, activation="silu")[:1]

    for side in SIDES:
        with fastseg.backend(side):
            for function in (fixed, normed):
                assert torch.autograd.gradcheck(function, leaves, **tolerances.GRADCHECK), side
            if layout == "contiguous":
                assert torch.autograd.gradgradcheck(fixed, leaves, **tolerances.GRADCHECK), side


def test_the_three_linear_ops_differentiate_each_other() -> None:
    torch.set_num_threads(1)
    x, weight, grad = (t.requires_grad_() for t in (noise(2, 3, 5, 4), noise(2, 3, 3, 3), noise(2, 4, 5, 4)))
    for function, pair in (
        (RAW.ksac_responses, (x, weight)),
        (RAW.ksac_responses_input, (grad, weight)),
        (RAW.ksac_responses_weight, (grad, x)),
    ):
        call = lambda a, b, f=function: f(a, b, [1, 3])  # noqa: E731
        assert torch.autograd.gradcheck(call, pair, **tolerances.GRADCHECK)
        assert torch.autograd.gradgradcheck(call, pair, **tolerances.GRADCHECK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "silu"])
@pytest.mark.parametrize("concat", [False, True])
def test_the_raw_op_has_the_gradient_of_the_door(concat: bool, activation: str, dtype: torch.dtype) -> None:
    leaves = [t.to(dtype).requires_grad_() for t in (noise(2, 3, 7, 6), noise(4, 3, 3, 3), noise(2, 4), noise(2, 4))]
    x, weight, scale, shift = leaves
    fusion = "concat" if concat else "sum"
    door = ops.ksac_conv2d(x, weight, RATES, scale=scale, shift=shift, fusion=fusion, activation=activation)
    raw = RAW.ksac_conv2d(x, weight, list(RATES), scale, shift, concat, activation)
    up = torch.randn_like(door)
    for a, b in zip(torch.autograd.grad(door, leaves, up), torch.autograd.grad(raw, leaves, up), strict=True):
        assert torch.equal(a, b)


def test_the_kernel_gets_the_gradients_of_all_rates() -> None:
    x, weight = noise(1, 3, 9, 8), noise(4, 3, 3, 3).requires_grad_()
    each = [ops.ksac_conv2d(x, weight, (r,), activation="none") for r in (1, 2, 5)]
    alone = sum(torch.autograd.grad(y.sum(), weight)[0] for y in each)
    (together,) = torch.autograd.grad(ops.ksac_conv2d(x, weight, (1, 2, 5), activation="none").sum(), weight)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_statistics_are_those_of_each_rate() -> None:
    x, weight = noise(3, 4, 9, 8), noise(5, 4, 3, 3)
    _, mean, var = ops.ksac_conv2d_train(x, weight, (1, 4), torch.ones(2, 5), torch.zeros(2, 5))
    for k, r in enumerate((1, 4)):
        y = F.conv2d(x, weight, padding=r, dilation=r)
        torch.testing.assert_close(mean[k], y.mean((0, 2, 3)))
        torch.testing.assert_close(var[k], y.var((0, 2, 3), correction=0))
    low = ops.ksac_conv2d_train(x.bfloat16(), weight.bfloat16(), (1, 4), torch.ones(2, 5), torch.zeros(2, 5))
    assert [t.dtype for t in low] == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.parametrize("train", [False, True])
def test_autocast_lowers_maps_and_weights_but_no_scale(train: bool) -> None:
    x, weight, scale = noise(1, 3, 8, 9).float(), noise(5, 3, 3, 3).float().requires_grad_(train), noise(2, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        got = [ops.ksac_conv2d(given, weight, RATES, scale=scale) for given in (x, x.bfloat16())]
    want = ops.ksac_conv2d(x.bfloat16(), weight.bfloat16(), RATES, scale=scale)
    assert all(y.dtype == torch.bfloat16 and torch.equal(y, want) for y in got)
    if train:
        (grad,) = torch.autograd.grad(got[0].float().sum(), weight)
        assert grad.dtype == torch.float32 and grad.any()


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (1, 0)])
def test_vmap_is_a_stack_of_calls(mapped: tuple[int | None, int | None]) -> None:
    x = noise(3, 2, 4, 7, 6) if mapped[0] == 0 else noise(2, 3, 4, 7, 6) if mapped[0] == 1 else noise(2, 4, 7, 6)
    weight = noise(3, 5, 4, 3, 3) if mapped[1] == 0 else noise(5, 4, 3, 3)
    call = lambda x, w: ops.ksac_conv2d(x, w, RATES, fusion="concat")  # noqa: E731
    pick = lambda t, d, i: t if d is None else t.select(d, i)  # noqa: E731
    want = torch.stack([call(pick(x, mapped[0], i), pick(weight, mapped[1], i)) for i in range(3)])
    torch.testing.assert_close(torch.vmap(call, mapped)(x, weight), want, rtol=1e-12, atol=1e-12)


def counted(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def test_flops_are_those_of_the_taps_that_are_read() -> None:
    x, weight = torch.zeros(2, 3, 8, 10), torch.zeros(5, 3, 3, 3)
    # At rate 8 no row but the middle one of the taps is read, and of the outer columns two; at rate 10 the centre is.
    first, second = 8 * (10 + 2 * 2), 8 * 10
    assert counted(lambda: ops.ksac_conv2d(x, weight, (8, 10))) == 2 * (2 * 3 * 5 * first + 5 * (first + second))
    one, four = (counted(lambda r=r: ops.ksac_conv2d(x, weight, r)) for r in ((2,), (2, 4, 6, 20)))
    assert one < four < 2 * one


@pytest.mark.skipif(not _native.loaded, reason="memory is promised for the native kernels: " + _native.why_not)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("id, result", [("c2048_65", 256 * 65 * 65), ("c320_128x256", 256 * 128 * 256)])
def test_the_workspace_is_bounded(id: str, result: int, layout: str) -> None:
    prepared = "fastseg.testing.contenders:prepared"
    peak = peak_bytes(prepared, "ksac_conv2d", id, "fastseg", "forward", "float32", layout)
    assert 4 * result <= peak <= 4 * result + (64 << 20)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("grad", [False, True])
def test_maps_that_do_not_fit_the_workspace(grad: bool, layout: str) -> None:
    """Too large to be copied, rows kept as long as they are read, and bands in the gradients."""
    x = testing.with_layout(torch.randn(1, 24, 800, 640), layout).requires_grad_(grad)
    weight = torch.randn(20, 24, 3, 3, requires_grad=grad)
    rates = (70, 90)
    y = ops.ksac_conv2d(x, weight, rates, activation="none")
    want = sum(F.conv2d(x, weight, padding=r, dilation=r) for r in rates)
    torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-3)
    if grad:
        up = torch.randn_like(y)
        for a, b in zip(*(torch.autograd.grad(out, (x, weight), up) for out in (y, want)), strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize(
    "argument, value, shown",
    [
        ("x", torch.zeros(3, 8, 9), "[3, 8, 9]"),
        ("x", torch.zeros(1, 3, 8, 9, dtype=torch.int32), "torch.int32"),
        ("x", torch.zeros(1, 3, 0, 9), "[1, 3, 0, 9]"),
        ("x", None, "NoneType"),
        ("weight", torch.zeros(5, 4, 3, 3), "[5, 4, 3, 3]"),
        ("weight", torch.zeros(5, 3, 1, 1), "[5, 3, 1, 1]"),
        ("weight", torch.zeros(0, 3, 3, 3), "[0, 3, 3, 3]"),
        ("weight", WEIGHT.double(), "torch.float64"),
        ("weight", WEIGHT.to("meta"), "meta"),
        ("rates", (), "()"),
        ("rates", (0, 2), "(0, 2)"),
        ("rates", (2, -3), "(2, -3)"),
        ("rates", (2.0, 3), "(2.0, 3)"),
        ("rates", (2, 2**30), str(2**30)),
        ("rates", 6, "6"),
        ("rates", "ab", "'ab'"),
        ("scale", torch.ones(5), "[5]"),
        ("scale", torch.ones(2, 4), "[2, 4]"),
        ("shift", torch.ones(2, 5, dtype=torch.int64), "torch.int64"),
        ("fusion", "mean", "'mean'"),
        ("activation", "gelu", "'gelu'"),
    ],
)
def test_bad_arguments(argument: str, value: Any, shown: str) -> None:
    arguments = {"x": X, "weight": WEIGHT, "rates": RATES, argument: value}
    with pytest.raises(ValueError) as caught:
        ops.ksac_conv2d(**arguments)
    assert f"fastseg::ksac_conv2d: {argument} must" in str(caught.value) and shown in str(caught.value)


@pytest.mark.parametrize(
    "words, changes",
    [
        ("gamma must be a tensor, got None", {"gamma": None}),
        ("beta must be a floating tensor", {"beta": torch.zeros(5)}),
        ("x must have more than one pixel", {"x": torch.zeros(1, 3, 1, 1)}),
    ],
)
def test_bad_arguments_of_training(words: str, changes: dict[str, Any]) -> None:
    vectors = {"gamma": torch.ones(2, 5), "beta": torch.zeros(2, 5)}
    with pytest.raises(ValueError, match=words):
        ops.ksac_conv2d_train(**{"x": X, "weight": WEIGHT, "rates": RATES, **vectors, **changes})


TERMS = torch.zeros(1, 10, 8, 9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: RAW.ksac_conv2d(X[0], WEIGHT, [2], None, None, False, "relu"),
        lambda: RAW.ksac_conv2d(X, WEIGHT[:, :2], [2], None, None, False, "relu"),
        lambda: RAW.ksac_conv2d(X, WEIGHT, [], None, None, False, "relu"),
        lambda: RAW.ksac_conv2d(X, WEIGHT, [2], torch.ones(2, 5), None, False, "relu"),
        lambda: RAW.ksac_conv2d(X, WEIGHT, [2], None, None, False, "gelu"),
        lambda: RAW.ksac_responses(X, WEIGHT, [0]),
        lambda: RAW.ksac_responses(X[:, :, :0], WEIGHT, [2]),
        lambda: RAW.ksac_responses_input(TERMS[:, :9], WEIGHT, [2, 3]),
        lambda: RAW.ksac_responses_input(TERMS.bfloat16(), WEIGHT.bfloat16(), [2, 3]),
        lambda: RAW.ksac_responses_weight(TERMS[:, :9], X, [2, 3]),
        lambda: RAW.ksac_responses_weight(TERMS[:, :, :7], X, [2, 3]),
        lambda: RAW.ksac_fuse(TERMS, None, None, 3, False, "relu"),
        lambda: RAW.ksac_fuse(TERMS, torch.ones(2, 4), None, 2, False, "relu"),
        lambda: RAW.ksac_fuse_backward(TERMS, TERMS, None, None, 2, False, "relu"),
    ],
)
def test_the_raw_ops_check_too(call: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        call()


@settings(max_examples=60)
@given(st.data())
def test_random_shapes(data: st.DataObject) -> None:
    draw = data.draw
    extent = st.sampled_from([1, 2, 3, 7, 8, 13, 16, 17, 31, 33])
    shape = draw(st.integers(1, 3)), draw(extent), draw(extent), draw(extent)
    rates = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    fusion, outputs = draw(st.sampled_from(["sum", "concat"])), draw(extent)
    fused = rows.arguments(shape, outputs, rates, fusion=fusion, activation=draw(st.sampled_from(["relu", "silu"])))
    trained = rows.arguments(shape, outputs, rates, "whole", fusion=fusion)
    torch.set_num_threads(draw(st.integers(1, 2)))
    for make, grad in ((fused, ()), (trained, rows.TRAINED)):
        case = testing.Case("ksac_conv2d", "fuzz", make, grad, **rows.SUMS)
        dtype = draw(st.sampled_from(testing.FLOATS[:2]))
        with testing.use_isa(draw(st.sampled_from(testing.isas()))):
            got = testing.run(case, dtype, draw(st.sampled_from(testing.LAYOUTS)))
        testing.judge(case, dtype, got)
