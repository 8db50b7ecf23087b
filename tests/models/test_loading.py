"""Weights files: what is stored, what is refused, and how a mismatch reads."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from fastseg.models import create_model, deeplab_v3_plus, load_backbone, load_state, read_weights, save_weights


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return deeplab_v3_plus(num_classes=3, longer_side=40, classes=("a", "b", "c")).eval()


@pytest.fixture
def path(model, tmp_path):
    save_weights(model, tmp_path / "weights.safetensors", seed=7)
    return tmp_path / "weights.safetensors"


def test_round_trip(model, path):
    loaded = create_model("deeplab_v3_plus", path)
    assert not loaded.training
    assert (loaded.classes, loaded.preprocess) == (model.classes, model.preprocess)
    for key, value in loaded.state_dict().items():
        expected = model.state_dict()[key]
        assert value.dtype == expected.dtype
        torch.testing.assert_close(value, expected, rtol=2**-11, atol=2**-24)
    image = torch.randint(0, 256, (50, 33, 3), dtype=torch.uint8)
    assert (loaded.predict(image) == model.predict(image)).float().mean() > 0.98


def test_created_models_are_channels_last_and_say_the_same(model, path):
    loaded = create_model("deeplab_v3_plus", path)
    for created in (loaded, create_model("deeplab_v3_plus", num_classes=3)):
        kernels = [value for value in created.parameters() if value.ndim == 4]
        assert kernels and all(value.is_contiguous(memory_format=torch.channels_last) for value in kernels)
    planes = deeplab_v3_plus(num_classes=3).eval()
    load_state(planes, loaded.state_dict())
    image = torch.randn(1, 3, 40, 32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), planes(image), rtol=1e-4, atol=1e-5)


def test_file_is_half_and_describes_itself(path):
    assert {value.dtype for value in load_file(path).values() if value.ndim > 1} == {torch.float16}
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["fastseg"])
    assert description["arguments"]["classes"] == ["a", "b", "c"]
    assert description["preprocess"] == {"mean": [127.0] * 3, "std": [128.0] * 3, "longer_side": 40, "multiple": 16}
    assert description["seed"] == 7
    assert list(path.parent.iterdir()) == [path]


def test_arguments_win_over_the_file(path):
    assert create_model("deeplab_v3_plus", path, longer_side=64).preprocess.longer_side == 64


def test_plain_state_dict(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    create_model("deeplab_v3_plus", tmp_path / "weights.pth", num_classes=3)
    with pytest.raises(ValueError, match=r"classifier.weight \[3, 256, 1, 1\] for \[4, 256, 1, 1\]"):
        create_model("deeplab_v3_plus", tmp_path / "weights.pth", num_classes=4)


def test_mismatch_lists_the_keys(model):
    state = model.state_dict()
    state["extra"] = state.pop("classifier.bias")
    with pytest.raises(ValueError, match=r"missing classifier\.bias; unknown extra"):
        load_state(model, state)


class Unwelcome:
    def __reduce__(self):
        return print, ("executed",)


def test_pickles_are_refused(tmp_path, capsys):
    for name, value in (("object.pth", {"a": Unwelcome()}), ("list.pt", [torch.zeros(1)])):
        torch.save(value, tmp_path / name)
        with pytest.raises(ValueError, match=r"fastseg::weights: .* must be"):
            read_weights(tmp_path / name)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Unwelcome()))
    with pytest.raises(ValueError, match=r"fastseg::weights: .* must be"):
        read_weights(tmp_path / "raw.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_damaged_files_are_refused(content, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="must be safetensors or a plain state dict"):
        read_weights(tmp_path / "weights.safetensors")


def test_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be safetensors or a plain state dict"):
        read_weights(path)


def test_missing_file():
    with pytest.raises(ValueError, match=r"weights must be a file or shipped weights .*, got 'nothing.safetensors'"):
        read_weights("nothing.safetensors")


def test_weights_of_another_model_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors", {"fastseg": json.dumps({"model": "unet"})})
    with pytest.raises(ValueError, match="weights must be of deeplab_v3_plus, got weights of unet"):
        create_model("deeplab_v3_plus", tmp_path / "weights.safetensors")


def test_backbone_leaves_the_classifier_aside(model):
    state = {**model.backbone.state_dict(), "fc.weight": torch.zeros(1), "head.0.weight": torch.zeros(1)}
    load_backbone(model.backbone, state)
    with pytest.raises(ValueError, match=r"unknown stem.2"):
        load_backbone(model.backbone, {**state, "stem.2": torch.zeros(1)})
