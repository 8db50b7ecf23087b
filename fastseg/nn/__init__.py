"""Network blocks built from the operations of :mod:`fastseg.ops`."""

from fastseg.nn.aspp import ASPP
from fastseg.nn.atrous_conv import AtrousConv2d, SeparableAtrousConv2d
from fastseg.nn.conv import conv_bn_act
from fastseg.nn.dense_crf import DenseCRF
from fastseg.nn.global_conv import BoundaryRefinement, GlobalConv2d
from fastseg.nn.ksac import KSAC
from fastseg.nn.pyramid_pool import SpatialPyramidPool

__all__ = [
    "ASPP",
    "KSAC",
    "AtrousConv2d",
    "BoundaryRefinement",
    "DenseCRF",
    "GlobalConv2d",
    "SeparableAtrousConv2d",
    "SpatialPyramidPool",
    "conv_bn_act",
]
