"""GPU kernels as machine code: every kernel compiles and keeps its promises, the stored rows are those of the sources,
and each promise can be broken."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastseg.testing.ladder import gate, static, toolchain
from fastseg.testing.ladder.devices import ARCHS, DEVICES, find_device
from fastseg.testing.ladder.gate import Gate, find_gates
from fastseg.testing.ladder.occupancy import occupancies
from fastseg.testing.ladder.sass import short_name
from fastseg.testing.ladder.sources import Source, digest, files_of, find_sources

Row = dict[str, Any]
QUICK = {"cuda": 80, "triton": 90}  # the other architectures: make gpu-check
LOOSE = Gate("probe/*", (), registers=255, occupancy=0.01, threads=256)


def need(*languages: str) -> None:
    try:
        toolchain.require(languages)
    except toolchain.MissingTool as error:
        pytest.skip(str(error))


def test_the_stored_rows_are_those_of_the_sources_and_cover_every_architecture() -> None:
    assert static.stale(static.load()) == []


def test_the_stored_rows_keep_every_promise() -> None:
    rows, gates = static.load(), find_gates()
    held = [(row, gate.gate_of(row["kernel"], gates)) for row in rows]
    assert [row["kernel"] for row, one in held if one is None] == []
    assert [row["kernel"] for row in rows if gate.drift(row, row) >= gate.DRIFT] == []
    faults = [
        f"{row['kernel']} sm_{row['arch']}: {fault}" for row, one in held if one for fault in gate.judge(row, one)
    ]
    assert faults == []
    assert gate.unused((row["kernel"] for row in rows), gates) == []


@pytest.mark.parametrize("language", QUICK)
def test_every_kernel_compiles_and_keeps_its_promises(language: str) -> None:
    need(language)
    sources = [source for source in find_sources() if source.language == language]
    stored = [row for row in static.load() if row["language"] == language and row["arch"] == QUICK[language]]
    gates = [one for one in find_gates() if any(gate.gate_of(row["kernel"], find_gates()) == one for row in stored)]
    report = static.check(sources, [QUICK[language]], gates=gates, stored=stored)
    assert sources and report.faults == []
    assert {row["kernel"] for row in report.rows} == {row["kernel"] for row in stored}
    if {row["compiler"] for row in stored} == {toolchain.version(language)}:
        assert report.rows == stored, f"renew the rows: {static.COMMAND}"


PROBE = """
__global__ void wide_kernel(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void narrow_kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void local_kernel(const int* x, float* y) {
  float a[512];
  for (int i = 0; i < 512; ++i) a[x[i]] = y[i];
  y[threadIdx.x] = a[x[threadIdx.x]];
}
template <class T>
__global__ void sum_kernel(const T* x, T* y) {
  __shared__ T sums[256];
  sums[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < y[1]; ++i) sum += sums[i] * x[i];
  if (threadIdx.x == 0) atomicAdd(y, sum);
}
template __global__ void sum_kernel<float>(const float*, float*);
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Source:
    need("cuda")
    path = tmp_path_factory.mktemp("probe") / "cuda.cu"
    path.write_text(PROBE)
    return Source(path, "cuda", "probe")


@pytest.fixture(scope="module")
def rows(probe: Source) -> dict[str, Row]:
    report = static.check([probe], [90], gates=[replace(LOOSE, barriers=1)])
    return {row["kernel"]: row for row in report.rows}


def test_what_the_machine_code_says_is_read(rows: dict[str, Row]) -> None:
    assert set(rows) == {"probe/wide", "probe/narrow", "probe/local", "probe/sum<float32>"}
    wide, narrow, sum_, local = (rows[f"probe/{name}"] for name in ("wide", "narrow", "sum<float32>", "local"))
    assert wide["loads"] == wide["stores"] == {"128": 1} and narrow["loads"] == narrow["stores"] == {"32": 1}
    assert (sum_["shared"], sum_["barriers"], sum_["atomics"]) == (1024, 1, 1)
    assert sum_["loop_flops"] >= 2 and sum_["loop_instructions"] < sum_["instructions"]
    assert local["local"] >= 2048 and local["spills"] > 0 and not wide["local"] and not wide["spills"]
    assert wide["occupancy"] == 1 and wide["registers"] < 32 and wide["threads"] == 256


@pytest.mark.parametrize(
    ("kernel", "promise", "fault"),
    [
        ("local", {}, "uses local memory"),
        ("wide", {"registers": 4}, "registers, promised 4"),
        ("narrow", {"loads": {128: 0.8}}, "has 0% of its loads 128 bits wide, promised 80%"),
        ("narrow", {"stores": {128: 0.8}}, "has 0% of its stores 128 bits wide, promised 80%"),
        ("sum<float32>", {"barriers": 0}, "has 1 barriers, promised 0"),
        ("wide", {"tensor_cores": True}, "has no tensor-core instruction"),
    ],
)
def test_a_broken_promise_is_told(rows: dict[str, Row], kernel: str, promise: dict[str, Any], fault: str) -> None:
    row = rows[f"probe/{kernel}"]
    (told,) = gate.judge(row, replace(LOOSE, barriers=1, **promise) if "barriers" not in promise else
                         replace(LOOSE, **promise))  # fmt: skip
    assert fault in told


def test_triton_asks_for_the_shared_memory_that_an_architecture_has(rows: dict[str, Row]) -> None:
    row = {**rows["probe/wide"], "dynamic": 96 << 10}
    (told,) = gate.judge(row, replace(LOOSE, barriers=1))
    assert told.endswith("a launch grants 49152")
    assert gate.judge({**row, "language": "triton"}, LOOSE) == []
    (told,) = gate.judge({**row, "language": "triton", "arch": 75}, LOOSE)
    assert told.endswith("a launch grants 65536")


def test_older_architectures_than_a_kernel_is_launched_on_are_not_judged(rows: dict[str, Row]) -> None:
    assert gate.judge(rows["probe/local"], replace(LOOSE, barriers=1, since=100)) == []


def test_occupancy_below_the_promise_is_told(probe: Source) -> None:
    # 100 KiB of dynamic shared memory for each block: two blocks on sm_90, none on sm_86.
    hungry = replace(LOOSE, barriers=1, dynamic=100 * 1024, occupancy=0.5)
    faults = static.check([probe], [86, 90], gates=[hungry]).faults
    assert "probe/wide sm_90: reaches an occupancy of 0.25, promised 0.50" in faults
    assert "probe/wide sm_86: reaches an occupancy of 0.00, promised 0.50" in faults


def test_kernels_and_gates_belong_together(probe: Source) -> None:
    gates = [replace(LOOSE, pattern="probe/[!l]*", barriers=1), replace(LOOSE, pattern="gone/*")]
    faults = static.check([probe], [80], gates=gates).faults
    assert faults == [
        "probe/local sm_80: no gate in fastseg/testing/gates matches it",
        "gone/*: the gate holds for no kernel",
    ]


def test_a_source_that_does_not_compile_is_told(tmp_path: Path) -> None:
    need("cuda")
    path = tmp_path / "cuda.cu"
    path.write_text("__global__ void broken() { int x = ; }")
    (fault,) = static.check([Source(path, "cuda", "probe")], [80], gates=[]).faults
    assert fault.startswith("cuda.cu sm_80: does not compile:") and "error" in fault


@pytest.mark.parametrize(("compiler", "breaks"), [("same", True), ("another", False)])
def test_instructions_may_not_move_unnoticed(probe: Source, rows: dict[str, Row], compiler: str, breaks: bool) -> None:
    name = next(iter(rows.values()))["compiler"] if compiler == "same" else "nvcc 1.0"
    stored = [{**row, "baseline": 2 * row["instructions"], "compiler": name} for row in rows.values()]
    report = static.check([probe], [90], gates=[replace(LOOSE, barriers=1)], stored=stored)
    moved = [line for line in (report.faults if breaks else report.notes) if "instructions became" in line]
    assert len(moved) == 4 and len(report.faults) == (5 if breaks else 1)  # one kernel uses local memory


def test_small_steps_add_up(probe: Source, rows: dict[str, Row]) -> None:
    """What is compared with is what was accepted, not what was compiled last."""
    stored = [{**row, "baseline": row["instructions"] + 1} for row in rows.values()]
    again = static.check([probe], [90], gates=[replace(LOOSE, barriers=1)], stored=stored).rows
    assert [row["baseline"] for row in again] == [row["baseline"] for row in sorted(stored, key=lambda r: r["kernel"])]
    assert all(row["instructions"] < row["baseline"] for row in again)


def test_stale_rows_are_told(monkeypatch: pytest.MonkeyPatch, probe: Source, rows: dict[str, Row]) -> None:
    monkeypatch.setattr(static, "ROOT", probe.path.parent)
    whole = [{**row, "arch": arch, "source": "cuda.cu"} for row in rows.values() for arch in ARCHS]
    assert static.stale(whole, [probe]) == []
    assert static.stale([], [probe]) == [f"cuda.cu has no rows: {static.COMMAND}"]
    changed = [{**row, "sha256": "0"} for row in whole]
    assert "changed after its rows were made" in static.stale(changed, [probe])[0]
    fewer = [row for row in whole if row["kernel"] != "probe/wide" or row["arch"] not in (75, 120)]
    assert static.stale(fewer, [probe]) == [f"probe/wide has no row for sm_75, sm_120: {static.COMMAND}"]
    assert static.stale(whole, []) == [f"cuda.cu has rows and is gone: {static.COMMAND}"]


def test_rows_are_written_sorted_and_whole(tmp_path: Path, rows: dict[str, Row]) -> None:
    path = tmp_path / "rows.jsonl"
    static.save(reversed(rows.values()), path)
    assert static.load(path) == [rows[name] for name in sorted(rows)] and list(tmp_path.iterdir()) == [path]


def test_a_digest_covers_what_a_source_includes(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "stem").mkdir()
    source, kernel, shared = tmp_path / "stem/cuda.cu", tmp_path / "stem/a_kernel.cuh", tmp_path / "common/kernel.cuh"
    source.write_text('#include "a_kernel.cuh"\n#include <cuda_fp16.h>\n')
    kernel.write_text('#include "../common/kernel.cuh"\n')
    shared.write_text("")
    assert set(files_of(source)) == {source, kernel, shared}
    digest.cache_clear()
    before = digest(source)
    shared.write_text("// changed")
    digest.cache_clear()
    assert digest(source) != before


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("fastseg::set(long*, long)", "set"),
        ("void fastseg::(anonymous namespace)::sum_kernel<float>(float const*)", "sum<float32>"),
        (
            "void f::k<__nv_bfloat16, (bool)1, f::Layout<3>, unsigned char>(f::P<__half>)",
            "k<bfloat16,1,Layout<3>,uint8>",
        ),
        ("void f::k<unsigned long long, -1, long>(long)", "k<uint64,-1,int64>"),
    ],
)
def test_names_are_short(signature: str, name: str) -> None:
    assert short_name(signature) == name


