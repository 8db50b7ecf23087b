"""`fastseg selftest` proves the CPU here, sees a broken op, and says in one line that there is no GPU."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from fastseg import _registry, testing
from fastseg.profiler import gpu
from fastseg.testing import installation
from fastseg.testing.check import Run as Ran
from fastseg.testing.selftest import unpoisoned

Run = Callable[..., Result]
LOOP = import_module("fastseg.testing.selftest")  # the attribute of this name is its function


def test_smoke_rows_on_every_instruction_set(run: Run, tmp_path: Path) -> None:
    result = run("selftest", "--op", "upsample_argmax", "-o", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    rows = testing.find_cases("upsample_argmax", "smoke")
    count = sum(len(case.dtypes) for case in rows) * len(testing.LAYOUTS) * len(testing.isas())
    assert result.exit_code == 0 and f"{count} of {count} right on" in result.stdout
    assert report["right"] and report["counts"] == {"planned": count, "run": count, "failed": 0, "without_kernel": 0}
    taken = {path.split(":")[1] for row in report["rows"] for path in row["paths"]}
    assert taken == {testing.expected_path(isa) for isa in testing.isas()}
    assert f"({', '.join(map(testing.expected_path, testing.isas()))})" in result.stdout
    assert {row["case"] for row in report["rows"]} == {case.name for case in rows}
    assert {"machine", "torch", "triton", "fastseg", "commit"} <= report.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_rows_are_chosen_by_op_case_and_tag(run: Run) -> None:
    def cases(*options: str) -> set[str]:
        return {row["case"] for row in json.loads(run("selftest", *options, "--json").stdout)["rows"]}

    assert cases("--case", "sum", "--case", "labels_c127") == {
        "upsample_cross_entropy-sum",
        "confusion_matrix-labels_c127",
    }
    degenerate = {case.name for case in testing.find_cases("upsample_threshold", "degenerate")}
    assert cases("--op", "upsample_threshold", "--tag", "degenerate") == degenerate
    smoke = {case.name for case in testing.find_cases("upsample_threshold", "smoke")}
    assert cases("--op", "upsample_threshold") == cases("--op", "upsample_threshold", "--quick") == smoke


def test_a_broken_op_is_one_line_each_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    op = _registry.OPS["upsample_threshold"]
    monkeypatch.setitem(_registry.OPS, op.name, replace(op, overload=lambda *args: ~op.overload(*args)))
    result = run("selftest", "--op", "upsample_threshold", "--case", "fraction")
    *faults, verdict = result.stdout.splitlines()
    assert result.exit_code == 1
    assert faults[0].startswith("FAIL upsample_threshold-fraction float32 contiguous [upsample_threshold:")
    count = 16 * len(testing.isas())
    assert len(faults) == 21 and faults[20] == f"and {count - 20} more"
    assert verdict.startswith(f"0 of {count} right on ") and verdict.endswith(f"; {count} failed")


def test_a_result_that_changes_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(c for c in testing.find_cases("upsample_bilinear") if c.id == "x2")
    honest, calls = LOOP.run, 0

    def drifting(*args: object) -> Ran:
        nonlocal calls
        calls += 1
        got = honest(*args)
        return got if calls == 1 else replace(got, outputs=tuple(torch.nextafter(t, t + 1) for t in got.outputs))

    monkeypatch.setattr(LOOP, "run", drifting)
    path = testing.expected_path(testing.best_isa())
    (outcome,) = testing.selftest([case], path, dtypes=[torch.float32], repeat=unpoisoned)
    assert "a repeat: result 0[0, 0, 0, 0]" in outcome.fault and outcome.ran
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_nothing_is_run_after_an_error_that_breaks_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Ran:
        raise torch.AcceleratorError("an illegal memory access was encountered\nadvice")

    monkeypatch.setattr(LOOP, "run", broken)
    plan = installation.Plan(testing.find_cases("upsample_bilinear", "smoke"), "cpu")
    rows = list(testing.selftest(plan.rows, "cuda", layouts=None))
    assert len(rows) == 1 and "illegal memory access was encountered advice" in rows[0].fault
    found = installation.report(plan, rows)
    assert not found["right"] and found["counts"]["run"] == 1 < found["counts"]["planned"]


def test_rows_without_a_kernel_prove_nothing() -> None:
    rows = testing.find_cases("upsample_bilinear", "smoke")
    outcomes = [testing.Outcome(case.name, "float32", "contiguous", (), False, "") for case in rows]
    assert not installation.report(installation.Plan([], "cpu"), [])["right"]
    plan = installation.Plan(rows, "cpu")
    found = installation.report(plan, outcomes * (len(plan) // len(outcomes)))
    assert found["counts"]["without_kernel"] == found["counts"]["run"] == len(plan) and not found["right"]


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    yield monkeypatch


@pytest.mark.parametrize("verb", [["selftest"], ["bench", "upsample_argmax"]])
def test_without_cuda_in_torch(run: Run, verb: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    result = run(*verb, "--device", "cuda")
    said = f"error: this needs an NVIDIA GPU: torch {torch.__version__} is built without CUDA\n"
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", said)


@pytest.mark.parametrize("verb", [["selftest"], ["bench", "upsample_argmax"]])
@pytest.mark.parametrize(
    "raised, said",
    [
        (
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver "
            "from http://www.nvidia.com/Download/index.aspx",
            "Found no NVIDIA driver on your system",
        ),
        ("No CUDA GPUs are available", "No CUDA GPUs are available"),
    ],
)
def test_without_driver_or_device(
    run: Run, verb: list[str], raised: str, said: str, cuda_build: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError(raised)

    cuda_build.setattr(torch.cuda, "init", init)
    result = run(*verb, "--device", "cuda")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", f"error: this needs an NVIDIA GPU: {said}\n")


def test_a_driver_that_sees_no_device(cuda_build: pytest.MonkeyPatch) -> None:
    cuda_build.setattr(torch.cuda, "init", lambda: None)
    cuda_build.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpu.why_none() == "torch sees no CUDA device"
    cuda_build.setattr(torch.cuda, "device_count", lambda: 1)
    assert gpu.why_none() == ""


@pytest.mark.parametrize(
    "options, said",
    [
        (["--op", "upsample_cubic"], "no row of the table of cases"),
        (["-o", "nowhere/report.json"], "in a folder that exists"),
        (["-o", "."], "must be a file"),
        (["--device", "tpu"], "'tpu' is not one of"),
    ],
)
def test_mistakes(run: Run, options: list[str], said: str) -> None:
    result = run("selftest", *options)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
