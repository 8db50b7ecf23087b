"""Filters and mean field against numbers that were computed by hand or by brute force."""

from typing import Any

import pytest
import torch
from torch import Tensor

import fastseg
from fastseg import _native, ops
from fastseg.reference import dense_crf_filters as reference
from fastseg.reference.dense_crf import mean_field
from fastseg.reference.dense_crf_lattice import elevated, lattice, simplices

LINE = ((0.0, 1.0, 2.0),)
# Energies of three points on a line, and the compatibility of Potts.
PROBABILITIES = torch.tensor([0.9, 0.6, 0.2], dtype=torch.float64)
POTTS = -torch.eye(2, dtype=torch.float64)[None]
# Normalization -> Q of label 0 after 1 and 5 iterations with the exact kernel, and with the lattice.
FIELDS = {
    "none": (
        ((0.954232, 0.674096, 0.147202), (0.964780, 0.732802, 0.158270)),
        ((0.948470, 0.671853, 0.156452), (0.958765, 0.725417, 0.169972)),
    ),
    "before": (
        ((0.934911, 0.637719, 0.166064), (0.938781, 0.648288, 0.164973)),
        ((0.933541, 0.640079, 0.167742), (0.937447, 0.651363, 0.167443)),
    ),
    "after": (
        ((0.935808, 0.634287, 0.168128), (0.939990, 0.644552, 0.168196)),
        ((0.934777, 0.635410, 0.170559), (0.939115, 0.646276, 0.171869)),
    ),
    "symmetric": (
        ((0.935334, 0.635902, 0.167032), (0.939352, 0.646310, 0.166481)),
        ((0.934116, 0.637584, 0.169040), (0.938225, 0.648649, 0.169480)),
    ),
}
# Normalization -> the sum of Q of label 0 after 2 iterations, its gradients to U of label 0, and to Potts' weight.
GRADIENTS = {
    "none": (1.81484166, (-0.071666, -0.429778, -0.237152), 0.12152528),
    "symmetric": (1.74806946, (-0.077636, -0.330247, -0.196986), 0.05004300),
    "after": (1.74839100, (-0.075636, -0.336085, -0.195306), 0.05030971),
}


def kernel(*features: tuple[float, ...]) -> Tensor:
    """The matrix of the lattice's kernel [P, P]."""
    f = torch.tensor(features, dtype=torch.float64)
    return ops.permutohedral_filter(torch.eye(f.shape[1], dtype=torch.float64)[None], f[None])[0].T


def unary() -> Tensor:
    return -torch.stack([PROBABILITIES, 1 - PROBABILITIES]).log()


def test_kernel_of_three_points_on_a_line() -> None:
    right = [[0.83333, 0.58932, 0.11510], [0.58932, 0.91282, 0.57151], [0.11510, 0.57151, 0.84160]]
    torch.testing.assert_close(kernel(*LINE), torch.tensor(right, dtype=torch.float64), atol=5e-6, rtol=0)


def test_kernel_of_three_points_in_a_plane() -> None:
    right = [[0.9, 0.45359, 0.0], [0.53812, 0.685812, 0.0], [0.1, 0.08453, 0.9]]
    got = kernel((0.0, 1.0, 0.0), (0.0, 0.0, 2.0))
    torch.testing.assert_close(got, torch.tensor(right, dtype=torch.float64), atol=5e-6, rtol=0)


def test_steps_of_a_point_in_five_dimensions() -> None:
    point = (0.3, -0.7, 1.1, 0.4, -0.2)
    features = torch.tensor(point, dtype=torch.float64)[:, None]
    y = (1.454158, -0.624303, 4.614928, -4.407612, -1.931598, 0.894427)
    torch.testing.assert_close(elevated(features)[:, 0], torch.tensor(y).double(), atol=1e-6, rtol=0)
    keys, weights = simplices(elevated(features))
    assert keys[0, 0].tolist() == [0, 0, 6, -6, 0, 0]
    right = (0.412669, 0.091088, 0.126795, 0.253122, 0.093288, 0.023038)
    torch.testing.assert_close(weights[0], torch.tensor(right).double(), atol=1e-6, rtol=0)
    assert kernel(*((x,) for x in point)).item() == pytest.approx(0.418914, abs=1e-6)


def test_a_line_has_four_vertices_in_the_order_of_its_points() -> None:
    on = lattice(torch.tensor(LINE, dtype=torch.float64))
    assert on.vertices[0, 0] == 0 and on.neighbours.shape == (2, 2, 4)
    # Each of the two axes runs along the line: three of the four vertices have one behind, and three before them.
    assert ((on.neighbours < 4).sum(2) == 3).all()


