"""What is special about GCN's kernel: which algorithm runs, where it may not, gradients, modules."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fastseg
from fastseg import _native, nn, ops, testing
from fastseg.testing import tolerances
from fastseg.testing.cases.global_conv import BIASES, convolved
from fastseg.testing.rivals.global_conv import global_conv2d as plain

native = pytest.mark.skipif(not _native.loaded, reason="asks which kernel ran: " + _native.why_not)
CHANNELS, TAPS = 6, 9


def arguments(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, layout: str = "contiguous"
) -> tuple[Tensor, ...]:
    args, kwargs = convolved(shape, CHANNELS, TAPS)(0, dtype, "cpu", layout)
    return (*args, *kwargs.values())


def algorithms(*args: Tensor) -> list[str]:
    with fastseg.trace() as paths:
        out = ops.global_conv2d(*args)
        if out.requires_grad:
            torch.autograd.grad(out.sum(), [a for a in args if a.requires_grad])
    return [path.split(":")[-1] for path in paths]


@native
@pytest.mark.parametrize(
    "shape, algorithm",
    [((1, 16, 20, 30), "spectral"), ((1, 3, 20, 30), "direct"), ((8, 16, 1, 60), "mixed")],
    ids=["deep", "shallow", "flat"],
)
def test_algorithm(shape: tuple[int, int, int, int], algorithm: str) -> None:
    args = tuple(a.requires_grad_() for a in arguments(shape))
    assert algorithms(*args) == [algorithm, "direct" if algorithm == "mixed" else algorithm]


@native
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("argument", [0, 1, 2])
def test_what_is_not_finite_reaches_no_further_than_its_taps(argument: int, value: float) -> None:
    """By frequencies it would fill its windows: such maps are computed again, by taps."""
    args = list(arguments((1, 16, 40, 50)))
    args[argument].view(-1)[args[argument].numel() // 2 + 3 :][:2] = value
    want = plain(*args)
    assert algorithms(*args) == ["direct"]
    got = ops.global_conv2d(*args)
    assert want.isfinite().all() == (argument == 0 and value == 3e38)  # a window may overflow where no result does
    assert torch.equal(want.isnan(), got.isnan())
    assert torch.equal(want.isinf(), got.isinf())
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-3, atol=1e-4)


@native
def test_a_gradient_that_is_not_finite_reaches_no_further_than_its_taps() -> None:
    args = [a.requires_grad_() for a in arguments((1, 16, 40, 50))]
    upstream = torch.randn(1, CHANNELS, 40, 50)
    upstream[0, 2, 3, 4] = float("inf")
    with fastseg.trace() as paths:
        got = torch.autograd.grad(ops.global_conv2d(*args), args, upstream)
    assert paths[-1].endswith(":direct")
    for want, have in zip(torch.autograd.grad(plain(*args), args, upstream), got, strict=True):
        assert torch.equal(want.isfinite(), have.isfinite())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frequencies_are_as_exact_as_taps(dtype: torch.dtype) -> None:
    """A window's error is relative to its own largest value: a spectrum loses no digits to the number of channels."""
    args = arguments((1, 512, 64, 24), torch.float64)
    truth = plain(*args)
    # In float64 the truth has the same digits, so that the two are only bound to each other.
    allowed = 4 * torch.finfo(dtype).eps * (1 if dtype == torch.float32 else 16)
    got = ops.global_conv2d(*(a.to(dtype) for a in args)).double()
    rounded = plain(*(a.to(dtype).double() for a in args))
    assert (got - rounded).abs().max() <= allowed * truth.abs().max()


def test_a_middle_bias_ends_at_the_border() -> None:
    """The second stage pads with zeros, not with the bias of the first: no bias of the result stands for it."""
    args = list(arguments((1, 20, 24, 30)))
    args[0] = torch.zeros_like(args[0])
    got = ops.global_conv2d(*args)
    torch.testing.assert_close(got, plain(*args))
    reach = TAPS // 2
    inner = got[..., reach:-reach, reach:-reach]
    torch.testing.assert_close(inner, inner[..., :1, :1].expand_as(inner))
    assert (got[..., 0, 0] - inner[..., 0, 0]).abs().min() > 1e-3


