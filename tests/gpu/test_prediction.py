"""Predicted times follow the model that they state, and are never taken for measured ones."""

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fastseg.cli.main import app
from fastseg.testing import find_cases
from fastseg.testing.contenders import OURS, contender
from fastseg.testing.ladder import static, toolchain
from fastseg.testing.ladder.devices import DEVICES, find_device
from fastseg.testing.ladder.kernels import on_gpu
from fastseg.testing.ladder.prediction import ATTAINABLE, LAUNCH, TENSOR, kernels_of, predict

Row = dict[str, Any]
CASE = next(c for c in find_cases("upsample_bilinear") if c.id == "cityscapes_smooth")
ARGMAX = next(c for c in find_cases("upsample_argmax") if c.id == "cityscapes_smooth")


def row(kernel: str, op: str, **facts: Any) -> Row:
    plain = {"arch": 90, "occupancy": 1.0, "loop_instructions": 100, "loop_flops": 100}
    return {"kernel": kernel, "ops": [op], **plain, **facts}


def test_bytes_and_flops_are_those_of_the_measured_rows() -> None:
    case = next(c for c in find_cases("upsample_bilinear") if c.id == "voc_smooth")
    for mode in ("forward", "backward"):
        counted = contender(case, OURS, mode, torch.float16, "contiguous")
        told = predict(case, mode, torch.float16, "T4", ())
        assert (told.bytes, told.flops) == (counted.bytes, 6 * 21 * 513 * 513)


def test_a_kernel_that_streams_is_bound_by_memory() -> None:
    told = predict(
        CASE, "forward", torch.float32, "H100 SXM", (row("upsample/bilinear<float32>", "upsample_bilinear"),)
    )
    moved = 4 * 19 * (128 * 256 + 1024 * 2048)
    assert told.bound == "memory" and told.bytes == moved
    assert told.ms == pytest.approx(1e3 * (moved / (3350e9 * ATTAINABLE) + LAUNCH))


def test_low_occupancy_and_more_launches_cost_time() -> None:
    def of(*rows: Row) -> float:
        return predict(CASE, "forward", torch.float32, "H100 SXM", rows).ms

    full = row("upsample/bilinear<float32>", "upsample_bilinear")
    assert of({**full, "occupancy": 0.125}) > 3 * of(full)
    again = row("upsample/finish<float32>", "upsample_bilinear")
    assert of(full, again) == pytest.approx(of(full) + 1e3 * LAUNCH)
    assert of(full, {**full, "kernel": "upsample/bilinear<float32,odd>"}) == of(full)


def test_instructions_around_the_arithmetic_cost_time() -> None:
    def of(**facts: Any) -> Any:
        return predict(ARGMAX, "forward", torch.float32, "H100 SXM", (row("a<float32>", "upsample_argmax", **facts),))

    lean, laden = of(loop_flops=200), of(loop_flops=20)
    assert lean.bound == laden.bound == "compute"
    assert laden.ms - 1e3 * LAUNCH == pytest.approx(10 * (lean.ms - 1e3 * LAUNCH), rel=0.05)


def test_tensor_cores_count_where_a_kernel_has_them() -> None:
    case = next(c for c in find_cases("atrous_conv2d") if c.id == "c512_64_r2")
    gemm = {"tensor_cores": 4, "dynamic": 96 << 10, "threads": 256, "occupancy": 0.125}
    for dtype, rate in ((torch.float16, 1.0), (torch.float32, 0.5)):
        name = str(dtype).removeprefix("torch.")
        rows = row(f"a/gemm<{name}>", case.op, **gemm), row(f"a/other<{name}>", case.op)
        told = predict(case, "forward", dtype, "H100 SXM", rows)
        assert told.kernels == (f"a/gemm<{name}>",) and told.bound == "compute"
        flops = 2 * 64 * 64 * 9 * 512 * 512
        assert told.ms == pytest.approx(1e3 * (flops / (989e12 * TENSOR * rate) + LAUNCH))
        assert predict(case, "forward", dtype, "H100 SXM", rows[1:]).ms > 5 * told.ms


