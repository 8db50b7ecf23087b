"""Backbones, ASPP and the head of DeepLab v3 against torchvision's, weight by weight and number by number."""

import pytest
import torch

pytestmark = pytest.mark.parity

torchvision = pytest.importorskip("torchvision")

from torchvision.models.segmentation.deeplabv3 import ASPP as TorchvisionASPP  # noqa: E402
from torchvision.models.segmentation.deeplabv3 import DeepLabHead  # noqa: E402

from fastseg.models import load_backbone, load_state  # noqa: E402
from fastseg.models.backbones import MobileNetV2, resnet50, resnet101  # noqa: E402
from fastseg.nn import ASPP, KSAC, AtrousConv2d  # noqa: E402


def randomise(module):
    """Give every parameter and statistic a value that the defaults would hide."""
    torch.manual_seed(0)
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return module.double().eval()


@pytest.mark.parametrize(
    ("ours", "theirs", "dilate"),
    [
        (resnet50, "resnet50", [False, False, False]),
        (resnet50, "resnet50", [False, False, True]),
        (resnet50, "resnet50", [False, True, True]),
        (resnet101, "resnet101", [False, False, True]),
    ],
)
def test_resnet(ours, theirs, dilate):
    reference = randomise(getattr(torchvision.models, theirs)(weights=None, replace_stride_with_dilation=dilate))
    backbone = ours({0: 32, 1: 16, 2: 8}[sum(dilate)]).double().eval()
    load_backbone(backbone, reference.state_dict())
    x = torch.randn(1, 3, 65, 81, dtype=torch.float64)
    stages = torch.nn.Sequential(*list(reference.children())[:-2])
    with torch.inference_mode():
        low_level, features = backbone(x)
        torch.testing.assert_close(low_level, stages[:5](x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(features, stages(x), rtol=1e-10, atol=1e-10)


def test_mobilenet_v2():
    reference = randomise(torchvision.models.mobilenet_v2(weights=None))
    backbone = MobileNetV2(32).double().eval()
    load_backbone(backbone, reference.state_dict())
    x = torch.randn(1, 3, 65, 81, dtype=torch.float64)
    with torch.inference_mode():
        low_level, features = backbone(x)
        torch.testing.assert_close(low_level, reference.features[:4](x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(features, reference.features[:18](x), rtol=1e-10, atol=1e-10)


def tie(ours, theirs):
    """Give a KSAC the weights of an ASPP, and the ASPP the one kernel."""
    state = theirs.state_dict()
    branches = len(ours.rates)
    for name, index in (("local", 0), ("pool", branches + 1)):
        kept = {key.removeprefix(f"convs.{index}."): v for key, v in state.items() if key.startswith(f"convs.{index}.")}
        getattr(ours, name).load_state_dict(kept)
    ours.project.load_state_dict({k.removeprefix("project."): v for k, v in state.items() if k.startswith("project.")})
    for k, norm in enumerate(ours.norms, 1):
        norm.load_state_dict(theirs.convs[k][1].state_dict())
        theirs.convs[k][0].weight = torch.nn.Parameter(ours.weight.detach())


@pytest.mark.parametrize("rates", [(6, 12, 18), (2, 3, 5, 40)])
def test_ksac_is_aspp_with_tied_kernels(rates):
    reference = randomise(TorchvisionASPP(24, list(rates), 32))
    ours = KSAC(24, rates, 32, fusion="concat").double().eval()
    tie(ours, reference)
    x = torch.randn(2, 24, 23, 31, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-10, atol=1e-10)


def test_aspp():
    reference = randomise(TorchvisionASPP(24, [6, 12, 18], 32))
    ours = ASPP(24, (6, 12, 18), 32).double().eval()
    load_state(ours, reference.state_dict())
    x = torch.randn(2, 24, 23, 31, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-10, atol=1e-10)


def test_deeplab_head():
    reference = randomise(DeepLabHead(24, 5, (6, 12, 18)))
    ours = torch.nn.Sequential(ASPP(24, (6, 12, 18), 256), AtrousConv2d(256, 256), torch.nn.Conv2d(256, 5, 1))
    ours = ours.double().eval()
    places = {"0": "0", "1": "1.0", "2": "1.1", "4": "2"}  # convolution and batch norm are one module of ours
    state = {places[key[0]] + key[1:]: value for key, value in reference.state_dict().items()}
    load_state(ours, state)
    x = torch.randn(2, 24, 23, 31, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-10, atol=1e-10)
