"""The algorithms of atrous convolution: what runs, its bits and its error, packed weights, and what it refuses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg import _native, ops, testing
from fastseg.ops.atrous_conv_algorithms import POINTS, packed_algorithm
from fastseg.testing import tolerances

OP = "atrous_conv2d"
SIDES = ("auto", "reference")
needs_kernels = pytest.mark.skipif(not _native.loaded, reason="algorithms are the kernels': " + _native.why_not)
X, WEIGHT = torch.randn(2, 8, 9, 10), torch.randn(5, 8, 3, 3)


def error(got: Tensor, want: Tensor) -> float:
    """Largest error relative to the largest magnitude."""
    return float((got - want).abs().max() / want.abs().max())


@needs_kernels
@pytest.mark.parametrize("isa", testing.isas())
@pytest.mark.parametrize("algorithm", POINTS)
def test_what_is_asked_for_runs(algorithm: str, isa: str) -> None:
    with testing.use_isa(isa), fastseg.trace() as paths:
        got = ops.atrous_conv2d(X, WEIGHT, dilation=6, algorithm=algorithm)
    assert paths == [f"{OP}:{testing.expected_path(isa)}:{algorithm}"]
    want = F.conv2d(X.double(), WEIGHT.double(), padding=6, dilation=6)
    assert error(got, want) < tolerances.GROWN_MOST


@needs_kernels
@pytest.mark.parametrize("algorithm", POINTS)
def test_with_a_packed_weight_the_bits_are_the_same(algorithm: str) -> None:
    packed = ops.prepack_atrous_weight(WEIGHT, algorithm)
    options: dict[str, Any] = {"dilation": 6, "activation": "relu"}
    want = ops.atrous_conv2d(X, WEIGHT, algorithm=algorithm, **options)
    for choice in (algorithm, "auto"):
        with fastseg.trace() as paths:
            got = ops.atrous_conv2d(X, WEIGHT, algorithm=choice, packed=packed, **options)
        if paths[0].endswith(algorithm):
            assert torch.equal(got, want)
        else:
            assert choice == "auto" and error(got, want.double()) < tolerances.GROWN_MOST
    with torch.inference_mode():
        assert torch.equal(ops.atrous_conv2d(X, WEIGHT, algorithm=algorithm, packed=packed, **options), want)


@needs_kernels
@pytest.mark.parametrize("algorithm", POINTS)
def test_a_transformed_weight_is_rounded_once_an_entry(algorithm: str) -> None:
    """Both sides transform by the same matrices; the float64 one is the truth."""
    got = ops.prepack_atrous_weight(WEIGHT, algorithm)
    with fastseg.backend("reference"):
        want = ops.prepack_atrous_weight(WEIGHT.double(), algorithm)
    assert error(got.double(), want) < 9 * torch.finfo(torch.float32).eps


@needs_kernels
@pytest.mark.parametrize("algorithm", POINTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_what_is_not_finite_stays_where_its_taps_reach(value: float, algorithm: str) -> None:
    """Also a sum that overflows between the transforms, and no image but its own."""
    x = X.clone()
    x[1, 3, 4, 5] = value
    want = F.conv2d(x, WEIGHT * 0.1, padding=6, dilation=6)
    got = ops.atrous_conv2d(x, WEIGHT * 0.1, dilation=6, algorithm=algorithm)
    assert torch.equal(got.isfinite(), want.isfinite()) and torch.equal(got.isnan(), want.isnan())
    clean = ops.atrous_conv2d(X, WEIGHT * 0.1, dilation=6, algorithm=algorithm)
    assert torch.equal(got[0], clean[0])


@needs_kernels
@pytest.mark.parametrize("algorithm, rate", [*((a, 2) for a in POINTS if a != "toeplitz2"), ("toeplitz2", 18)])
def test_the_error_of_deep_sums_is_bounded(algorithm: str, rate: int) -> None:
    """Sums of 9 x 2048 products."""
    x, weight = torch.randn(1, 2048, 33, 33), torch.randn(16, 2048, 3, 3)
    want = F.conv2d(x.double(), weight.double(), padding=rate, dilation=rate)
    got = ops.atrous_conv2d(x, weight, dilation=rate, algorithm=algorithm)
    assert error(got, want) < tolerances.GROWN_MOST


@needs_kernels
@pytest.mark.parametrize(
    "reason, x, weight, options",
    [
        ("x must be float32", X.double(), WEIGHT.double(), {}),
        ("x must be float32", X.bfloat16(), WEIGHT.bfloat16(), {}),
        ("groups must be 1", X, torch.randn(8, 1, 3, 3), {"groups": 8}),
        ("weight must be 3x3", X, torch.randn(5, 8, 5, 3), {}),
        ("stride must be 1", X, WEIGHT, {"stride": (1, 2)}),
    ],
)
def test_a_raw_call_that_cannot_run_is_an_error(reason: str, x: Tensor, weight: Tensor, options: Any) -> None:
    steps = (options.get("stride", (1, 1)), (1, 1), (1, 1), options.get("groups", 1))
    with pytest.raises(RuntimeError, match=f"algorithm must be able to run, got winograd3: {reason}"):
        torch.ops.fastseg.atrous_conv2d(x, weight, *(None,) * 5, *steps, "none", "winograd3")


@needs_kernels
@pytest.mark.parametrize("options", [{"dilation": 4}, {"dilation": 6, "padding": 5}])
def test_pairs_are_for_maps_of_at_most_twice_the_rate(options: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match="algorithm toeplitz2 must have padding 'same' and at most twice the rate a side"
    ):
        ops.atrous_conv2d(X, WEIGHT, algorithm="toeplitz2", **options)


@pytest.mark.parametrize("algorithm", POINTS)
def test_gradients_are_those_of_the_sum_itself(algorithm: str) -> None:
    weight = WEIGHT.clone().requires_grad_()
    with pytest.raises(ValueError, match="algorithm must be auto or direct where a gradient is needed"):
        ops.atrous_conv2d(X, weight, dilation=6, algorithm=algorithm)
    with torch.no_grad(), fastseg.trace() as paths:
        ops.atrous_conv2d(X, weight, dilation=6, algorithm=algorithm)
    assert len(paths) == 1


def test_auto_is_direct_where_a_gradient_is_needed() -> None:
    x, weight = torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3, requires_grad=True)
    with fastseg.trace() as paths:
        ops.atrous_conv2d(x, weight, packed=ops.prepack_atrous_weight(weight, "winograd4"))
    assert paths[-1].split(":")[-1] in ("direct", "reference")


@needs_kernels
def test_a_module_may_ask_what_auto_would_take() -> None:
    x, weight = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
    assert packed_algorithm(x, weight, (2, 2)) in POINTS
    assert packed_algorithm(x.double(), weight.double(), (2, 2)) == "direct"
    assert packed_algorithm(x, torch.randn(256, 256, 5, 5), (2, 2)) == "direct"


@pytest.mark.parametrize("algorithm", ["winograd3", "toeplitz2"])
@pytest.mark.parametrize("isa", testing.isas())
def test_large_planes_are_transposed_by_slices(algorithm: str, isa: str) -> None:
    rate = 11 if algorithm == "winograd3" else 18
    x, weight = torch.randn(2, 2200, 33, 31), torch.randn(24, 2200, 3, 3)  # 17 MiB
    options: dict[str, Any] = {"dilation": rate, "algorithm": algorithm}
    for packed in (None, ops.prepack_atrous_weight(weight, algorithm)):
        with testing.use_isa(isa):
            found = ops.atrous_conv2d(x, weight, packed=packed, **options)
            last = ops.atrous_conv2d(x.to(memory_format=torch.channels_last), weight, packed=packed, **options)
        assert found.is_contiguous() and torch.equal(found, last)
        torch.testing.assert_close(found, F.conv2d(x, weight, padding=rate, dilation=rate), rtol=0, atol=0.05)
    x[1, 2000, 20, 20] = torch.inf
    found = ops.atrous_conv2d(x, weight, **options)
    torch.testing.assert_close(found, F.conv2d(x, weight, padding=rate, dilation=rate), rtol=0, atol=0.05,
                               equal_nan=True)  # fmt: skip


@pytest.mark.parametrize("weight, algorithm", [(WEIGHT, "direct"), (WEIGHT[..., :1], "winograd2"), (X, "winograd2"),
                                               (WEIGHT.half(), "winograd2"), (WEIGHT[:0], "winograd2")])  # fmt: skip
def test_bad_weights_to_pack(weight: Tensor, algorithm: str) -> None:
    with pytest.raises(ValueError, match=r"fastseg::prepack_atrous_weight: (weight|algorithm) must be"):
        ops.prepack_atrous_weight(weight, algorithm)


@pytest.mark.parametrize("name", ["scale", "shift", "bias"])
def test_no_tiles_where_only_a_vector_is_trained(name: str) -> None:
    x, weight = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
    with fastseg.trace() as paths:
        ops.atrous_conv2d(x, weight, dilation=2, **{name: torch.ones(256, requires_grad=True)})
    assert all("winograd" not in path and "toeplitz" not in path for path in paths)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 2},
        {"weight": torch.randn(5, 8, 5, 5)},
        {"weight": torch.randn(8, 1, 3, 3), "groups": 8},
        {"x": X.half(), "weight": WEIGHT.half()},
        {"algorithm": "toeplitz2"},
    ],
)
def test_an_explicit_algorithm_never_falls_back(changes: dict[str, Any], side: str) -> None:
    given_: dict[str, Any] = {"x": X, "weight": WEIGHT, "algorithm": "winograd2", **changes}
    with fastseg.backend(side), pytest.raises(ValueError, match=r"fastseg::atrous_conv2d: algorithm (winograd2|toepl)"):
        ops.atrous_conv2d(**given_)
    with pytest.raises(ValueError, match="fastseg::atrous_conv2d: algorithm"):
        fastseg.describe(OP, **given_)
