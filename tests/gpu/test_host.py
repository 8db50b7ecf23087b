"""Rung A: the CUDA kernels run on the host, on rows of the table, in any order and under sanitizers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastseg import _registry
from fastseg.testing.data_errors import find_data_errors
from fastseg.testing.ladder import host, toolchain
from fastseg.testing.ladder.rows import Selection, run_apart
from fastseg.testing.ladder.sources import ROOT, cuda_ops

pytestmark = [
    pytest.mark.skipif(bool(host.why_not()), reason=f"CUDA kernels are compiled for the host: {host.why_not()}"),
    pytest.mark.xdist_group("host"),
]
CUDA = cuda_ops() & _registry.OPS.keys()
NARROW = ("float32", "bfloat16", "uint8")


def faults(selection: Selection, sanitizer: str = "") -> list[str]:
    """What is wrong with these rows; at least one kernel must have run on each op's rows."""
    outcomes = list(host.run(selection, sanitizer))
    ran = {outcome.case.split("-")[0] for outcome in outcomes if outcome.ran}
    assert ran >= CUDA & {case.op for case in selection.cases()}
    return [f"{o.case} {o.dtype} {o.layout}: {o.fault}" for o in outcomes if o.fault]


def test_rows_in_any_order_of_threads_and_on_few_blocks() -> None:
    assert faults(Selection(host.PATH, tags=("smoke",), layouts=(), backwards=True)) == []


def test_odd_and_degenerate_rows() -> None:
    assert faults(Selection(host.PATH, tags=("odd", "degenerate"), dtypes=NARROW)) == []


@pytest.mark.parametrize("sanitizer", host.SANITIZERS[1:])
def test_rows_under_sanitizers(sanitizer: str) -> None:
    assert faults(Selection(host.PATH, tags=("smoke",), dtypes=NARROW), sanitizer) == []


def test_every_kernel_is_on_the_host() -> None:
    code = "from fastseg.testing.selftest import kernels; print(*kernels('cpu'))"
    environment = {**os.environ, **host.environment(host.build())}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert set(said.stdout.split()) == CUDA


