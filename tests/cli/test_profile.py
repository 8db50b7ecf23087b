"""`fastseg profile` attributes time and work to the right stage, for models of any origin."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from typer.testing import Result

from fastseg.profiler.models import OUR_STAGES, Target, resolve
from fastseg.profiler.report import measure
from fastseg.profiler.stages import LABELS, Pass, Recorder, allocator_peak

Run = Callable[..., Result]

SOURCE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))

def wrong():
    return 3

def broken():
    raise RuntimeError("no such weights")
"""


class Resizing(nn.Module):
    """Ends with an interpolation to the input's size, inside a child, as the heads of other libraries do."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 16, 4, stride=4)
        up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=align_corners)
        self.head = nn.Sequential(nn.Conv2d(16, 5, 1), up)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(F.interpolate(self.backbone(x), scale_factor=1.0, mode="nearest"))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    return tmp_path / "net.py"


def test_json(run: Run, source: Path) -> None:
    report = json.loads(run("profile", f"{source}:build", "--size", "32x48", "--seconds", 0, "--json").stdout)
    assert set(report) == {
        "model", "size", "threads", "total", "peak_bytes", "ceiling_flops", "stages", "replacement",
    }  # fmt: skip
    assert report["size"] == [32, 48] and report["total"]["rounds"] == 3
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert {"0", "1", "2", LABELS} <= set(stages)
    assert stages["0"]["flops"] == 2 * 27 * 8 * 8 * 12 and stages["0"]["parameters"] == 27 * 8 + 8
    assert stages["0"]["activation_bytes"] >= 4 * 8 * 8 * 12
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1)
    last = report["replacement"]
    assert last["labels"] == 32 * 48 and not last["in_use"] and last["labels_different"] <= 2
    assert last["fused_peak_bytes"] < last["plain_peak_bytes"] or last["path"] == "reference"


def test_table_chart_and_trace(run: Run, source: Path, tmp_path: Path) -> None:
    chart, trace = tmp_path / "chart.png", tmp_path / "trace.json"
    model = f"{source}:build"
    result = run("profile", model, "--size", "32x32", "--seconds", 0, "-o", chart, "--trace", trace)
    assert result.exit_code == 0 and LABELS in result.stdout and "upsample_argmax" in result.stdout
    with Image.open(chart) as image:
        assert image.width > 800 and len(image.convert("RGB").getcolors(1 << 24)) > 20
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"0", "1", "2", LABELS, "aten::conv2d"} <= names


def test_our_model_is_backbone_head_and_fused_labels(run: Run, network: nn.Module) -> None:
    report = measure(Target("tiny", network, OUR_STAGES, fused=True), (64, 48), seconds=0)
    assert [stage.name for stage in report.stages] == ["head", "backbone", LABELS]
    assert report.replacement is not None and report.replacement.in_use
    assert sum(stage.parameters for stage in report.stages) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("align_corners", [False, True])
def test_resize_inside_the_model_is_found_and_taken_out_of_its_stage(align_corners: bool) -> None:
    model, x = Resizing(align_corners).eval(), torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        way = Pass(model, x, {})
        assert way.inside == 1 and way.resize is not None
        assert way.resize.size == (32, 48) and way.resize.align_corners == align_corners
        torch.testing.assert_close(way.resize.plain(), model(x)["out"].argmax(1))
        spent = way.activation_bytes()
    assert spent["head"] == 4 * 5 * 8 * 12 and spent[LABELS] >= 4 * 5 * 32 * 48


def test_recorder_charges_the_innermost_stage() -> None:
    clock = iter(range(100))
    inner = nn.Identity()
    model = nn.Sequential(nn.Identity(), nn.Sequential(inner, nn.Identity()))
    with Recorder(model, {"1": "rest"}, lambda: next(clock)) as recorder:
        model(torch.zeros(1))
        recorder.begin("after")
        recorder.end()
    assert recorder.totals == {"0": 1, "rest": 1, "after": 1, "other": 4}


def test_allocator_peak_counts_what_is_held_at_once() -> None:
    def work() -> None:
        first = torch.empty(1000, dtype=torch.uint8)
        del first
        _ = torch.empty(3000, dtype=torch.uint8), torch.empty(4000, dtype=torch.uint8)

    assert allocator_peak(work) == 7000


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nonsense", "model must be one of deeplab_v3_plus"),
        ("nowhere.py:build", "existing file"),
        ("{source}:absent", "no such function"),
        ("{source}:wrong", "nn.Module, got int"),
        ("{source}:broken", "RuntimeError: no such weights"),
    ],
)
def test_mistakes(run: Run, source: Path, model: str, said: str) -> None:
    result = run("profile", model.format(source=source))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and said in result.stderr


@pytest.mark.parametrize("option", [["-o", "x.jpg"], ["-o", "nowhere/x.png"], ["--trace", "nowhere/x.json"]])
def test_files_that_cannot_be_written(run: Run, source: Path, option: list[str]) -> None:
    result = run("profile", f"{source}:build", *option)
    assert result.exit_code == 2 and "in a folder that exists" in result.stderr


@pytest.mark.parametrize(
    ("model", "package"), [("torchvision:fcn_resnet50", "torchvision"), ("smp:Unet", "segmentation-models-pytorch")]
)
def test_absent_package(run: Run, model: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.profiler.models.importlib.util.find_spec", lambda name: None)
    result = run("profile", model)
    assert result.exit_code == 2 and f"{package} must be installed" in result.stderr


def test_image_that_the_model_cannot_take(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef f():\n    return nn.Conv2d(5, 5, 1)\n")
    result = run("profile", f"{tmp_path / 'net.py'}:f", "--size", "8x8")
    assert result.exit_code == 2 and "model must run on 1x3x8x8" in result.stderr


def test_torchvision_without_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The CPU build of torch beside a torchvision for CUDA: the missing ops are declared and the import repeated."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\n"
        "torch.library.register_fake('torchvision::nms')(lambda dets, scores, iou: None)\n"
        "from . import models\n"
    )
    (package / "models.py").write_text(
        "from torch import nn\n"
        "segmentation = object()\n"
        "def list_models(module=None):\n    return ['fcn_resnet50']\n"
        "def get_model(name, **options):\n    return nn.Conv2d(3, options['num_classes'], 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loaded = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    kept: dict[str, ModuleType] = {name: sys.modules.pop(name) for name in loaded}
    try:
        model = resolve("torchvision:fcn_resnet50", 4).model
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules.update(kept)
    assert model(torch.zeros(1, 3, 2, 2)).shape[1] == 4