def test_it_is_a_dense_kernel_without_middle_biases() -> None:
    """W[o, i, y, x] = sum over m of row2[o, m, x] column[m, i, y], and the other branch."""
    x, column, row, row2, column2, *_ = arguments((1, 20, 24, 30), torch.float64)
    dense = torch.einsum("omx,miy->oiyx", row2[:, :, 0], column[..., 0])
    dense += torch.einsum("omy,mix->oiyx", column2[..., 0], row[:, :, 0])
    torch.testing.assert_close(ops.global_conv2d(x, column, row, row2, column2), F.conv2d(x, dense, padding=TAPS // 2))


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("channels", [2, 16])
@pytest.mark.parametrize("side", ["auto", "reference"])
def test_gradcheck(side: str, channels: int, layout: str) -> None:
    taps = 5
    args, kwargs = convolved((1, channels, 7, 12), 2, taps)(0, torch.float64, "cpu", layout)
    leaves = tuple(a.requires_grad_() for a in (*args, *kwargs.values()))
    with fastseg.backend(side):
        assert torch.autograd.gradcheck(ops.global_conv2d, leaves, fast_mode=True, **tolerances.GRADCHECK)


@native
def test_gradcheck_of_frequencies() -> None:
    args = tuple(a.requires_grad_() for a in arguments((2, 16, 20, 24), torch.float64))
    assert algorithms(*args) == ["spectral", "spectral"]
    assert torch.autograd.gradcheck(ops.global_conv2d, args, fast_mode=True, **tolerances.GRADCHECK)


@pytest.mark.parametrize("side", ["auto", "reference"])
def test_a_second_derivative_says_that_there_is_none(side: str) -> None:
    args = [a.requires_grad_() for a in arguments((1, 16, 12, 12))]
    with fastseg.backend(side):
        (grad,) = torch.autograd.grad(ops.global_conv2d(*args).square().sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="fastseg::global_conv2d_backward is not differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("layout", testing.LAYOUTS)
def test_maps_keep_the_memory_format(layout: str) -> None:
    args = [a.requires_grad_() for a in arguments((2, 16, 12, 14), layout=layout)]
    out = ops.global_conv2d(*args)
    testing.assert_memory_format(out, args[0], "global_conv2d")
    testing.assert_memory_format(torch.autograd.grad(out.sum(), args[0])[0], args[0], "its gradient")


def test_autocast_lowers_maps_and_weights_and_no_biases() -> None:
    args = [a.requires_grad_() for a in arguments((1, 16, 12, 14))]
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.global_conv2d(*args)
    gradients = torch.autograd.grad(out.float().sum(), args)
    want = ops.global_conv2d(*(a.bfloat16() if a.dim() > 1 else a for a in args))
    assert out.dtype == torch.bfloat16 and torch.equal(out, want)
    assert {g.dtype for g in gradients} == {torch.float32}


def test_vmap_folds_the_maps_into_the_batch() -> None:
    x, *rest = arguments((6, 16, 12, 14))
    got = torch.vmap(lambda one: ops.global_conv2d(one, *rest))(x.unflatten(0, (3, 2)))
    assert torch.equal(got.flatten(0, 1), ops.global_conv2d(x, *rest))


def test_flops_are_those_of_the_definition() -> None:
    args = [a.requires_grad_() for a in arguments((2, 16, 12, 14))]
    counts = []
    for function in (ops.global_conv2d, plain):
        with FlopCounterMode(display=False) as counter:
            function(*args).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "argument, value, words",
    [
        ("x", torch.zeros(16, 12, 14), "x must be a floating tensor [N, C, H, W], got torch.float32 [16, 12, 14]"),
        ("x", None, "x must be a floating tensor [N, C, H, W], got NoneType"),
        ("column_weight", torch.zeros(6, 16, 9, 2), "column_weight must be torch.float32 of anyx16xanyx1"),
        ("column_weight", torch.zeros(6, 15, 9, 1), "column_weight must be torch.float32 of anyx16xanyx1"),
        ("column_weight", torch.zeros(6, 16, 8, 1), "column_weight must have an odd number of taps"),
        ("column_weight", torch.zeros(6, 16, 9, 1).double(), "column_weight must be torch.float32"),
        ("row_weight", torch.zeros(6, 16, 9, 1), "row_weight must be torch.float32 of 6x16x1x9"),
        ("row_weight2", torch.zeros(6, 6, 1, 7), "row_weight2 must be torch.float32 of 6x6x1x9"),
        ("column_weight2", torch.zeros(5, 6, 9, 1), "column_weight2 must be torch.float32 of 6x6x9x1"),
        ("column_bias", torch.zeros(5), "column_bias must be a floating tensor [6], got torch.float32 [5]"),
        ("row_bias2", torch.zeros(6, dtype=torch.int64), "row_bias2 must be a floating tensor [6]"),
        ("row_bias", torch.zeros(6, device="meta"), "row_bias must be on cpu as the rest, got meta"),
    ],
)
def test_bad_arguments(argument: str, value: Any, words: str) -> None:
    names = ("x", "column_weight", "row_weight", "row_weight2", "column_weight2", *BIASES)
    given = {**dict(zip(names, arguments((1, 16, 12, 14)), strict=True)), argument: value}
    with pytest.raises(ValueError) as caught:
        ops.global_conv2d(**given)
    assert str(caught.value).startswith("fastseg::global_conv2d: " + words)


@pytest.mark.parametrize("at", range(9))
def test_the_raw_ops_check_too(at: int) -> None:
    args: list[Any] = list(arguments((1, 16, 12, 14)))
    upstream = torch.zeros(1, CHANNELS, 12, 14)
    args[at] = args[at][:-1] if args[at].dim() == 1 else args[at][..., :0]
    if at:  # of x without columns nothing is wrong
        with pytest.raises(RuntimeError, match=r"fastseg::global_conv2d: \w+ must "):
            torch.ops.fastseg.global_conv2d(*args)
    if at < 7:
        with pytest.raises(RuntimeError, match=r"fastseg::global_conv2d_backward: \w+ must "):
            torch.ops.fastseg.global_conv2d_backward(upstream, *args[:7], True)


@pytest.mark.parametrize(
    "taps, bias, parameters",
    [(7, False, 608_286), (15, False, 1_303_470), (7, True, 608_370), (15, True, 1_303_554)],
)
def test_parameters_of_the_block(taps: int, bias: bool, parameters: int) -> None:
    with torch.device("meta"):
        block = nn.GlobalConv2d(2048, 21, taps, bias=bias)
    assert sum(p.numel() for p in block.parameters()) == parameters


def test_parameters_of_the_heads() -> None:
    """Four blocks on res2 to res5 and nine refinements, with biases."""
    with torch.device("meta"):
        for taps, parameters in ((7, 1_225_812), (15, 2_544_276)):
            blocks = [nn.GlobalConv2d(width, 21, taps) for width in (256, 512, 1024, 2048)]
            head = torch.nn.ModuleList([*blocks, *(nn.BoundaryRefinement(21) for _ in range(9))])
            assert sum(p.numel() for p in head.parameters()) == parameters


def test_modules_are_their_equations() -> None:
    block, refine, x = nn.GlobalConv2d(20, 5, 7), nn.BoundaryRefinement(5), torch.randn(2, 20, 12, 14)
    scores = block(x)
    torch.testing.assert_close(scores, block.row2(block.column(x)) + block.column2(block.row(x)))
    torch.testing.assert_close(refine(scores), scores + refine.conv2(F.relu(refine.conv1(scores))))
    with pytest.raises(ValueError, match="kernel_size must be odd, got 8"):
        nn.GlobalConv2d(20, 5, 8)
