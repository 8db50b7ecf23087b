"""Rung D: mutants are found and do what they say, and a report with gaps is refused."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastseg.testing.ladder import interpreted_mutants, mutation
from fastseg.testing.ladder.interpreted_runs import functions_behind
from fastseg.testing.ladder.mutant_runs import by_turns, from_both_ends
from fastseg.testing.ladder.mutants import find_sites, keys, mutated
from fastseg.testing.ladder.sources import ROOT
from fastseg.testing.ladder.toolchain import MissingTool, find

KERNEL = """
constexpr int kTile = sizeof(int) == 4 ? 8 : 4;  // if (a < b)
__global__ void kernel(const int* in, int* out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) sums[i] = 0;
  __syncthreads();
  const int x = threadIdx.x, limit = x < n ? x : n;
  if (x >= n || (in && in[limit] == 0)) return;
  atomicAdd(&out[x], in[limit]);
}
"""
TRITON = """
@triton.jit
def kernel(source, out, n):
    at = tl.arange(0, 8)
    x = tl.load(source + at, (at < n) & (at > 0), other=0.0)
    tl.store(out + tl.minimum(at, n), x, mask=at < n)


def launch(n):
    return n if n > 0 else 0
"""


def test_a_report_that_is_not_is_refused() -> None:
    (path,) = [path for path in mutation.kernel_files() if path.name == "cells.cuh"]
    name, right = mutation.name_of(path), mutation.row_of(path, [])
    gap = {"key": "no such mutant", "line": 1, "reason": ""}
    other = {"file": "csrc/gone.cuh", "mutants": 100, "survivors": [gap] * 6}
    gaps = ["csrc/gone.cuh:1 survives without a reason: no such mutant"] * 6

    def faults(**change: object) -> list[str]:
        return mutation.faults({name: right | change}, [path])

    assert faults() == []
    assert mutation.faults({}, [path]) == [f"{name} has no line: {mutation.COMMAND}"]
    assert faults(sha256="0")[0].endswith(mutation.COMMAND)
    assert faults(mutants=100, survivors=[gap]) == [f"{name}:1 survives without a reason: no such mutant"]
    assert mutation.faults({name: right, "csrc/gone.cuh": other}, [path]) == [
        f"csrc/gone.cuh has a line and is gone: {mutation.COMMAND}",
        *gaps,
        "94.0% of 100 mutants are killed, not 95%",
    ]


def test_a_reason_that_nothing_needs_is_told() -> None:
    (path,) = [path for path in mutation.kernel_files() if path.name == "argmax_kernel.cuh"]
    name = mutation.name_of(path)
    idle = [reason for reason in mutation.reasons() if reason.startswith(name)]
    told = mutation.faults({name: mutation.row_of(path, [])}, [path])
    assert idle and told == [f"{reason}: has a reason and is killed, or gone" for reason in sorted(idle)]


def test_survivors_alone_are_judged_again() -> None:
    (path,) = [path for path in mutation.kernel_files() if path.name == "upsample.py"]
    mutants = [mutant for mutant, _ in interpreted_mutants.find_mutants(path.read_text(), mutation.name_of(path))]
    first = mutation.row_of(path, [(m, "" if m in mutants[3:5] else "crash") for m in mutants])
    again = mutation.row_of(path, [(mutants[3], "interpreter"), (mutants[4], "")], first)
    kept = [one["key"] for one in again["survivors"]]
    assert kept == [one["key"] for one in first["survivors"]][1:] and again["mutants"] == first["mutants"]
    assert again["killed"] == {"crash": len(mutants) - 2, "interpreter": 1}


def test_the_stored_report_is_of_the_sources_and_has_no_gaps() -> None:
    assert mutation.faults(mutation.load()) == []


def test_some_rows_are_for_survivors_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        mutation.main(["--case", "chunks"])
    assert "--case is for --survivors" in capsys.readouterr().err


def test_every_kernel_file_has_mutants() -> None:
    assert {"csrc/common/kernel.cuh", "csrc/upsample/argmax_kernel.cuh", "kernels/upsample.py"} <= {
        mutation.name_of(path) for path in mutation.kernel_files()
    }
    for path in mutation.kernel_files():
        text = path.read_text()
        triton = [] if path.suffix == ".cuh" else [m for m, _ in interpreted_mutants.find_mutants(text, path.name)]
        assert find_sites(text) if path.suffix == ".cuh" else triton, path
        assert len(set(triton)) == len(triton), path


def test_a_mutant_meets_every_op_and_every_case_before_a_second_dtype() -> None:
    x32, x64, y32, other = (
        ("a-x", "float32", ""),
        ("a-x", "float64", ""),
        ("a-y", "float32", ""),
        ("b-x", "int64", ""),
    )
    costs = {x64: 1.5, other: 4.0, y32: 2.0, x32: 1.0}
    assert by_turns(costs, 10) == [x32, other, y32, x64]
    assert by_turns(costs, 7) == [x32, other, y32]
    assert by_turns(costs, 0.5) == [x32]
    assert from_both_ends([x32, x64, y32, other]) == [x32, other, x64, y32]
    assert from_both_ends([x32, x64, y32]) == [x32, y32, x64] and from_both_ends([]) == []


def test_mutants_of_a_cuda_kernel() -> None:
    text, mutants = mutated(KERNEL, "kernel.cuh", 1)
    assert [(m.line, m.operator, m.words) for m in mutants] == [
        (4, "comparison shifted", "i < n"),
        (4, "one less", "n"),
        (4, "zeros dropped", "sums[i] = 0;"),
        (5, "barrier dropped", "__syncthreads();"),
        (6, "bound deleted", "x < n"),
        (7, "guard deleted", "x >= n || (in && in[limit] == 0)"),
        (7, "term dropped", "x >= n"),
        (7, "comparison shifted", "x >= n"),
        (7, "term dropped", "(in && in[limit] == 0)"),
        (7, "term dropped", "in"),
        (7, "term dropped", "in[limit] == 0"),
        (7, "comparison shifted", "in[limit] == 0"),
        (8, "atomic made plain", "atomicAdd"),
        (8, "atomic dropped", "atomicAdd"),
    ]
    assert len(set(keys(mutants).values())) == len(mutants)
    assert "constexpr int kTile = sizeof(int) == 4 ? 8 : 4;  // if (a < b)" in text
    assert "{ if (!FASTSEG_ALIVE(4)) __syncthreads(); }" in text
    assert "FASTSEG_ATOMIC(13, 14, atomicAdd, &out[x], in[limit]);" in text


def test_mutants_of_a_triton_kernel() -> None:
    found = [(m.operator, m.words) for m, _ in interpreted_mutants.find_mutants(TRITON, "kernel.py")]
    assert sorted(found) == [
        ("always the limit", "tl.minimum(at, n)"),
        ("comparison shifted", "at < n"),
        ("comparison shifted", "at < n"),
        ("comparison shifted", "at > 0"),
        ("last term dropped", "(at < n) & (at > 0)"),
        ("limit dropped", "tl.minimum(at, n)"),
        ("mask dropped", "tl.load(source + at, (at < n) & (at > 0), other=0.0)"),
        ("mask dropped", "tl.store(out + tl.minimum(at, n), x, mask=at < n)"),
        ("other value", "0.0"),
        ("term dropped", "(at < n) & (at > 0)"),
    ]


def test_a_mutant_of_triton_meets_what_runs_its_function() -> None:
    assert {interpreted_mutants.function_at(TRITON, line) for line in (3, 6)} == {"kernel"}
    assert interpreted_mutants.function_at(TRITON, 10) == "launch"

    space = {"__name__": "fastseg.kernels.family", "jit": lambda f: SimpleNamespace(fn=f), "range": range}
    exec("@jit\ndef leaf(): pass\n@jit\ndef told(): pass\n@jit\ndef idle(): pass\n"
         "@jit\ndef kernel(): range(leaf)\n", space)  # fmt: skip
    launch = SimpleNamespace(kernel=space["kernel"], arguments={"n": 3}, options={"CALL": space["told"]})
    assert set(functions_behind(launch)) == {"family.kernel", "family.leaf", "family.told"}


PROGRAM = """
#include <cstdio>
#include <type_traits>
#include "mutants.h"
template <class T> T smaller(T a, T b) { return b < a ? b : a; }
FUNCTIONS
int main() {
  for (fastseg_mutant = 0; fastseg_mutant <= COUNT; ++fastseg_mutant)
    std::printf("%d %d %d\\n", below(3, 3), below(2.0, 3.0), limited(7, 5));
}
"""
FUNCTIONS = """
template <class T> int below(T a, T b) {
  if (a < b) return 1;
  return 0;
}
int limited(int a, int b) { return smaller(a, b); }
"""


def test_mutants_do_what_they_say(tmp_path: Path) -> None:
    try:
        compiler = find("g++")
    except MissingTool as missing:
        pytest.skip(str(missing))
    functions, mutants = mutated(FUNCTIONS, "functions.cuh", 1)
    source = tmp_path / "program.cpp"
    source.write_text(PROGRAM.replace("FUNCTIONS", functions).replace("COUNT", str(len(mutants))))
    command = [compiler, "-std=c++20", "-I", str(ROOT / "csrc/testing"), str(source), "-o", str(tmp_path / "program")]
    subprocess.run(command, check=True)
    said = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert dict(zip(["none", *(m.operator for m in mutants)], said, strict=True)) == {
        "none": "0 1 5",
        "guard deleted": "0 0 5",
        "comparison shifted": "1 0 5",  # of whole numbers by one; of values to the opposite
        "limit dropped": "0 1 7",
        "always the limit": "0 1 5",
    }
