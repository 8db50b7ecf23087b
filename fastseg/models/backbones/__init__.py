"""Feature extractors: each maps ``[N, 3, H, W]`` to (stride-4 features, features at the output stride)."""

from fastseg.models.backbones.base import Backbone
from fastseg.models.backbones.efficientnet_lite0 import EfficientNetLite0
from fastseg.models.backbones.mobilenet_v2 import MobileNetV2
from fastseg.models.backbones.resnet import ResNet, resnet50, resnet101

__all__ = ["Backbone", "EfficientNetLite0", "MobileNetV2", "ResNet", "resnet50", "resnet101"]
