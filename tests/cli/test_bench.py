"""`fastseg bench`: the gate, the timing by events with a cold cache, and the rows; the GPU is a stand-in."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from fastseg import testing
from fastseg.profiler import gpu, measure
from fastseg.profiler.measure import Ceilings
from fastseg.testing import bed as beds
from fastseg.testing.bed import Bed, cpu_bed
from fastseg.testing.bench import measure_row
from fastseg.testing.contenders import OURS
from fastseg.testing.results import key_of, store

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]
CASE = next(case for case in testing.find_cases("upsample_bilinear") if case.id == "x2")
FACTS = {"cpu": "host x2", "device": "GPU 1", "driver": "580.1", "cuda": "13.0", "clocks": "SM 1 of 2 MHz"}


class Stream:
    """A stream that takes 5 ms to flush and 2 ms for each call, and writes down what happened."""

    def __init__(self) -> None:
        self.ms, self.log = 0.0, list[str]()

    def flush(self) -> None:
        self.ms += 5
        self.log.append("flush")

    def call(self) -> None:
        self.ms += 2
        self.log.append("call")

    def event(self) -> "StreamEvent":
        return StreamEvent(self)


class StreamEvent:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.at = stream, float("nan")

    def record(self) -> None:
        self.at = self.stream.ms
        self.stream.log.append("record")

    def synchronize(self) -> None:
        self.stream.log.append("wait")

    def elapsed_time(self, end: "StreamEvent") -> float:
        return end.at - self.at


def test_every_call_is_timed_behind_its_own_flush_and_without_it() -> None:
    stream = Stream()
    clock = gpu.EventClock(stream.event, stream.flush)
    timings = measure.interleaved(
        {"a": stream.call, "b": lambda: (stream.call(), stream.call())},
        seconds=0,
        min_rounds=3,
        warmup=1,
        clock=clock,
    )
    assert timings == {"a": measure.Timing(2.0, 2.0, 2.0, 3), "b": measure.Timing(4.0, 4.0, 4.0, 3)}
    once = ["flush", "record", "call", "record", "wait"]
    twice = ["flush", "record", "call", "call", "record", "wait"]
    assert stream.log == ["call"] * 3 + 3 * (once + twice)


def test_rounds_go_in_turns_and_give_median_and_fifths() -> None:
    order: list[str] = []
    taken = iter([9e-3, 1e-3, 9e-3, 2e-3, 9e-3, 3e-3, 9e-3, 4e-3, 9e-3, 5e-3, 9e-3, 6e-3])

    def clock(function: Callable[[], Any]) -> float:
        function()
        return next(taken)

    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = measure.interleaved(calls, seconds=0, min_rounds=6, warmup=0, clock=clock)
    assert order == ["a", "b"] * 6
    assert timings["a"].ms == pytest.approx(9) and timings["b"].ms == pytest.approx(3.5)
    assert (timings["b"].ms20, timings["b"].ms80) == pytest.approx((2, 5))


@pytest.fixture
def bed() -> Bed:
    """The CPU in the GPU's clothes: every call takes 1 ms, and nothing can be faster than 0.25 ms."""

    def clock(function: Callable[[], Any]) -> float:
        function()
        return 1e-3

    return replace(
        cpu_bed(1),
        isas=("sm_90", "sm_90"),
        clock=clock,
        warmup=0,
        ceilings=lambda dtype: Ceilings(4e3 * 4 * (2 * 3 * 5 * 7 + 2 * 3 * 10 * 14), 1e30),
        peak=lambda call, arguments: 3 << 20,
        predict=lambda case, mode, dtype: {"predicted_ms": 0.5, "bound": "memory"},
        facts=lambda: dict(FACTS),
    )


def test_rows_have_the_columns_of_the_recorded_ones_and_the_device(bed: Bed) -> None:
    rows = measure_row(CASE, bed=bed, seconds=0, compiled=False)
    recorded = json.loads((ROOT / "benchmarks/results/upsample.jsonl").read_text().splitlines()[0])
    assert [row["backend"] for row in rows] == [OURS, "eager", "eager channels_last"]
    for row in rows:
        assert row.keys() == recorded.keys() | FACTS.keys() | {"predicted_ms", "bound"}
        assert (row["ms"], row["ms20"], row["ms80"], row["isa"]) == (1.0, 1.0, 1.0, "sm_90")
        assert row["share_of_ceiling"] == 0.25 and row["threads"] == 1
        assert row["bytes"] == 4 * (2 * 3 * 5 * 7 + 2 * 3 * 10 * 14)
    assert [row["predicted_ms"] for row in rows] == [0.5, None, None]
    assert [row["peak_mib"] for row in rows] == [3.0, 3.0, None]
    assert [row["path"] for row in rows] == [testing.expected_path(testing.best_isa()), "aten", "aten"]


