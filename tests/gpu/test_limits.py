"""Beyond what 32 bits hold: maps spread over memory, and the first and last blocks of results too large to compute."""

import os
import subprocess
import sys

import pytest

from fastseg import _registry, _triton
from fastseg.testing.ladder import host
from fastseg.testing.ladder.kernels import gpu_ops
from fastseg.testing.ladder.rows import Selection
from fastseg.testing.ladder.sources import cuda_ops
from fastseg.testing.layouts import FAR
from fastseg.testing.limit import find_limits, unlimited

needs_host = pytest.mark.skipif(bool(host.why_not()), reason=f"CUDA kernels run on the host: {host.why_not()}")
needs_triton = pytest.mark.skipif(bool(_triton.why_not), reason=_triton.why_not)


@pytest.mark.xdist_group("host")
@needs_host
def test_maps_spread_over_memory() -> None:
    """Each dimension in turn spans 2^31 elements, gradients too."""
    selection = Selection(host.PATH, tags=("smoke",), layouts=FAR, dtypes=("float32", "bfloat16", "uint8"))
    outcomes = list(host.run(selection))
    assert [f"{o.case} {o.dtype} {o.layout}: {o.fault}" for o in outcomes if o.fault] == []
    paths = {path for outcome in outcomes for path in outcome.paths}
    assert {f"{op}:{host.PATH}" for op in cuda_ops() & _registry.OPS.keys()} <= paths


@pytest.mark.xdist_group("host")
@needs_host
def test_labels_that_begin_anywhere() -> None:
    """Wide loads are for addresses that take them: of others UndefinedBehaviorSanitizer speaks."""
    selection = Selection(host.PATH, tags=("smoke",), layouts=("offset",))
    outcomes = list(host.run(selection, "undefined"))
    assert [f"{o.case} {o.dtype}: {o.fault}" for o in outcomes if o.fault] == []
    assert any(o.ran and o.dtype == "uint8" for o in outcomes)


def run_limits(kind: str, **environment: str) -> None:
    command = [sys.executable, "-m", "fastseg.testing.limit", kind]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.xdist_group("host")
@needs_host
def test_results_too_large_to_compute_are_right_at_their_ends_in_cuda() -> None:
    run_limits("cuda", **host.environment(host.build()))


@needs_triton
def test_results_too_large_to_compute_are_right_at_their_ends_in_triton() -> None:
    run_limits("triton", TRITON_INTERPRET="1")


def test_every_kernel_on_a_gpu_has_a_limit() -> None:
    limited = {limit.op for limit in find_limits()}
    assert limited.isdisjoint(unlimited()) and all(unlimited().values())
    assert limited | unlimited().keys() == gpu_ops()


def test_limits_are_not_computed_whole() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FASTSEG_LIBRARY"}
    command = [sys.executable, "-m", "fastseg.testing.limit", "cuda"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "must be run with FASTSEG_LIBRARY set" in done.stderr
