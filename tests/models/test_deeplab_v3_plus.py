"""DeepLab v3+: parameter counts, shapes, and what predict accepts."""

import numpy as np
import pytest
import torch

from fastseg.models import DeepLabV3Plus, create_model, deeplab_v3_plus, list_models
from fastseg.nn import ASPP, SeparableAtrousConv2d


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return deeplab_v3_plus(num_classes=5).eval()


@pytest.mark.parametrize(("backbone", "expected"), [("resnet50", 40_352_181), ("resnet101", 59_344_309)])
def test_parameter_count(backbone, expected):
    with torch.device("meta"):
        assert parameters(deeplab_v3_plus(backbone, 21, separable=False)) == expected


def test_parameter_count_of_parts():
    with torch.device("meta"):
        assert parameters(ASPP(2048)) == 15_535_104
        # The TensorFlow release's separable ASPP on 2048 channels, and its decoder after a 256-channel low-level tap.
        assert parameters(ASPP(2048, separable=True)) == 3_019_776
        model = deeplab_v3_plus("resnet50", 21)
        decoder = parameters(model.low_level) + parameters(model.decoder) + parameters(model.classifier)
        assert decoder == 168_325


def test_separable_order():
    block = SeparableAtrousConv2d(8, 12, dilation=6)
    assert [type(layer).__name__ for layer in (*block.depthwise, *block.pointwise)] == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
    ] * 2
    assert block.depthwise[0].groups == 8
    assert block.depthwise[0].dilation == (6, 6)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "mobilenet_v2", "resnet50"])
@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("separable", [True, False])
def test_shapes_on_meta(backbone, output_stride, separable):
    with torch.device("meta"):
        model = deeplab_v3_plus(backbone, 21, output_stride=output_stride, separable=separable).eval()
        for size, expected in (((513, 513), (129, 129)), ((512, 330), (128, 83)), ((17, 33), (5, 9))):
            assert model(torch.empty(1, 3, *size)).shape == (1, 21, *expected)
    assert model.aspp.convs[1].state_dict().keys() == (
        model.decoder[0].state_dict().keys() if separable else model.aspp.convs[0].state_dict().keys()
    )


def test_decoder_is_the_papers(model):
    assert model.low_level[0].weight.shape == (48, 24, 1, 1)
    assert model.decoder[0].depthwise[0].weight.shape == (304, 1, 3, 3)
    assert model.classifier.weight.shape == (5, 256, 1, 1)
    assert [branch.depthwise[0].dilation[0] for branch in list(model.aspp.convs)[1:4]] == [6, 12, 18]


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 64)])
def test_predict_of_raw_images(model, size):
    image = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    labels = model.predict(image)
    assert labels.shape == (2, *size)
    assert labels.dtype == torch.uint8
    assert int(labels.max()) < 5
    torch.testing.assert_close(model.predict(image[0].numpy()), model.predict(image[0]))
    prepared = model.preprocess(image)
    torch.testing.assert_close(model.predict(prepared), labels)
    assert model.predict(prepared[0]).shape == size


def test_predict_resizes_only_raw_images():
    model = deeplab_v3_plus(num_classes=3, longer_side=48).eval()
    shapes = []
    model.backbone.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape)))
    assert model.predict(np.zeros((120, 55, 3), np.uint8)).shape == (120, 55)
    assert model.predict(torch.zeros(3, 120, 60)).shape == (120, 60)
    assert shapes == [(1, 3, 48, 16), (1, 3, 120, 60)]


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), torch.zeros(4, 4, 3)])
def test_predict_refuses_other_layouts(model, image):
    with pytest.raises(ValueError, match="fastseg::predict: image must be uint8"):
        model.predict(image)


def test_constructor_errors():
    with pytest.raises(ValueError, match=r"backbone must be one of efficientnet_lite0, .*, got 'vgg'"):
        deeplab_v3_plus("vgg")
    with pytest.raises(ValueError, match="output_stride must be 16 or 8, got 4"):
        deeplab_v3_plus(output_stride=4)
    with pytest.raises(ValueError, match="classes must name all 3 classes"):
        deeplab_v3_plus(num_classes=3, classes=("a",))


def test_create_model():
    assert "deeplab_v3_plus" in list_models()
    model = create_model("deeplab_v3_plus", num_classes=4)
    assert isinstance(model, DeepLabV3Plus)
    assert model.classifier.out_channels == 4
    with pytest.raises(ValueError, match="name must be one of deeplab_v3_plus"):
        create_model("unet")