@pytest.mark.parametrize("mode", FIELDS)
def test_mean_field(mode: str) -> None:
    u, f = unary(), torch.tensor(LINE, dtype=torch.float64)
    native = lambda v: ops.permutohedral_filter(v[None], f[None], normalization=mode)[0]  # noqa: E731
    exact = reference.normalized(reference.exact(f), mode, u)
    for apply, right in zip((exact, native), FIELDS[mode], strict=True):
        for iterations, q in zip((1, 5), right, strict=True):
            got = mean_field(u, [apply], POTTS, iterations).softmax(0)[0]
            torch.testing.assert_close(got, torch.tensor(q, dtype=torch.float64), atol=2e-6, rtol=0)


@pytest.mark.parametrize("mode", GRADIENTS)
def test_gradient_of_mean_field(mode: str) -> None:
    u, weight = unary().requires_grad_(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    apply = reference.normalized(reference.exact(torch.tensor(LINE, dtype=torch.float64)), mode, u)
    total = mean_field(u, [apply], weight * POTTS, 2).softmax(0)[0].sum()
    to_u, to_weight = torch.autograd.grad(total, (u, weight))
    loss, right, right_weight = GRADIENTS[mode]
    assert total.item() == pytest.approx(loss, abs=1e-8) and to_weight.item() == pytest.approx(right_weight, abs=1e-8)
    torch.testing.assert_close(to_u, torch.tensor([right, [-x for x in right]]).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", FIELDS)
@pytest.mark.parametrize("side", ["auto", "reference"])
def test_the_gradient_is_the_transposed_kernel(mode: str, side: str) -> None:
    g = torch.Generator().manual_seed(3)
    f = torch.randn(1, 3, 40, generator=g, dtype=torch.float64)
    with fastseg.backend(side):
        apply = lambda v: ops.permutohedral_filter(v, f, normalization=mode)  # noqa: E731
        matrix = apply(torch.eye(40, dtype=torch.float64)[None])[0].T
        v = torch.randn(1, 2, 40, generator=g, dtype=torch.float64, requires_grad=True)
        u = torch.randn(1, 2, 40, generator=g, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(apply(v), v, u, create_graph=True)
        torch.testing.assert_close(grad, u @ matrix, atol=1e-12, rtol=0)
        (again,) = torch.autograd.grad(grad, u, v)  # the transpose of the transpose
        torch.testing.assert_close(again, v @ matrix.T, atol=1e-12, rtol=0)


def test_results_do_not_depend_on_threads_or_on_other_samples() -> None:
    g = torch.Generator().manual_seed(4)
    v, f = torch.randn(2, 3, 20000, generator=g), torch.randn(2, 5, 20000, generator=g)
    torch.set_num_threads(1)
    alone = [ops.permutohedral_filter(v[i : i + 1], f[i : i + 1], normalization="symmetric") for i in range(2)]
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        assert torch.equal(ops.permutohedral_filter(v, f, normalization="symmetric"), torch.cat(alone))


def test_constant_values_stay_constant_after_normalizing_after() -> None:
    f = torch.randn(1, 5, 300, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    got = ops.permutohedral_filter(torch.full((1, 2, 300), 0.25, dtype=torch.float64), f, normalization="after")
    torch.testing.assert_close(got, torch.full_like(got, 0.25), atol=1e-12, rtol=0)


@pytest.mark.parametrize("side", ["auto", "reference"])
@pytest.mark.parametrize(("bad", "rule"), [(float("nan"), "be finite"), (float("inf"), "be finite"), (1e9, "span")])
def test_features_that_no_key_holds(side: str, bad: float, rule: str) -> None:
    f = torch.arange(45.0).view(1, 5, 9).sin()
    f[0, :, 4] = bad
    with (
        fastseg.backend(side),
        pytest.raises(RuntimeError, match=f"permutohedral_filter: features must {rule}"),
    ):
        ops.permutohedral_filter(torch.ones(1, 2, 9), f)


@pytest.mark.parametrize("side", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [1e15, -1e16, 1e17, 1e18, 1e20, 3.4e38])
def test_features_beyond_what_doubles_tell_apart(offset: float, dtype: torch.dtype, side: str) -> None:
    f = torch.rand(1, 5, 600, dtype=dtype, generator=torch.Generator().manual_seed(0)) + offset
    with fastseg.backend(side), pytest.raises(RuntimeError, match="features must be less than 2\\^40 cells"):
        ops.permutohedral_filter(torch.ones(1, 2, 600, dtype=dtype), f)


def test_features_far_from_zero_are_those_of_the_reference() -> None:
    f = torch.rand(1, 3, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5 + 1e9
    values = torch.rand(1, 2, 200, dtype=torch.float64)
    with fastseg.backend("reference"):
        want = ops.permutohedral_filter(values, f)
    torch.testing.assert_close(ops.permutohedral_filter(values, f), want)


@pytest.mark.parametrize(
    ("values", "features", "options", "argument"),
    [
        (torch.zeros(2, 9), torch.zeros(1, 2, 9), {}, "values"),
        (torch.zeros(1, 2, 9, dtype=torch.bfloat16), torch.zeros(1, 2, 9), {}, "values"),
        (torch.zeros(1, 2, 9), torch.zeros(1, 2, 8), {}, "features"),
        (torch.zeros(1, 2, 9), torch.zeros(1, 9, 9), {}, "features"),
        (torch.zeros(1, 2, 9), torch.zeros(1, 0, 9), {}, "features"),
        (torch.zeros(1, 2, 9), torch.zeros(1, 2, 9, dtype=torch.float64), {}, "features"),
        (torch.zeros(1, 2, 9), torch.zeros(1, 2, 9, requires_grad=True), {}, "features"),
        (torch.zeros(1, 2, 9), torch.zeros(1, 2, 9), {"normalization": "both"}, "normalization"),
    ],
)
def test_wrong_arguments_are_named(values: Tensor, features: Tensor, options: dict[str, str], argument: str) -> None:
    with pytest.raises(ValueError, match=f"^fastseg::permutohedral_filter: {argument} must "):
        ops.permutohedral_filter(values, features, **options)


@pytest.mark.parametrize(
    ("values", "sigma", "options", "argument"),
    [
        (torch.zeros(2, 4, 5), 1.0, {}, "values"),
        (torch.zeros(1, 2, 4, 5, dtype=torch.float16), 1.0, {}, "values"),
        (torch.zeros(1, 2, 4, 5), 0.0, {}, "sigma"),
        (torch.zeros(1, 2, 4, 5), -1.0, {}, "sigma"),
        (torch.zeros(1, 2, 4, 5), float("nan"), {}, "sigma"),
        (torch.zeros(1, 2, 4, 5), float("inf"), {}, "sigma"),
        (torch.zeros(1, 2, 4, 5), (1.0, 2.0, 3.0), {}, "sigma"),
        (torch.zeros(1, 2, 4, 5), "wide", {}, "sigma"),
        (torch.zeros(1, 2, 4, 5), 1.0, {"normalization": "both"}, "normalization"),
        (torch.zeros(1, 2, 4, 5), 1.0, {"method": "fft"}, "method"),
    ],
)
def test_wrong_arguments_of_the_gaussian(values: Tensor, sigma: Any, options: dict[str, str], argument: str) -> None:
    with pytest.raises(ValueError, match=f"^fastseg::gaussian_filter_2d: {argument} must "):
        ops.gaussian_filter_2d(values, sigma, **options)


def test_raw_calls_are_checked() -> None:
    raw, values = torch.ops.fastseg, torch.zeros(1, 2, 4, 5)
    if not _native.loaded:
        pytest.skip("the checks are those of the kernels: " + _native.why_not)
    for call in (
        lambda: raw.gaussian_filter_2d(values, [1.0, 1.0], "both"),
        lambda: raw.permutohedral_filter(values.flatten(2), values.flatten(2), "both", False),
    ):
        with pytest.raises(RuntimeError, match="normalization must be none, before, after or symmetric, got both"):
            call()
    with pytest.raises(RuntimeError, match="gaussian_filter_2d: sigma must be positive, got 0"):
        raw.gaussian_filter_2d(values, [1.0, 0.0], "none")


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_the_gaussian_keeps_the_memory_format(method: str) -> None:
    x = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    last = x.contiguous(memory_format=torch.channels_last)
    got = ops.gaussian_filter_2d(last, 1.5, method=method)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, ops.gaussian_filter_2d(x, 1.5, method=method), atol=1e-14, rtol=0)


def test_two_methods_agree_on_what_is_smooth() -> None:
    """The lattice is an approximation: of a smooth map it is within a percent of the range, edges included."""
    at = torch.linspace(0, 3, 48, dtype=torch.float64)
    x = (at[:, None].sin() * at.cos())[None, None]
    exact, lattice_ = (
        ops.gaussian_filter_2d(x, 3.0, normalization="after", method=method) for method in ("exact", "lattice")
    )
    assert 0 < (exact - lattice_).abs().max() < 0.02