def test_the_path_of_a_row_is_what_the_timed_call_took(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward in Triton and a backward in CUDA are both named."""
    path = {"upsample_bilinear": "triton", "upsample_bilinear_backward": "cuda"}

    class Trace:
        def __enter__(self) -> list[str]:
            return [f"{op}:{where}" for op, where in path.items()]

        def __exit__(self, *_: object) -> None: ...

    for place in ("testing.bench", "_trace"):
        monkeypatch.setattr(f"fastseg.{place}.trace", Trace)
    rows = measure_row(CASE, "both", bed=replace(bed, path=path.__getitem__), seconds=0, compiled=False)
    assert rows[0]["path"] == "triton+cuda"


@pytest.fixture
def with_gpu(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Bed:
    monkeypatch.setattr(gpu, "why_none", lambda: "")
    monkeypatch.setattr(beds, "cuda_bed", lambda threads: bed)
    return bed


BENCH = ("bench", "upsample_bilinear", "--device", "cuda", "--case", "x2", "--seconds", 0, "--no-compiled")


def test_the_page_names_gpu_prediction_and_share(run: Run, with_gpu: Bed) -> None:
    said = run(*BENCH).stdout
    assert "env     GPU 1, driver 580.1, host x2 sm_90 " in said and "| SM 1 of 2 MHz\n" in said
    assert "predict 0.500 ms, bound by memory: 50 % of the time measured\n" in said
    assert "eager channels_last" in said and " 25.0\n" in said


def test_a_gpu_that_no_table_knows_has_no_prediction(run: Run, with_gpu: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    none = {"predicted_ms": None, "bound": None}
    unknown = replace(with_gpu, predict=lambda *_: none, ceilings=lambda dtype: None)
    monkeypatch.setattr(beds, "cuda_bed", lambda threads: unknown)
    said = run(*BENCH).stdout
    assert "predict none: GPU 1 is not in the table of devices\n" in said and " 25.0" not in said


def test_what_the_table_of_devices_says() -> None:
    pytest.importorskip("fastseg.testing.ladder.prediction")
    assert beds.stated("No such GPU", torch.float32) is None
    assert beds.predicted("No such GPU", CASE, "forward", torch.float32) == {"predicted_ms": None, "bound": None}
    name = "NVIDIA H100 80GB HBM3"
    single, double = beds.stated(name, torch.float32), beds.stated(name, torch.float64)
    assert single and double and single.bytes_per_second == double.bytes_per_second > 3e12
    assert 5e13 < single.flops_per_second == 2 * double.flops_per_second
    found = beds.predicted(name, CASE, "forward", torch.float32)
    assert found["predicted_ms"] > 0 and found["bound"] in ("memory", "compute")


def test_submitted_rows_are_appended_once(run: Run, with_gpu: Bed, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    run(*BENCH, "--submit", file)
    first = [json.loads(line) for line in file.read_text().splitlines()]
    run(*BENCH, "--submit", file)
    run(*BENCH, "--mode", "backward", "--submit", file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(first) == 3 and [row["mode"] for row in rows] == ["forward"] * 3 + ["backward"] * 3
    assert list(map(key_of, rows[:3])) == list(map(key_of, first))
    assert run(*BENCH, "--submit", tmp_path / "nowhere" / "rows.jsonl").exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "options, said",
    [
        (["confusion_matrix", "--case", "labels_square"], "--dtype must be one of uint8, int8"),
        (["upsample_argmax", "--case", "no_pixels"], "upsample_argmax-no_pixels must run"),
        (["upsample_argmax", "--case", "x2", "--layout", "rows"], "got rows"),
        (["upsample_argmax", "--case", "x2", "--mode", "sideways"], "--mode must be forward"),
        (["upsample_argmax", "--case", "x2", "--submit", __file__], "must be a file of JSON lines"),
        (["upsample_argmax", "--case", "x2", "--submit", Path(__file__).parent], "must be a file in a folder"),
    ],
)
def test_mistakes(run: Run, options: list[Any], said: str) -> None:
    result = run("bench", *options, "--seconds", "0", "--no-compiled")
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_another_gpu_is_another_row(tmp_path: Path) -> None:
    row = dict.fromkeys(("op", "case", "mode", "backend", "isa", "threads", "dtype", "layout", "cpu"), "x")
    for device in ("GPU 1", "GPU 2"):
        store(tmp_path / "rows.jsonl", [{**row, "device": device}])
    store(tmp_path / "rows.jsonl", [row, row])
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_a_wrong_path_shows_no_speed(run: Run, with_gpu: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beds, "cuda_bed", lambda threads: replace(with_gpu, path=lambda op: "cuda"))
    result = run(*BENCH, "--submit", tmp_path / "rows.jsonl")
    taken = testing.expected_path(testing.best_isa())
    assert result.exit_code == 2 and result.stdout == "" and list(tmp_path.iterdir()) == []
    assert (
        "FAIL, so no speed is shown: expected cuda" in result.stderr and f"upsample_bilinear:{taken}" in result.stderr
    )


def test_clocks_and_driver_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        uuid = "0"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: Properties)
    monkeypatch.setenv("PATH", "")
    assert gpu.clocks() == "SM unknown of unknown MHz, memory unknown of unknown MHz"


def test_clocks_are_those_that_nvidia_smi_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Properties:
        uuid = "0a1b"

    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\n[ "$1" = --id=GPU-0a1b ] && echo "1755, 1980, 2619, 2619"\n')
    smi.chmod(0o755)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: Properties)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.clocks() == "SM 1755 of 1980 MHz, memory 2619 of 2619 MHz"
