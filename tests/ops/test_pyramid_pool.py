"""Pyramid pooling: its truth by another road, ties and NaN, what is refused, and the module."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

import fastseg
from fastseg import _native, nn, ops, testing
from fastseg.testing import tolerances
from fastseg.testing.cases import pyramid_pool as cases

SIDES = ("auto", "reference")
NAN = float("nan")
PLACES: list[tuple[dict[tuple[int, int], float], tuple[int, int]]] = [
    ({}, (0, 0)),
    ({(2, 3): 1.0, (1, 5): 1.0, (4, 0): 1.0}, (1, 5)),
    ({(3, 2): NAN, (1, 4): NAN, (0, 0): 9.0, (3, 1): NAN}, (3, 2)),
    ({(0, 1): NAN, (4, 5): float("inf")}, (0, 1)),
]


def filled(value: float, places: dict[tuple[int, int], float], width: int) -> Tensor:
    x = torch.full((2, 21, 5, width), value)
    for place, at in places.items():
        x[(..., *place)] = at
    return x


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("width", [7, 40])
@pytest.mark.parametrize("value", [0.0, -float("inf")])
@pytest.mark.parametrize("places, wanted", PLACES)
def test_the_gradient_goes_where_that_of_torch_goes(
    places: dict[tuple[int, int], float], wanted: tuple[int, int], value: float, width: int, layout: str, side: str
) -> None:
    """The first of equal values in the order of rows, also of columns that different lanes hold; the last NaN."""
    x = testing.with_layout(filled(value, places, width), layout).requires_grad_()
    with fastseg.backend(side):
        ours = ops.pyramid_pool(x, (1, 2, 3))
    theirs = [F.adaptive_max_pool2d(x, n) for n in (1, 2, 3)]
    for isa in testing.isas():
        with testing.use_isa(isa):
            (got,) = torch.autograd.grad(ours, x, [torch.ones_like(t) for t in ours], retain_graph=True)
    (want,) = torch.autograd.grad(theirs, x, [torch.ones_like(t) for t in theirs])
    assert torch.equal(got, want)
    (whole,) = torch.autograd.grad(ops.pyramid_pool(x, (1,)), x, torch.ones(2, 21, 1, 1))
    assert whole[(..., *wanted)].eq(1).all() and whole.sum() == 2 * 21


@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("mode", cases.MODES)
def test_all_layouts_give_the_same_bits(mode: str, isa: str) -> None:
    """Lanes are columns, gathered planes or channels; the order of the sums is one."""
    for shape in ((2, 21, 13, 40), (2, 21, 40, 13)):
        x = torch.randn(shape)
        with testing.use_isa(isa):
            want, *rest = (
                ops.pyramid_pool(testing.with_layout(x, layout), (1, 3, 5), mode) for layout in testing.LAYOUTS
            )
        for got in rest:
            assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("size", [1, 2, 6, 13, 50])
def test_bins_are_where_the_definition_puts_them(size: int, n: int) -> None:
    x = torch.randn(1, 2, size, 17, dtype=torch.float64)
    (got,) = ops.pyramid_pool(x, (n,), "mean")
    # In integers: floor(i * size / n) and the ceiling of the next edge.
    runs = [(i * size // n, -(-(i + 1) * size // n)) for i in range(n)]
    for i, (a, b) in enumerate(runs):
        for j in range(n):
            part = x[..., a:b, j * 17 // n : -(-(j + 1) * 17 // n)]
            want = part.mean((2, 3))
            assert (got[..., i, j] - want).abs().max() <= tolerances.floor(torch.float64, 17) * part.abs().max()


def test_where_levels_are_nested_the_coarse_one_is_the_maximum_of_the_fine_one() -> None:
    one, two, four = ops.pyramid_pool(torch.randn(2, 5, 16, 24))
    assert torch.equal(two, F.max_pool2d(four, 2)) and torch.equal(one, F.max_pool2d(two, 2))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("mode", cases.MODES)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 2, 2, 3), (1, 2, 4, 17), (1, 1, 1, 1)])
def test_gradcheck(shape: tuple[int, ...], mode: str, layout: str, side: str) -> None:
    x = testing.with_layout(torch.randn(shape, dtype=torch.float64), layout).requires_grad_()
    with fastseg.backend(side), fastseg.trace() as paths:
        assert torch.autograd.gradcheck(lambda x: ops.pyramid_pool(x, (1, 2, 3), mode), (x,), **tolerances.GRADCHECK)
    expected = testing.expected_path(testing.best_isa()) if side == "auto" else "reference"
    assert {path.split(":")[1] for path in paths} == {expected}


def test_a_second_derivative_says_that_there_is_none() -> None:
    x = torch.randn(1, 3, 4, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(ops.pyramid_pool(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="fastseg::pyramid_pool_backward is not differentiable"):
        grad.sum().backward()


def test_a_level_that_is_changed_in_place_is_an_error_or_changes_no_other() -> None:
    x = torch.randn(1, 3, 9, 8)
    want = ops.pyramid_pool(x)
    got = ops.pyramid_pool(x)
    got[1].zero_()
    assert torch.equal(got[0], want[0]) and torch.equal(got[2], want[2])
    with pytest.raises(RuntimeError, match="modified inplace"):
        ops.pyramid_pool(x.requires_grad_())[1].relu_()


def test_levels_are_views_of_one_vector_and_not_of_the_input() -> None:
    x = torch.randn(2, 3, 1, 1)
    levels = ops.pyramid_pool(x)
    pointers = {level.untyped_storage().data_ptr() for level in levels}
    assert len(pointers) == 1 and x.untyped_storage().data_ptr() not in pointers


@pytest.mark.parametrize("mode", cases.MODES)
@pytest.mark.parametrize("dim", [0, 2])
def test_vmap_is_a_stack_of_calls(dim: int, mode: str) -> None:
    x = torch.randn(2, 3, 4, 5, 6).movedim(0, dim).requires_grad_()
    each = [ops.pyramid_pool(one, mode=mode) for one in x.unbind(dim)]
    want = [torch.stack(levels) for levels in zip(*each, strict=True)]
    got = torch.vmap(lambda one: ops.pyramid_pool(one, mode=mode), in_dims=dim)(x)
    assert all(map(torch.equal, got, want))
    sums = (sum(level.square().sum() for level in levels) for levels in (got, want))
    assert torch.equal(*(torch.autograd.grad(s, x)[0] for s in sums))


def test_flops_are_one_for_each_value_that_is_read() -> None:
    with FlopCounterMode(display=False) as counter:
        ops.pyramid_pool(torch.randn(2, 3, 8, 9))
    assert counter.get_total_flops() == 2 * 3 * 8 * 9


@pytest.mark.parametrize("layout", testing.LAYOUTS)
@pytest.mark.parametrize("mode", cases.MODES)
def test_the_gradient_keeps_the_memory_format(mode: str, layout: str) -> None:
    x = testing.with_layout(torch.randn(2, 3, 4, 5), layout).requires_grad_()
    for isa in testing.isas():
        with testing.use_isa(isa):
            (grad,) = torch.autograd.grad(ops.pyramid_pool(x, mode=mode)[2].sum(), x)
            testing.assert_memory_format(grad, x, mode)


def test_a_third_size_does_not_recompile() -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    function = torch.compile(ops.pyramid_pool, backend=counter, fullgraph=True)
    for n, h, w in ((2, 5, 7), (3, 6, 9), (4, 8, 10), (5, 11, 12)):
        x = torch.randn(n, 3, h, w)
        assert all(map(torch.equal, function(x), ops.pyramid_pool(x)))
    assert counter.frame_count <= 2


@given(
    st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 7, 16, 17, 33, 150]), st.integers(1, 40), st.integers(1, 70)),
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.sampled_from(cases.MODES),
    st.sampled_from(["smooth", "noise", "ties", "constant"]),
    # Half precision is left to the table: of a handful of values PyTorch's own error is luck.
    st.sampled_from(testing.FLOATS[:2]),
    st.sampled_from(testing.LAYOUTS),
    st.sampled_from(testing.isas()),
)
def test_random_shapes(
    shape: tuple[int, int, int, int],
    bins: list[int],
    mode: str,
    kind: str,
    dtype: torch.dtype,
    layout: str,
    isa: str,
) -> None:
    case = cases.row("fuzz", mode, shape, tuple(bins), kind)
    torch.set_num_threads(2)
    with testing.use_isa(isa):
        got = testing.run(case, dtype, layout)
    torch.set_num_threads(1)
    testing.judge(case, dtype, got)
    testing.assert_paths(got, testing.expected_path(isa))


X = torch.zeros(1, 3, 4, 5)


@pytest.mark.parametrize(
    "words, changes",
    [
        (["x must be a floating tensor", "[3, 4, 5]"], {"x": X[0]}),
        (["x must be a floating tensor", "torch.int32"], {"x": X.int()}),
        (["x must be a floating tensor", "list"], {"x": [[1.0]]}),
        (["x must have from 1", "[1, 3, 0, 5]"], {"x": X[:, :, :0]}),
        (["x must have from 1", "[0, 3, 4, 0]"], {"x": X[:0, ..., :0]}),
        (["x must have from 1", "65536"], {"x": X[..., :1, :1].expand(1, 3, 65536, 65536)}),
        (["bins must", "()"], {"bins": ()}),
        (["bins must", "3"], {"bins": 3}),
        (["bins must", "(1, 0)"], {"bins": (1, 0)}),
        (["bins must", "-2"], {"bins": [1, -2]}),
        (["bins must", "2.0"], {"bins": (1, 2.0)}),
        (["bins must", "32768"], {"bins": (32768,)}),
        (["bins must", "'12'"], {"bins": "12"}),
        (["bins must", "None"], {"bins": None}),
        (["mode must be one of", "'avg'"], {"mode": "avg"}),
        (["mode must be one of", "None"], {"mode": None}),
    ],
)
def test_bad_arguments(words: list[str], changes: dict[str, Any]) -> None:
    for side in SIDES:
        with fastseg.backend(side), pytest.raises(ValueError, match=r"^fastseg::pyramid_pool: ") as caught:
            ops.pyramid_pool(**{"x": X, **changes})
        for word in words:
            assert word in str(caught.value)


def test_bins_may_be_any_whole_numbers() -> None:
    want = ops.pyramid_pool(X, (1, 2))
    for bins in ([1, 2], (np.int64(1), np.int32(2)), range(1, 3)):
        assert all(map(torch.equal, ops.pyramid_pool(X, bins), want))


RAW = {
    "rank": lambda raw: raw.pyramid_pool(X[0], [1], True),
    "dtype": lambda raw: raw.pyramid_pool(X.int(), [1], True),
    "no levels": lambda raw: raw.pyramid_pool(X, [], True),
    "no bins": lambda raw: raw.pyramid_pool(X, [0], True),
    "no pixels": lambda raw: raw.pyramid_pool(X[:, :, :0], [1], False),
    "levels": lambda raw: raw.pyramid_pool_backward(X[..., 0, 0], X[..., 0, 0].int(), [2], 4, 5, True, False),
    "positions": lambda raw: raw.pyramid_pool_backward(X[..., 0, 0], X[:, :2, 0, 0].int(), [1], 4, 5, True, False),
    "types": lambda raw: raw.pyramid_pool_backward(X[..., 0, 0], X[..., 0, 0].long(), [1], 4, 5, True, False),
}


@pytest.mark.skipif(not _native.loaded, reason="the checks are those of the kernels: " + _native.why_not)
@pytest.mark.parametrize("call", RAW.values(), ids=RAW)
def test_the_raw_ops_check_too(call: Any) -> None:
    with pytest.raises(RuntimeError, match=r"fastseg::pyramid_pool\w*: \w+ must "):
        call(torch.ops.fastseg)


@pytest.mark.skipif(not _native.loaded, reason="the words are those of the kernels: " + _native.why_not)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [-1, 20000, 2**31 - 1])
def test_a_position_outside_of_the_map_is_named(bad: int, dtype: torch.dtype, channels_last: bool) -> None:
    grad, positions = torch.ones(2, 21 * 3, dtype=dtype), torch.zeros(2, 21 * 3, dtype=torch.int32)
    positions[1, 20] = positions[1, 62] = bad
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match=rf"positions must be in \[0, 20000\), got {bad} at \[1, 20\]"):
        torch.ops.fastseg.pyramid_pool_backward(grad, positions, [1, 2, 4], 100, 200, True, channels_last)


@pytest.mark.parametrize("mode", cases.MODES)
def test_the_vector_of_the_module_is_ordered_as_documented(mode: str) -> None:
    x = torch.randn(2, 5, 13, 11)
    bins = (6, 3, 2, 1)
    y = nn.SpatialPyramidPool(bins, mode)(x)
    assert y.shape == (2, 5 * 50)
    pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d
    offset = 0
    for n in bins:
        want = pool(x, n)
        for c, i, j in np.ndindex(5, n, n):
            assert torch.allclose(y[:, 5 * offset + c * n * n + i * n + j], want[:, c, i, j], rtol=1e-5, atol=1e-6)
        offset += n * n
    assert nn.SpatialPyramidPool()(torch.randn(1, 256, 13, 13)).shape == (1, 21 * 256)


def test_a_classifier_behind_the_module_trains_on_maps_of_any_size() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), nn.SpatialPyramidPool(), torch.nn.Linear(21 * 8, 2))
    assert not list(net[1].parameters())
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    target = torch.arange(16) % 2
    losses = []
    for step in range(30):
        x = torch.rand(16, 1, 12 + step % 3, 15)
        x[target == 1, :, 2:6, 8:12] += 1
        losses.append(F.cross_entropy(net(x), target))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]
