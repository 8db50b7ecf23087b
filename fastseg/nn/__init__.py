"""Network blocks built from the operations of :mod:`fastseg.ops`."""

from fastseg.nn.aspp import ASPP
from fastseg.nn.conv import conv_bn_act
from fastseg.nn.separable import SeparableConv2d

__all__ = ["ASPP", "SeparableConv2d", "conv_bn_act"]