def test_doubles_are_slower_where_the_device_is() -> None:
    fast, slow = (predict(ARGMAX, "forward", torch.float64, name, ()).ms for name in ("A100-80", "RTX 3090"))
    assert slow > 5 * fast


def test_kernels_are_found_by_op_dtype_and_architecture() -> None:
    rows = (
        row("u/a<float32,StoreLabels>", "upsample_argmax"),
        row("u/a<float16,Store<float16>>", "upsample_argmax"),
        row("u/count", "upsample_argmax"),
        row("u/a<float32,Count>", "other"),
        row("u/a<float32,Old>", "upsample_argmax", arch=80),
    )
    found = kernels_of(("upsample_argmax",), torch.float32, 90, rows)
    assert [r["kernel"] for r in found] == ["u/a<float32,StoreLabels>", "u/count"]


def test_every_op_with_a_timed_row_has_kernels_in_the_stored_rows() -> None:
    for case in on_gpu(find_cases(None, "bench")):
        for mode in ("forward", "backward") if case.grad else ("forward",):
            assert predict(case, mode, torch.float32, "H100 SXM").kernels, f"{case.name} {mode}"


def test_the_report_prints_rows_and_predictions() -> None:
    runner = CliRunner()
    rows = json.loads(runner.invoke(app, ["gpu-report", "--json", "--arch", "90"]).stdout)
    assert rows == [r for r in static.load() if r["arch"] == 90]
    assert "upsample/argmax" in runner.invoke(app, ["gpu-report", "--kernel", "upsample/argmax*"]).stdout
    command = ["gpu-report", "--predict", "--device", "Tesla T4", "--json"]
    told = json.loads(runner.invoke(app, command).stdout)
    assert {p["device"] for line in told for p in line["predicted"]} == {"T4"}
    assert "nothing of this is measured" in " ".join(runner.invoke(app, command[:-1]).stdout.split())


@pytest.mark.parametrize(
    "wrong", [["--arch", "91"], ["--kernel", "nothing*"], ["--predict", "--device", "GPU"], ["--accept"],
              ["--device", "T4"],
              ["--predict", "--dtype", "int8"]],
)  # fmt: skip
def test_wrong_calls_of_the_report_are_refused(wrong: list[str]) -> None:
    assert CliRunner().invoke(app, ["gpu-report", *wrong]).exit_code == 2


def test_a_missing_tool_is_one_line_and_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(languages: object) -> None:
        raise toolchain.MissingTool("nvcc was not found (the CUDA toolkit has it)")

    monkeypatch.setattr(toolchain, "require", missing)
    done = CliRunner().invoke(app, ["gpu-report", "--compile"])
    assert done.exit_code == 3 and done.stderr == "error: nvcc was not found (the CUDA toolkit has it)\n"


@pytest.mark.parametrize("fault", [True, False])
def test_rows_are_written_only_where_every_gate_holds(monkeypatch: pytest.MonkeyPatch, fault: bool) -> None:
    saved: list[list[Row]] = []
    report = static.Report(rows=[{"kernel": "k"}], faults=["k sm_75: uses local memory"] * fault)
    monkeypatch.setattr(toolchain, "require", lambda languages: None)
    monkeypatch.setattr(static, "check", lambda *_, **__: report)
    monkeypatch.setattr(static, "save", saved.append)
    done = CliRunner().invoke(app, ["gpu-report", "--compile", "--json", "--predict", "--device", "T4"])
    assert done.exit_code == int(fault) and saved == ([] if fault else [report.rows])
    assert ("FAIL k sm_75: uses local memory\n" in done.stderr) == fault


def test_every_device_says_where_its_figures_stand() -> None:
    assert len({device.name for device in DEVICES}) == len(DEVICES)
    assert all(device.source and find_device(device.name) == device for device in DEVICES)
