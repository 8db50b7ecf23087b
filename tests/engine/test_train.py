"""Training: resuming is exact, checkpoints are atomic, the schedule and the command line are as documented."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from fastseg.cli import main
from fastseg.data.datasets import open_dataset
from fastseg.data.transforms import PersonAugment
from fastseg.engine import Recipe, train
from fastseg.engine.train import TrainingStream, float32_depthwise, parameter_groups
from fastseg.metrics import names
from fastseg.models import DeepLabV3Plus, create_model, read_weights
from fastseg.nn import conv_bn_act

SIZES = ((32, 24), (24, 40))


class TinyBackbone(nn.Module):
    low_level_channels, out_channels = 8, 8

    def __init__(self):
        super().__init__()
        self.low = conv_bn_act(3, 8, 5, stride=4)
        self.high = conv_bn_act(8, 8, 3, stride=4, groups=8)

    def forward(self, x):
        low = self.low(x)
        return low, self.high(low)


def tiny_model():
    torch.manual_seed(1)
    return DeepLabV3Plus(TinyBackbone(), 3, rates=(1,))


class Figures(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        labels = np.zeros((60, 40), np.uint8)
        labels[10:50, 10 + index : 25] = 1
        labels[10:16, 12 + index : 25] = 2
        return np.random.default_rng(index).integers(0, 99, (60, 40, 3), np.uint8) + 70 * labels[..., None], labels


def run(folder, recipe, **options):
    checkpoint = folder / "checkpoint.safetensors"
    return train(tiny_model(), Figures(), PersonAugment(), recipe, checkpoint, workers=0, progress=False, **options)


@pytest.mark.parametrize("bf16", [False, True])
def test_resuming_is_exact(tmp_path, bf16):
    recipe = Recipe(4, 2, SIZES, warmup=1, seed=5, bf16=bf16, class_weights=(1.0, 2.0, 3.0))
    whole = run(tmp_path / "whole", recipe)
    run(tmp_path / "parts", recipe, stop_after=1)
    run(tmp_path / "parts", recipe, stop_after=3)
    parts = run(tmp_path / "parts", recipe)
    for (key, value), other in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    assert not whole.training
    assert all("forward" not in vars(module) for module in whole.modules())


def test_training_learns_and_depends_on_the_seed(tmp_path):
    reached = []
    first = run(tmp_path / "a", Recipe(24, 4, SIZES, lr=1e-2, warmup=2), save_every=4, log=reached.append)
    losses = [milestone.loss for milestone in reached]
    assert losses[-1] < losses[0]
    other = run(tmp_path / "b", Recipe(1, 2, SIZES, seed=1))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_a_finished_run_is_not_trained_further(tmp_path):
    recipe = Recipe(2, 2, SIZES)
    first, again = run(tmp_path, recipe), run(tmp_path, recipe)
    assert torch.equal(first.classifier.weight, again.classifier.weight)


def test_checkpoint_is_one_file_and_guards_its_recipe(tmp_path):
    run(tmp_path, Recipe(2, 2, SIZES))
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    with pytest.raises(ValueError, match=r"recipe must be the checkpoint's, got one that had lr=0.001"):
        run(tmp_path, Recipe(2, 2, SIZES, lr=0.5))


def test_schedule():
    recipe = Recipe(steps=100, warmup=10, power=0.9)
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(50) == pytest.approx(0.5**0.9)
    assert recipe.rate(100) == 0


def test_parameter_groups():
    model = tiny_model()
    groups = parameter_groups(model, Recipe(lr=1.0, backbone_lr=0.5, weight_decay=0.1))
    kind = {id(p): (group["base_lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(kind) == len(list(model.parameters()))
    assert kind[id(model.backbone.low[0].weight)] == (0.5, 0.1)
    assert kind[id(model.backbone.high[0].weight)] == (0.5, 0.0)
    assert kind[id(model.backbone.low[1].bias)] == (0.5, 0.0)
    assert kind[id(model.classifier.weight)] == (1.0, 0.1)


def test_float32_depthwise():
    model = tiny_model().backbone
    with float32_depthwise(model), torch.autocast("cpu", torch.bfloat16):
        assert model.high[0](torch.zeros(1, 8, 8, 8)).dtype == torch.float32
        assert model.low[0](torch.zeros(1, 3, 8, 8)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert model.high[0](torch.zeros(1, 8, 8, 8)).dtype == torch.bfloat16


def test_stream():
    seen = []
    recipe = Recipe(batch_size=3, sizes=SIZES, seed=3)
    stream = TrainingStream(Figures(), lambda sample, size, *_: seen.append((sample[1].sum(), size)) or sample, recipe)
    for n in range(30):
        stream[n]
    # Every photo once an epoch, one size a batch, and both sizes in use.
    photos, sizes = zip(*seen, strict=True)
    assert sorted(photos[:5]) == sorted(photos[5:10]) == sorted(Figures()[index][1].sum() for index in range(5))
    assert all(len(set(sizes[first : first + 3])) == 1 for first in range(0, 30, 3))
    assert set(sizes) == set(SIZES)


def test_frozen_modules_stay_as_they_are(tmp_path):
    start = tiny_model().state_dict()
    trained = run(tmp_path, Recipe(2, 2, SIZES, frozen=("backbone.low",)))
    changed = {key for key, value in trained.state_dict().items() if not torch.equal(value, start[key])}
    assert not any(key.startswith("backbone.low") for key in changed)
    assert {"backbone.high.0.weight", "backbone.high.1.running_mean", "classifier.bias"} <= changed
    assert all(parameter.requires_grad for parameter in trained.parameters())
    with pytest.raises(ValueError, match=r"frozen must name modules of the model, got 'backbone.nothing'"):
        run(tmp_path, Recipe(2, 2, SIZES, frozen=("backbone.nothing",)))


def app(*arguments):
    return CliRunner().invoke(main.app, [str(argument) for argument in arguments])


@pytest.fixture
def ccp(tmp_path):
    root = tmp_path / "ccp"
    (root / "photos").mkdir(parents=True)
    (root / "labels").mkdir()
    for number in (1, 2, 3):
        image, labels = Figures()[number]
        Image.fromarray(image).save(root / "photos" / f"{number:04}.jpg")
        Image.fromarray(np.array([0, 41, 19], np.uint8)[labels]).save(root / "labels" / f"{number:04}.png")
    return root


def test_command_line(ccp, tmp_path):
    options = (
        "--steps",
        1,
        "--batch-size",
        2,
        "--sizes",
        "32x32",
        "--longer-side",
        64,
        "--workers",
        0,
        "--no-progress",
    )
    result = app("train", "--data", f"ccp:{ccp}", "--out", tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    weights = tmp_path / "run" / "weights.safetensors"
    assert f"fastseg eval run/{weights.name}" in (Path(__file__).parents[2] / "README.md").read_text()
    assert read_weights(weights)[1]["arguments"]["longer_side"] == 64
    assert create_model("deeplab_v3_plus", weights).classes[2] == "hair"
    result = app("eval", weights, "--data", f"ccp:{ccp}", "--json")
    assert result.exit_code == 0, result.output
    assert '"photos": 1' in result.output
    assert app("eval", weights, "--data", f"ccp:{ccp}").exit_code == 0
    assert_metrics_by_name(weights, ccp, json.loads(result.output))


def assert_metrics_by_name(weights, ccp, default):
    every = [*names.OF_MATRIX, *names.OF_IMAGES]
    result = app("eval", weights, "--data", f"ccp:{ccp}", "--json", "--metrics", ", ".join([*every, "iou"]))
    assert result.exit_code == 0, result.output
    assert "NaN" not in result.output and "Infinity" not in result.output
    report = json.loads(result.output)
    assert list(report) == ["photos", *every, "empty"] and list(report["empty"]) == list(names.OF_IMAGES)
    assert {name: report[name] for name in default} == default
    assert report["dice"].keys() == report["iou"].keys() == set(open_dataset(f"ccp:{ccp}", "val").classes)
    assert report["per_image_mean_iou"] == pytest.approx(report["mean_iou"])  # of one photo
    assert report["empty"]["boundary_iou"] == report["empty"]["per_image_mean_iou"]
    shown = app("eval", weights, "--data", f"ccp:{ccp}", "--metrics", "boundary_f1,dice").output
    assert "boundary f1" in shown and "empty masks" in shown and "Dice hair" in shown and "pixel accuracy" not in shown


def test_json(ccp, tmp_path):
    command = ("train", "--data", f"ccp:{ccp}", "-o", tmp_path / "run", "--steps", 3, "--init", "none", "--json")
    small = ("--batch-size", 2, "--sizes", "32x32", "--longer-side", 64, "--workers", 0, "--save-every", 1)
    part, whole, again = app(*command, *small, "--stop-after", 1), app(*command, *small), app(*command, *small)
    assert [r.exit_code for r in (part, whole, again)] == [0, 0, 0], part.output + whole.output
    first, last, idle = (json.loads(r.stdout) for r in (part, whole, again))
    assert (first["steps"], last["steps"], idle["steps"]) == (1, 3, 3)
    assert first["loss"] > 0 and last["loss"] > 0 and idle["loss"] is None and first["seconds"] > 0
    assert part.stderr.startswith(f"step 1/3 loss {first['loss']:.4f} lr ") and whole.stderr.count("\n") == 2
    assert read_weights(first["weights"])[1]["steps"] == 3 and Path(last["checkpoint"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "voc:x"), "data must be ccp:PATH, got 'voc:x'"),
        (("--data", "ccp:/nowhere"), "root must hold photos/"),
        (("--sizes", "32x32,64"), "--sizes must be HEIGHTxWIDTH, got '64'"),
        (("--class-weights", "1,2"), "--class-weights must be 7 numbers, got 2"),
        (("--class-weights", "a"), "--class-weights must be numbers, got 'a'"),
        (("--backbone", "vgg"), "backbone must be one of"),
        (("--init", "missing.pth"), "weights must be a file"),
    ],
)
def test_bad_arguments_are_one_line(ccp, tmp_path, arguments, message):
    defaults = ("--data", f"ccp:{ccp}", "--out", tmp_path / "run", "--steps", 1)
    result = app("train", *defaults, *arguments)
    assert result.exit_code == 2
    lines = result.output.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("chosen", ["mean_iou,nothing", ""])
def test_eval_of_an_unknown_metric_lists_them(ccp, chosen):
    result = app("eval", "missing", "--data", f"ccp:{ccp}", "--metrics", chosen)
    assert result.exit_code == 2
    assert "metrics must be among pixel_accuracy, mean_accuracy, mean_iou" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_eval_of_missing_weights_is_one_line(ccp):
    result = app("eval", "missing", "--data", f"ccp:{ccp}")
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1
