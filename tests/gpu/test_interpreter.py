"""Rung B: Triton kernels in the interpreter agree with the truth, and broken copies of them do not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastseg import _registry, _triton, testing
from fastseg.testing.ladder.interpreter import PATH, interpret
from fastseg.testing.ladder.kernels import FOLDER
from fastseg.testing.layouts import FAR

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(bool(_triton.why_not), reason=_triton.why_not)
# What breaks, in which file, the expression, what it becomes, and words of the fault.
BROKEN = {
    "mask": ("upsample.py", "inside = at < row", "inside = at <= row", "leave the tensors of the launch"),
    "rounding": ("upsample.py", "bits += 0x7FFF + ((bits >> 16) & 1)", "bits += 0", "rounds to"),
    "upcast": ("upsample.py", "x.dtype == torch.bfloat16 and interpreted(upsample)", "False", "rounds to"),
    "threshold": ("upsample.py", "z > tl.full", "z >= tl.full", "where the truth is 0"),
    "int32": ("_launch.py", "return largest >= 2**31", "return False", ""),
    "dead rows": ("atrous_conv.py", "tl.maximum(behind - first, 0)", "taps - first", "products of tiles, and needs"),
    "far": ("upsample.py", "line = out + ", "line = out + (1 << 40) + ", "leave the tensors of the launch"),
}


def broken(folder: Path, name: str) -> Path:
    """A copy of the kernels with one thing changed."""
    shutil.copytree(FOLDER, folder / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    file, old, new, _ = BROKEN[name]
    text = (folder / "kernels" / file).read_text()
    assert text.count(old) == 1, f"{file} has no {old!r}: give the mutant another place"
    (folder / "kernels" / file).write_text(text.replace(old, new))
    return folder / "kernels"


def test_small_rows() -> None:
    report = interpret(fast=True)
    assert not report.faults, "\n".join(report.faults)
    assert not report.left_out
    assert all(outcome.ran for outcome in report.outcomes)
    paths = {path for outcome in report.outcomes for path in outcome.paths}
    assert {f"{name}:{PATH}" for name, op in _registry.OPS.items() if op.triton} <= paths
    assert {o.layout for o in report.outcomes} >= {*testing.LAYOUTS, *FAR}
    assert {o.dtype for o in report.outcomes} >= {"float32", "float64", "bfloat16", "float16"}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_copy_is_caught(name: str, tmp_path: Path) -> None:
    # Small integers at twice the size: no tie excuses another answer.
    cases = {"threshold": "upsample_threshold-ties_x2", "dead rows": "atrous_conv2d-rate_beyond_rows"}
    case = cases.get(name, "upsample_bilinear-x2")
    report = interpret(pattern=case, first=True, kernels=broken(tmp_path, name))
    assert report.faults and BROKEN[name][3] in report.faults[0], report.faults


LIMIT = """
import sys
from pathlib import Path
from fastseg.testing.ladder import interpreted_runs as runs
from fastseg.testing.ladder.kernels import FOLDER
folder = Path(sys.argv[1])
jobs = [int(which) for name, _, which in runs.find_jobs(FOLDER / "depthwise.py") if name == runs.LIMITS]
runs.use(folder)
print(*(why for number in jobs for how, why in [runs.red_limit(number)] if how), sep="\\n")
"""


def test_a_mutant_meets_the_limits(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}

    def said(folder: Path) -> str:
        command = [sys.executable, "-c", LIMIT, str(folder)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert said(FOLDER) == ""
    assert "atrous_conv2d, depthwise" in said(broken(tmp_path, "int32"))


PROBE = """
import torch
import triton
import triton.language as tl
from fastseg.testing.ladder.bounds import within

@triton.jit
def add(x, size):
    at = tl.arange(0, 8)
    tl.atomic_add(x + at, 1, at < size)

@triton.jit
def swap(x, size):
    tl.atomic_cas(x + size - 1, 0, 1)

room = torch.zeros(16, dtype=torch.int32)  # what lies behind the tensor of the launch
for kernel in (add, swap):
    for size, leaves in ((4, False), (5, True)):
        try:
            with within([room[:4]]):
                kernel[(1,)](room, size)
        except Exception as error:
            assert leaves and "leave the tensors" in str(error), error
        else:
            assert not leaves, kernel
"""


def test_atomics_stay_in_their_tensors(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(tmp_path / "probe.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_counts_and_fails() -> None:
    command = [sys.executable, "-m", "fastseg.testing.ladder.interpreter", "--json"]

    def call(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)

    done = call("--case", "upsample_bilinear-row_aligned")
    said = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [o["paths"][0] for o in said["outcomes"]] == ["upsample_bilinear:triton/interpreter"] * 4
    assert call("--case", "no such row").returncode == 1
