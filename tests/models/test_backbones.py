"""Backbones: sizes and names of their parameters, exact dilation, and the published EfficientNet-Lite0 weights."""

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image

from fastseg.models import load_backbone
from fastseg.models.backbones import EfficientNetLite0, MobileNetV2, resnet50, resnet101
from fastseg.models.backbones.dilation import stride_to_dilation
from fastseg.models.backbones.efficientnet_lite0 import imagenet_state, rename_keys
from fastseg.models.preprocess import LITE

CONSTRUCTORS = [EfficientNetLite0, MobileNetV2, resnet50]


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("constructor", "expected"),
    [
        (resnet50, 23_508_032),
        (resnet101, 42_500_160),
        (MobileNetV2, 1_811_712),
        (EfficientNetLite0, 4_652_008 - 1_693_160),
    ],
)
def test_parameter_count(constructor, expected):
    with torch.device("meta"):
        assert parameters(constructor()) == expected


@pytest.mark.parametrize(
    ("constructor", "shapes"),
    [
        (
            resnet50,
            {
                "conv1.weight": (64, 3, 7, 7),
                "bn1.running_var": (64,),
                "layer1.0.downsample.0.weight": (256, 64, 1, 1),
                "layer1.0.downsample.1.bias": (256,),
                "layer3.5.conv2.weight": (256, 256, 3, 3),
                "layer4.2.bn3.num_batches_tracked": (),
            },
        ),
        (
            MobileNetV2,
            {
                "features.0.0.weight": (32, 3, 3, 3),
                "features.1.conv.0.0.weight": (32, 1, 3, 3),
                "features.1.conv.1.weight": (16, 32, 1, 1),
                "features.2.conv.1.0.weight": (96, 1, 3, 3),
                "features.2.conv.2.weight": (24, 96, 1, 1),
                "features.17.conv.3.running_mean": (320,),
            },
        ),
    ],
)
def test_torchvision_keys(constructor, shapes):
    with torch.device("meta"):
        state = constructor().state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    # torchvision: 320 entries with the classifier's 2, and 314 with the last 1x1's 6 and the classifier's 2.
    assert len(state) == {resnet50: 318, MobileNetV2: 306}[constructor]


@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_dilation_is_exact(constructor):
    torch.manual_seed(0)
    coarse, fine, strided = (constructor(output_stride).double().eval() for output_stride in (16, 8, 32))
    fine.load_state_dict(coarse.state_dict())
    strided.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, 38, 59, dtype=torch.float64)
    with torch.inference_mode():
        low, at16 = coarse(x)
        low8, at8 = fine(x)
        at32 = strided(x)[1]
    assert low.shape[1:] == (coarse.low_level_channels, 10, 15)
    assert at16.shape[1:] == (coarse.out_channels, 3, 4)
    assert at8.shape[-2:] == (5, 8)
    torch.testing.assert_close(low8, low, rtol=0, atol=0)
    torch.testing.assert_close(at8[..., ::2, ::2], at16, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(at16[..., ::2, ::2], at32, rtol=1e-9, atol=1e-11)


def test_rates_follow_torchvision():
    # Stem and four stages of ResNet; torchvision's [False, True, True] gives rates 1 then 2, and 2 then 4.
    assert stride_to_dilation([4, 1, 2, 2, 2], 8)[1:] == [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)]
    assert stride_to_dilation([4, 1, 2, 2, 2], 16)[1:] == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32, got 4"):
        EfficientNetLite0(4)


@pytest.fixture(scope="module")
def published():
    return imagenet_state()


def test_efficientnet_key_map(published):
    classifier = {
        "head.0.weight",
        "fc.weight",
        "fc.bias",
        *(f"head.1.{name}" for name in torch.nn.BatchNorm2d(1).state_dict()),
    }
    assert {key for key in published if key.startswith(("head.", "fc."))} == classifier
    assert set(published) - classifier == set(EfficientNetLite0().state_dict())
    with pytest.raises(ValueError, match=r"'_se_reduce.weight'"):
        rename_keys({"_se_reduce.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("photo", "accepted"),
    # 967 espresso; 281 tabby, 282 tiger cat, 285 Egyptian cat
    [("coffee", {967}), ("chelsea", {281, 282, 285})],
)
def test_efficientnet_recognises(photo, accepted, published):
    backbone = EfficientNetLite0(output_stride=32).eval()
    load_backbone(backbone, published)
    image = Image.fromarray(getattr(skimage.data, photo)())
    side = round(0.875 * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 224, 224, 3)
    with torch.inference_mode():
        features = F.conv2d(backbone(LITE(pixels))[1], published["head.0.weight"])
        names = ("running_mean", "running_var", "weight", "bias")
        features = F.batch_norm(features, *(published[f"head.1.{name}"] for name in names), eps=1e-3)
        pooled = F.relu6(features).mean((2, 3))
        probability = F.linear(pooled, published["fc.weight"], published["fc.bias"]).softmax(1)[0]
    assert int(probability.argmax()) in accepted
    assert probability[list(accepted)].sum() > 0.8
