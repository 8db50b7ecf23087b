"""Beyond what 32 bits hold: maps spread over memory, and the first and last blocks of results too large to compute."""

import os
import subprocess
import sys

import pytest

from fastseg import _triton, testing
from fastseg.testing.ladder import host
from fastseg.testing.ladder.rows import Selection
from fastseg.testing.layouts import FAR

needs_host = pytest.mark.skipif(bool(host.why_not()), reason=f"CUDA kernels run on the host: {host.why_not()}")
needs_triton = pytest.mark.skipif(bool(_triton.why_not), reason=_triton.why_not)


@pytest.mark.xdist_group("host")
@needs_host
def test_maps_spread_over_memory() -> None:
    """Each dimension in turn spans 2^31 elements, gradients too."""
    outcomes = list(host.run(Selection(host.PATH, tags=("smoke",), layouts=FAR)))
    assert [f"{o.case} {o.dtype} {o.layout}: {o.fault}" for o in outcomes if o.fault] == []
    assert sum(o.ran for o in outcomes) > len(FAR) * len(testing.find_cases(None, "smoke"))


@pytest.mark.xdist_group("host")
@needs_host
def test_labels_that_begin_anywhere() -> None:
    """Wide loads are for addresses that take them: of others UndefinedBehaviorSanitizer speaks."""
    selection = Selection(host.PATH, tags=("smoke",), layouts=("offset",))
    outcomes = list(host.run(selection, "undefined"))
    assert [f"{o.case} {o.dtype}: {o.fault}" for o in outcomes if o.fault] == []
    assert any(o.ran and o.dtype == "uint8" for o in outcomes)


# Zeros but for the last place, so that the corners of a result are those of what it is made of. H * W > 2^31.
COMMON = """
import math
import torch
from fastseg.testing.layouts import sparse

H, W = 46342, 46341
ops = torch.ops.fastseg

def last(value, *shape, dtype=torch.float32):
    x = sparse(math.prod(shape), dtype).view(shape)
    x[..., -1, -1] = value
    return x

def second(x):
    x[:, 0, -1, -1] = 0  # of two classes
    return x

def corners(what, x, *expected):
    x = x[0] if x.dim() == 3 else x[0, -1]
    got = [float(x[0, 0]), float(x[-1, -1])]
    assert all(abs(g - e) < 1e-3 for g, e in zip(got, expected)), (what, got, expected)
"""
HOST = """
x = second(last(1, 1, 2, H // 2, 3))
half, even = 1 / 2, math.log(2)
won = 1 / (1 + math.exp(-1))
label, sure = ops.upsample_argmax_confidence(x, H, W, False, torch.uint8)
corners("confidence", sure, half, won)
corners("its label", label, 0, 1)
corners("argmax", ops.upsample_argmax(x, H, W, False, torch.uint8), 0, 1)
corners("softmax", ops.upsample_softmax(x, H, W, False), half, won)
last_format = x.to(memory_format=torch.channels_last)
corners("channels_last", ops.upsample_softmax(last_format, H, W, False), half, won)

target = last(1, 1, H, W, dtype=torch.uint8)
rest = (None, None)
loss, lse, total = ops.upsample_cross_entropy(x, target, *rest, 255, 0.0, 0, False)
corners("loss", loss, even, -math.log(won))
grad = last(1, 1, H, W)
given = ops.upsample_cross_entropy_backward(grad, x, target, *rest, lse, total, 255, 0.0, 0, False)
corners("gradient of the loss", given, 0, won - 1)

grad, p = second(last(1, 1, 2, H, W)), last(0.5, 1, 2, H, W)
corners("bilinear", ops.upsample_bilinear_backward(grad, H // 2, 3, False), 0, 1)
corners("gradient of softmax", ops.upsample_softmax_backward(grad, p, H // 2, 3, False), 0, 0.25)

# The other way round: a gradient too large to compute.
grad, p = second(last(1, 1, 2, 3, 3)), last(0.5, 1, 2, 3, 3)
corners("large bilinear", ops.upsample_bilinear_backward(grad, H, W, True), 0, 1)
corners("large gradient of softmax", ops.upsample_softmax_backward(grad, p, H, W, True), 0, 0.25)
x, target = last(0, 1, 2, H, W), torch.ones(1, 3, 3, dtype=torch.uint8)
loss, lse, total = ops.upsample_cross_entropy(x, target, *rest, 255, 0.0, 0, True)
grad = last(1, 1, 3, 3)
given = ops.upsample_cross_entropy_backward(grad, x, target, *rest, lse, total, 255, 0.0, 0, True)
corners("large gradient of the loss", given, 0, -half)
"""
TRITON = """
from fastseg.testing.ladder.interpreter import run_ends
from fastseg.testing.ladder.kernels import launched, use_kernels

use_kernels()
from fastseg.kernels import upsample

torch.set_num_threads(1)
plain, masks = upsample.launch_upsample_bilinear, upsample.launch_upsample_threshold
with launched(run_ends):
    half = dict(dtype=torch.float16)
    corners("bilinear", plain(last(1, 1, 1, H // 2, 3, **half), H, W, False), 0, 1)
    corners("threshold", masks(last(1, 1, 1, H // 2, 3, **half), H, W, 0.5, False), 0, 1)
    corners("a tall source", plain(last(1, 1, 1, 2**30, 1), 3, 2, True), 0, 1)
    corners("a wide source", plain(last(1, 1, 1, 1, 2**30), 2, 3, True), 0, 1)
    corners("a wide result", masks(last(1, 1, 1, 1, 2), 1, 2**30, 0.5, False), 0, 1)
    pixels = last(1, 1, 4, 1, 2).to(memory_format=torch.channels_last)
    corners("a row of 2^31 - 4 values", masks(pixels, 1, 2**29 - 1, 0.5, False), 0, 1)
"""


def run_script(code: str, **environment: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.xdist_group("host")
@needs_host
def test_results_too_large_to_compute_are_right_at_their_ends_in_cuda() -> None:
    run_script("import fastseg\n" + HOST, FASTSEG_HOST_ENDS="1", **host.environment(host.build()))


@needs_triton
def test_results_too_large_to_compute_are_right_at_their_ends_in_triton() -> None:
    run_script(TRITON, TRITON_INTERPRET="1")