@pytest.mark.parametrize(
    ("launch", "occupancy"),
    [
        ((90, 256, 108, 0, 96 * 1024), 0.25),
        ((75, 256, 64, 0, 0), 1.0),
        ((80, 256, 64, 0, 0), 0.5),
        ((120, 32, 16, 0, 0), 0.5),
    ],
)
def test_occupancy_is_that_of_the_toolkit(launch: tuple[int, int, int, int, int], occupancy: float) -> None:
    need("cuda")
    assert occupancies([launch]) == [occupancy]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("Tesla T4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A10", "A10"),
    ],
)
def test_devices_are_known_by_what_cuda_calls_them(name: str, found: str) -> None:
    assert find_device(name).name == found


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 PCIe", "NVIDIA A10G", "nothing"])
def test_other_devices_are_not_taken_for_them(name: str) -> None:
    with pytest.raises(LookupError, match="no such device"):
        find_device(name)


def test_the_table_of_devices_agrees_with_itself() -> None:
    lanes: Callable[[int], int] = lambda arch: 64 if arch in (75, 80) else 128  # noqa: E731
    for device in DEVICES:
        computed = 2 * device.multiprocessors * lanes(device.arch) * device.clock / 1000
        assert device.tflops == pytest.approx(computed, rel=0.02), device.name
