"""The report of the benchmarks says what the rows say: goals met and missed, peak memory, and what was not measured."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fastseg.testing.contenders import OURS
from fastseg.testing.goals import GOALS, reason_for

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
KEYS = "backend", "ms", "ms20", "ms80", "peak_mib"


@pytest.fixture(scope="module")
def report() -> Any:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rows() -> list[Row]:
    """Every row that a goal speaks of: 100 times as fast as eager, with a hundredth of its memory."""
    same = {
        "dtype": "float32",
        "isa": "avx512",
        "threads": 2,
        "cpu": "this",
        "torch": "2",
        "dirty": False,
        "when": "2026-02-01",
    }
    need = {"bytes": 3_000_000, "flops": 70_000_000, "share_of_ceiling": 0.5}
    return [
        {
            "op": g.op,
            "mode": g.mode,
            "case": case.id,
            "layout": layout,
            **same,
            "threads": threads,
            **need,
            **dict(zip(KEYS, one, strict=True)),
        }
        for g in GOALS
        for case in g.cases()
        for layout in g.layouts
        for threads in g.threads
        for one in ((OURS, 1, 0.9, 1.1, 2.0), ("eager", 100, 90, 110, 200.0), ("torch.compile", 200, 190, 210, None))
    ]


def pick(rows: list[Row], op: str, case: str, backend: str = OURS) -> Row:
    return next(row for row in rows if (row["op"], row["case"], row["backend"]) == (op, case, backend))


def test_all_is_well(report: Any, rows: list[Row]) -> None:
    assert report.missing(rows) == [] and report.missed(rows) == "Every speed goal is met.\n"
    assert report.memory(rows).count("| 200.0 | 2.0 | 1.0 % | 5 %: met |") == 8
    assert "missed" not in report.report((ROOT / "README.md").read_text(), rows).split("bench:begin")[1]


def test_rows_of_a_gpu_and_of_no_device_are_left_out(report: Any, rows: list[Row], tmp_path: Path) -> None:
    gpu, counted = {**rows[0], "device": "GPU 1"}, {"kernel": "argmax", "arch": "sm_90", "registers": 32}
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (gpu, *rows, counted)))
    assert report.load(tmp_path) == rows


def test_of_several_instruction_sets_the_last_measured_one_counts(report: Any, rows: list[Row]) -> None:
    older = [{**row, "isa": "avx2", "ms": 1.0, "when": "2026-01-01"} for row in rows]
    newer = [{**row, "isa": "avx2", "ms": 1.0, "when": "2026-03-01"} for row in rows]
    assert report.contests(older + rows) == report.contests(rows + older) == report.contests(rows)
    assert report.contests(rows + newer) == report.contests(newer)


def test_rows_of_another_instruction_set_than_most_say_so(report: Any, rows: list[Row]) -> None:
    for row in rows:
        row["isa"] = "avx2" if (row["op"], row["case"]) == ("upsample_argmax", "voc_noise") else row["isa"]
    said = report.table(rows)
    assert "| voc_noise, avx2 |" in said and said.count("avx2") == 1 and "and avx512 or as is said" in said


def test_a_missed_goal_is_listed_with_its_needs_and_reason(report: Any, rows: list[Row]) -> None:
    pick(rows, "upsample_argmax", "voc_noise")["ms"] = 10.0
    pick(rows, "upsample_threshold", "batch_smooth")["ms"] = 101.0
    said = report.missed(rows)
    reason = reason_for("upsample_argmax", "voc_noise")
    assert f"- `upsample_argmax` forward, goal 12x: voc_noise 10.0x (3.0 MB, 70 MFLOP, 50 %). {reason}\n" in said
    assert "goal 10x: batch_smooth 1.0x (" in said and said.count("\n- ") == 2
    assert report.table(rows).count("**missed**") == 1 and report.table(rows).count("**loss**") == 1


def test_promises_of_several_rows_are_kept_together(report: Any, rows: list[Row]) -> None:
    said = report.across(rows)
    assert "geometric mean of 10 rows: 100.00x, goal 1.7x: met" in said and "**missed**" not in said
    pick(rows, "atrous_conv2d", "c512_64_r2_packed")["ms"] = 1e22
    pick(rows, "ksac_conv2d", "c2048_33_eight")["ms"] = 191.0
    said = report.across(rows)
    assert "geometric mean of 10 rows: 0.63x, goal 1.7x: **missed**" in said and said.count("**missed**") == 2
    assert "c2048_33_eight over the best rival's c2048_33_one: 1.91 times the time, goal 1.9: **missed**" in said
    assert report.across([row for row in rows if row["op"].startswith("upsample")]) == ""


def test_memory_over_the_promise_is_missed(report: Any, rows: list[Row]) -> None:
    pick(rows, "upsample_cross_entropy", "voc_smooth")["peak_mib"] = 10.4
    assert "| voc_smooth | 200.0 | 10.4 | 5.2 % | 5 %: **missed** |" in report.memory(rows)


def test_rows_that_a_goal_needs_are_missed(report: Any, rows: list[Row]) -> None:
    gone = pick(rows, "upsample_argmax", "voc_noise"), pick(rows, "upsample_softmax", "batch_smooth")
    assert report.missing([row for row in rows if all(row is not one for one in gone)]) == [
        "upsample_argmax forward voc_noise contiguous 2",
        "upsample_softmax forward batch_smooth contiguous 2",
    ]
    lonely = [row for row in rows if row["op"] != "confusion_matrix" or row["backend"] == OURS]
    assert len(report.missing(lonely)) == 6 and "`confusion_matrix`" not in report.table(lonely)
    pick(rows, "upsample_cross_entropy", "voc_smooth", "eager")["peak_mib"] = None
    assert report.missing(rows) == ["upsample_cross_entropy both voc_smooth contiguous 2 (peak memory)"]


def test_check_fails_where_a_row_is_missing(
    report: Any, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "gpu.md").write_text((ROOT / "docs" / "gpu.md").read_text())
    page = tmp_path / "README.md"
    page.write_text(report.report((ROOT / "README.md").read_text(), rows))
    monkeypatch.setattr(report, "load", lambda: rows)
    assert report.main(["--check"]) == 0
    page.write_text(page.read_text().replace("Every speed goal is met", "All is well"))
    assert report.main(["--check"]) == 1 and "README.md differs" in capsys.readouterr().err
    fewer = [row for row in rows if row["case"] != "logits_voc_noise"]
    page.write_text(report.report(page.read_text(), fewer))
    monkeypatch.setattr(report, "load", lambda: fewer)
    assert report.main(["--check"]) == 1
    assert "no row of confusion_matrix forward logits_voc_noise contiguous" in capsys.readouterr().err


def test_every_goal_has_a_reason_at_hand() -> None:
    assert all(reason_for(goal.op, case.id) for goal in GOALS if goal.speedup for case in goal.cases())
