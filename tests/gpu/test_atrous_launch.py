"""What the launchers of atrous convolution hand to Triton, and what they refuse."""

from importlib import import_module
from typing import Any

import pytest
import torch

from fastseg import _triton
from fastseg.testing.ladder.kernels import use_kernels

pytestmark = pytest.mark.skipif(bool(_triton.why_not), reason=_triton.why_not)
FIRST, LAST = torch.contiguous_format, torch.channels_last
VECTORS = ("bias", "scale", "shift")


@pytest.fixture(scope="module")
def dense() -> Any:
    use_kernels()
    return import_module("fastseg.kernels.atrous_conv")


@pytest.fixture(scope="module")
def weights(dense: Any) -> Any:
    return import_module("fastseg.kernels.atrous_conv_weight")


@pytest.fixture(scope="module")
def depthwise(dense: Any) -> Any:
    return import_module("fastseg.kernels.depthwise")


def maps(*shape: int, layout: Any = LAST, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta").contiguous(memory_format=layout)


def after(channels: int, residual: torch.Tensor | None = None) -> dict[str, Any]:
    given = None if residual is None else torch.empty(channels, device="meta")
    return {**dict.fromkeys(VECTORS, given), "residual": residual, "ACTIVATION": "silu"}


def compiles(launch: Any) -> None:
    from triton import compile
    from triton.backends.compiler import GPUTarget

    assert compile(launch.program(), target=GPUTarget("cuda", 90, 32), options=launch.options).asm["cubin"]


ONE = ((1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize(("channels", "outputs", "side", "full"), [(1, 1, 1, True), (1, 6, 5, False)])
def test_sizes_of_one_compile(dense: Any, weights: Any, channels: int, outputs: int, side: int, full: bool) -> None:
    """The compiler makes constants of sizes that are 1, which the interpreter does not."""
    x, out, weight = maps(1, channels, side, side), maps(1, outputs, side, side), maps(outputs, channels, 3, 3)
    steps = dense.steps_of(*ONE)
    compiles(dense.launch_of(x, weight, out, steps, 1, after(outputs, out if full else None), "ieee"))
    compiles(weights.gradient_launch(out, x, (3, 3), steps, 1, "tf32"))


@pytest.mark.parametrize(("channels", "side", "layout"), [(1, 1, FIRST), (3, 46342, FIRST), (3, 1, LAST)])
def test_depthwise_sizes_of_one_and_far_compile(depthwise: Any, channels: int, side: int, layout: Any) -> None:
    x, weight = maps(1, channels, side, side, layout=layout), torch.empty(channels, 1, 3, 3, device="meta")
    steps = depthwise.steps_of(*ONE)
    (launch,) = depthwise.launches(x, weight, x, steps, after(channels, x), True)
    assert launch.arguments["WIDE"] is (side > 1)
    compiles(launch)
    compiles(depthwise.gradient_launch(x, x, (3, 3), steps))


@pytest.mark.parametrize(("side", "wide"), [(8191, False), (8192, True)])
def test_int64_begins_at_2_to_the_31(dense: Any, weights: Any, depthwise: Any, side: int, wide: bool) -> None:
    x, weight, steps = maps(1, 32, side, 8192), maps(32, 32, 3, 3), dense.steps_of(*ONE)
    assert dense.launch_of(x, weight, x, steps, 1, after(32), "ieee").arguments["WIDE"] is wide
    assert weights.gradient_launch(x, maps(1, 1, side, 8192), (3, 3), steps, 1, "ieee").arguments["WIDE"] is wide
    (launch,) = depthwise.launches(x, maps(32, 1, 3, 3), x, steps, after(32))
    assert launch.arguments["WIDE"] is wide
    assert depthwise.gradient_launch(x, x, (3, 3), steps).arguments["WIDE"] is wide


def test_coordinates_of_large_rates_are_int64(dense: Any) -> None:
    x, weight = maps(1, 32, 4, 4), maps(32, 32, 3, 3)
    for rate, wide in ((2**28, False), (2**30 - 1, True)):
        steps = dense.steps_of((1, 1), (rate, rate), (rate, rate))
        assert dense.launch_of(x, weight, x, steps, 1, after(32), "ieee").arguments["WIDE"] is wide


@pytest.mark.parametrize(
    ("rows", "out", "rate", "expected"),
    [(33, 33, 6, 33), (33, 33, 18, 17), (8 * 33, 33, 12, 11), (65, 65, 36, 33), (9, 9, 2, 9), (64, 64, 2, 64)],
)
def test_a_map_is_cut_where_that_saves_products(dense: Any, rows: int, out: int, rate: int, expected: int) -> None:
    assert dense.strip_of(rows, out, out, 3, 1, rate, rate, 128) == expected


def test_chunks_are_fixed_by_the_shape(depthwise: Any) -> None:
    assert depthwise.chunks_of(100, 1, 9) == (1, 100)
    assert depthwise.chunks_of(1000, 1, 9) == (7, 143)
    assert depthwise.chunks_of(10**6, 300, 9) == (2, 500000)
    assert depthwise.chunks_of(10**6, 1, 2**25) == (1, 10**6)


def test_tiles_grow_with_the_work(weights: Any) -> None:
    sizes = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "num_warps")
    for rows, columns, dtype, exact, expected in (
        (8 * 64 * 64, 256, torch.float16, "ieee", (128, 128, 64, 8)),
        (8 * 64 * 64, 21, torch.bfloat16, "ieee", (128, 32, 64, 4)),
        (33 * 33, 256, torch.float16, "ieee", (64, 64, 64, 4)),
        (8 * 64 * 64, 256, torch.float32, "tf32", (128, 128, 32, 8)),
        (8 * 64 * 64, 256, torch.float32, "ieee", (64, 32, 16, 4)),
        (8 * 64 * 64, 256, torch.float64, "ieee", (32, 32, 16, 4)),
    ):
        assert weights.tile(rows, columns, dtype, exact) == dict(zip(sizes, expected, strict=True))


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_taken_where_torch_takes_it(weights: Any, allowed: bool) -> None:
    cudnn: Any = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, allowed
    try:
        assert weights.precision(torch.float32) == ("tf32" if allowed else "ieee")
        assert weights.precision(torch.float16) == weights.precision(torch.float64) == "ieee"
    finally:
        cudnn.allow_tf32 = before


def test_what_cannot_run_is_refused(dense: Any) -> None:
    x, weight = torch.ones(1, 4, 5, 5), torch.ones(3, 4, 3, 3)
    calls: dict[str, Any] = {
        "algorithm must be auto or direct .* got 'winograd2'": lambda: dense.launch_atrous_conv2d(
            x, weight, *(None,) * 5, *ONE, 1, "none", "winograd2"
        ),
        "groups must divide": lambda: dense.launch_atrous_conv2d(x, weight, *(None,) * 5, *ONE, 3, "none", "auto"),
        "weight must be": lambda: dense.launch_atrous_conv2d(x, weight.half(), *(None,) * 5, *ONE, 1, "none", "auto"),
        "stride must be": lambda: dense.launch_atrous_conv2d(
            x, weight, *(None,) * 5, (0, 1), *ONE[1:], 1, "none", "auto"
        ),
        "grad must be": lambda: dense.launch_atrous_conv2d_grad_weight(x, x, 3, 3, (2, 2), *ONE[1:], 1),
        "_grad_input: grad must be": lambda: dense.launch_atrous_conv2d_grad_input(x[:, :3], weight, 7, 5, *ONE, 1),
    }
    for rule, call in calls.items():
        with pytest.raises(ValueError, match=rule):
            call()