def test_the_command_runs_a_part_and_says_what_it_proved(capsys: pytest.CaptureFixture[str]) -> None:
    assert host.main(["--op", "upsample_argmax", "--case", "argmax-x2_aligned", "--under", "values", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {o["case"] for o in told["values"]} == {"upsample_argmax-x2_aligned"} and all(
        o["ran"] for o in told["values"]
    )
    # A row that no ThreadSanitizer meets proves nothing there.
    assert host.main(["--case", "upsample_cross_entropy-all_ignored_mean", "--under", "thread"]) == 1
    with pytest.raises(SystemExit, match="2"):
        host.main(["--case", "no such row"])


def included(*command: object) -> set[Path]:
    """Files of ours that a compiler reads, by its own account."""
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    found = (Path(name).resolve() for name in re.split(r"[\s\\]+", told.partition(":")[2]) if name)
    return {path.relative_to(ROOT) for path in found if ROOT / "csrc" in path.parents}


@pytest.mark.skipif(not shutil.which("nvcc"), reason="its dependencies are asked for: no nvcc")
def test_what_runs_on_the_host_is_what_nvcc_compiles() -> None:
    torch_include = Path(torch.__file__).parent / "include"
    options = ("-std=c++20", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-isystem", torch_include)
    sources = sorted(ROOT.glob("csrc/*/*cuda.cu"))
    kernels = set()
    for source in sources:
        on_host = included("g++", "-M", "-x", "c++", *options, "-isystem", toolchain.cuda_include(), source)
        on_gpu = included("nvcc", "-M", *options, source)
        assert on_host - on_gpu == {Path("csrc/testing/cuda_on_host.h")}
        assert on_gpu - on_host <= {Path("csrc/common/current_stream.h")}  # of torch's streams, which the host has not
        kernels |= {path for path in on_host if path.name.endswith("kernel.cuh")}
    # Nor is a kernel told which of the two compiles it: the wrappers alone are.
    told = re.compile(r"__CUDACC__|__CUDA_ARCH__|__NVCC__|FASTSEG_MUTANTS")
    files = {path.parent.name for path in ROOT.glob("csrc/*/*.cuh") if told.search(path.read_text())}
    assert files == {"common"}
    assert kernels == {path.relative_to(ROOT) for path in ROOT.glob("csrc/*/*kernel.cuh")}
    # And the library that the rows ran on was made of all of them.
    commands = (host.build().parent / "build.ninja").read_text()
    assert [str(source) for source in sources if str(source) not in commands] == []


def test_a_dead_process_is_the_fault_of_its_row() -> None:
    killed = Selection(host.PATH, names=("upsample_argmax-x2",), dtypes=("float32",))
    environment = {**host.environment(host.build()), "FASTSEG_HOST_BLOCKS": "-1"}
    (outcome,) = run_apart(killed, environment)
    assert not outcome.ran and "1 to 2^31 - 1 blocks" in outcome.fault
    (dead,) = run_apart(killed, {**environment}, ("false",))
    assert "died with code 1" in dead.fault


def test_data_errors_poison_or_raise() -> None:
    """All of them on the host or in Triton's interpreter, where `fastseg.testing.ladder.interpreter` runs them."""
    command, poison = [sys.executable, "-m", "fastseg.testing.data_errors", "cpu"], 0
    for kind in (host.environment(host.build()), {"TRITON_INTERPRET": "1"}):
        environment = {**os.environ, **kind}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = re.search(r"(\d+) data errors poison, 0 wrong", done.stdout)
        assert said, done.stdout + done.stderr
        poison += int(said[1])
    assert poison == len(find_data_errors())


OFFSET = """
import torch
import torch.nn.functional as F
from fastseg import ops

torch.manual_seed(0)
target = torch.randint(0, 19, (1, 24, 28), dtype=torch.uint8)
quarters = torch.randint(-8, 9, (1, 19, 6, 7)) / 4  # of which interpolation at a power of two rounds nothing

def gradient(x, loss):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(x), x)[0]

def eager(x):
    return F.cross_entropy(F.interpolate(x, size=(24, 28), mode="bilinear"), target.long())

for offset in (0, 100, 10_000):
    x = quarters + offset
    truth = gradient(x.double(), eager)
    errors = [(gradient(x, f) - truth).abs().max() for f in (eager, lambda x: ops.upsample_cross_entropy(x, target))]
    assert errors[1] <= 2 * errors[0], (offset, errors)
"""


def test_an_offset_of_all_classes_costs_no_digits() -> None:
    environment = {**os.environ, **host.environment(host.build())}
    subprocess.run([sys.executable, "-c", OFFSET], env=environment, check=True)


def test_the_boundary_of_32_bit_division() -> None:
    """Coordinates go through 32-bit division up to its limit and through 64-bit division beyond."""
    program = """
#include "upsample/cells.cuh"
#include <cstdio>
int main() {
  using fastseg::quotient;
  const int64_t edges[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x100000001, int64_t(1) << 61};
  for (int64_t a : edges)
    for (int64_t b : edges)
      if (b && quotient(a, b) != a / b) return std::printf("%lld / %lld\\n", (long long)a, (long long)b), 1;
  // The last output of the largest axes lies at the last source pixel.
  const int32_t most = (1 << 30) - 1;
  for (bool aligned : {false, true}) {
    const fastseg::Resample r{most, most, aligned}, twice{most / 2, most, aligned};
    if (fastseg::tap<double>(r, most - 1).lower != most - 1) return std::puts("same size"), 1;
    if (fastseg::tap<double>(twice, most - 1).lower != most / 2 - 1) return std::puts("twice the size"), 1;
    if (fastseg::first_of(twice, most / 2 - 1) >= most || fastseg::first_of(twice, most / 2) != most) return 1;
  }
  return 0;
}
"""
    folder = host.build().parent
    (folder / "boundary.cpp").write_text(program)
    include = ["-I", str(ROOT / "csrc"), "-isystem", str(toolchain.cuda_include())]
    shim = str(ROOT / "csrc/testing/cuda_on_host.cpp")
    command = ["g++", "-std=c++20", *include, str(folder / "boundary.cpp"), shim, "-o", str(folder / "boundary")]
    subprocess.run(command, check=True)
    done = subprocess.run([str(folder / "boundary")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


PROBES = """
#include "common/kernel.cuh"
#include <cstdio>
#include <exception>
using namespace fastseg;
static float total;
static int taken;

static void leaves() { if (threadIdx.x < 16) __syncthreads(); }
static void parts() { if (threadIdx.x < 16) __syncthreads(); else __syncthreads(); }
static void lonely() { if (threadIdx.x == 3) __shfl_sync(kWarp, 1, 0); }
static void fresh() {
  FASTSEG_SHARED(float, values, 32);
  if (values[threadIdx.x] == values[threadIdx.x]) throw 1;
}
static void large() { FASTSEG_SHARED(char, bytes, 40 << 10); bytes[0] = 0; }
static void sums() {
  atomicAdd(&total, 0.5f);
  atomicCAS(&taken, 0, int(threadIdx.x) + 1);
  const int above = __shfl_down_sync(kWarp, int(threadIdx.x), 1), votes = __ballot_sync(kWarp, threadIdx.x % 2);
  if (above != smaller(31, int(threadIdx.x) + 1) || votes != int(0xaaaaaaaa)) throw 1;
}

static void run(const char* name, void (*kernel)(), int64_t dynamic = 0) {
  try {
    host::launch(2, 32, dynamic, kernel);
    std::printf("%s ran\\n", name);
  } catch (const std::exception& error) {
    std::printf("%s %s\\n", name, error.what());
  }
}

int main() {
  run("leaves", leaves), run("parts", parts), run("lonely", lonely), run("fresh", fresh);
  run("large", large), run("both", large, 10 << 10), run("sums", sums);
  return total == 32 && taken == 1 ? 0 : 1;
}
"""


def test_the_shim_finds_what_it_promises() -> None:
    folder = host.build().parent
    (folder / "probes.cpp").write_text(PROBES.replace("\\\\n", "\\n"))
    include = ["-I", str(ROOT / "csrc"), "-isystem", str(toolchain.cuda_include())]
    shim = str(ROOT / "csrc/testing/cuda_on_host.cpp")
    command = ["g++", "-std=c++20", *include, str(folder / "probes.cpp"), shim, "-o", str(folder / "probes")]
    subprocess.run(command, check=True)
    said = subprocess.run([str(folder / "probes")], capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict(line.split(" ", 1) for line in said)
    assert "barrier divergence: 16 of 32 threads" in found["leaves"]
    assert "barrier divergence: 16 of 32 threads" in found["parts"]
    assert "warp divergence: 1 of 32 threads" in found["lonely"]
    assert "more than 48 KiB of shared memory" in found["both"]
    assert (found["fresh"], found["large"], found["sums"]) == ("ran", "ran", "ran")
