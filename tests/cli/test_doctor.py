"""`fastseg doctor` tells what would run here, and why."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from typer.testing import Result

import fastseg
from fastseg import _config, _native, _registry, _triton
from fastseg._registry import OPS

Run = Callable[..., Result]


def test_table_names_every_op_and_ends_with_the_verdict(run: Run) -> None:
    shown = run("doctor").stdout
    assert all(name in shown for name in OPS)
    assert shown.strip().splitlines()[-1].startswith(("All well", "Mostly well", "Right but slow"))


def test_json(run: Run) -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert set(report) == {"facts", "ops", "native", "backend", "verdict"}
    assert set(report["facts"]) == {"Machine", "Python", "Native library", "CUDA", "Environment"}
    assert set(report["ops"]) == set(OPS) and report["native"] == _native.loaded
    expected = f"cpu/{_native.cpu_isa()}" if _native.loaded else "reference"
    assert {op["path"] for op in report["ops"].values()} <= {expected, "reference"}


def test_cuda_is_what_torch_sees_and_what_this_release_has(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    without = json.loads(run("doctor", "--json").stdout)["facts"]["CUDA"]
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    given = json.loads(run("doctor", "--json").stdout)["facts"]["CUDA"]
    assert (without["torch built for"], without["GPUs torch sees"]) == ("no CUDA", "none")
    assert (given["torch built for"], given["GPUs torch sees"]) == ("CUDA 12.8", ["GPU 0", "GPU 1"])


def test_every_op_is_told_its_kernel_on_cuda(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> tuple[Any, ...]:
        facts = json.loads(run("doctor", "--json").stdout)["facts"]["CUDA"]
        return facts["Triton kernels"], facts["compiled kernels"], facts["by reference"]

    triton = sorted(name for name, op in OPS.items() if op.triton)
    others = sorted(OPS.keys() - set(triton))
    monkeypatch.setattr(_triton, "why_not", "triton is not installed")
    monkeypatch.setattr(_native, "cuda_why_not", "it was not built")
    monkeypatch.setattr(_registry, "has_kernel", lambda name, key: key == "CPU")
    assert told() == ("none: triton is not installed", "none: it was not built", sorted(OPS))
    monkeypatch.setattr(_triton, "why_not", "")
    assert told() == (triton, "none: it was not built", others)
    monkeypatch.setattr(_registry, "has_kernel", lambda name, key: True)
    assert told() == (triton, others, "none")


def test_reference_backend(run: Run) -> None:
    with fastseg.backend("reference"):
        report = json.loads(run("doctor", "--json").stdout)
    assert report["backend"] == "reference" and "reference is asked for" in report["verdict"]
    assert {op["path"] for op in report["ops"].values()} == {"reference"}


def test_without_the_library(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "loaded", False)
    monkeypatch.setattr(_native, "why_not", "it was not built")
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["native"] is False and report["verdict"].startswith("Right but slow")
    assert report["facts"]["Native library"]["loaded"] == "no: it was not built"
    assert all(
        op["path"] == "reference" and op["reasons"]["native"] == ["it was not built"] for op in report["ops"].values()
    )


def test_a_backend_that_cannot_run(run: Run) -> None:
    with fastseg.backend("cuda"):
        result = run("doctor", "--json")
    assert result.exit_code == 2 and json.loads(result.stdout)["verdict"].startswith("Not working")


def test_native_asked_for_without_the_library(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "loaded", False)
    monkeypatch.setattr(_native, "why_not", "it is damaged")
    with fastseg.backend("native"):
        result = run("doctor")
    assert result.exit_code == 2 and result.stdout.count("no: it is damaged") == 1
    assert result.stdout.splitlines()[-1].startswith("Not working: backend 'native' is asked for")


@pytest.mark.parametrize("variable", ["FASTSEG_BACKEND", "FASTSEG_CPU_ISA"])
def test_a_wrong_variable_is_one_line_of_the_table(run: Run, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "bogus")
    monkeypatch.setenv("COLUMNS", "140")
    if variable == "FASTSEG_BACKEND":
        fault = "must be one of auto, reference, native, triton, cuda, got 'bogus'"
        monkeypatch.setattr(_config, "_backend", "bogus")
    else:
        fault = "must be one of base here, got 'bogus'"
        monkeypatch.setattr(_native, "isa_fault", f"fastseg::cpu_isa: {variable} {fault}")
    shown, as_json = run("doctor"), run("doctor", "--json")
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [variable, *fault.split()] in lines
    report = json.loads(as_json.stdout)
    assert report["facts"]["Environment"][variable] == fault
    assert report["verdict"] == f"Not working: {variable} {fault}." == shown.stdout.splitlines()[-1]
    assert {op["path"] for op in report["ops"].values()} == {"none"}
    assert shown.exit_code == as_json.exit_code == 2
    with fastseg.backend("reference"):
        assert run("doctor").exit_code == 0
