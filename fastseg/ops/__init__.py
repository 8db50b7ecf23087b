"""Segmentation ops. Each works on any device through its reference, and fast where a kernel is compiled."""

from .aspp import aspp_conv2d
from .atrous_conv import atrous_conv2d
from .atrous_conv_algorithms import prepack_atrous_weight
from .confusion import confusion_matrix
from .dense_crf import dense_crf
from .dense_crf_filters import gaussian_filter_2d, permutohedral_filter
from .dense_crf_lattice import PermutohedralLattice
from .dense_crf_pairs import gaussian_filter
from .distance import distance_transform
from .distance_instances import instance_distances
from .distance_metrics import (
    assd,
    average_surface_distance,
    hausdorff_distance,
    masd,
    surface_dice,
    surface_metrics,
)
from .distance_points import directed_hausdorff
from .distance_surfaces import surface_distances
from .global_conv import global_conv2d
from .ksac import ksac_conv2d, ksac_conv2d_train
from .pyramid_pool import pyramid_pool
from .region_loss import region_statistics
from .region_loss_lovasz import lovasz_hinge, lovasz_softmax
from .separable_atrous_conv import separable_atrous_conv2d
from .upsample import upsample_argmax, upsample_bilinear, upsample_softmax, upsample_threshold
from .upsample_loss import upsample_cross_entropy

__all__ = [
    "PermutohedralLattice",
    "aspp_conv2d",
    "assd",
    "atrous_conv2d",
    "average_surface_distance",
    "confusion_matrix",
    "dense_crf",
    "directed_hausdorff",
    "distance_transform",
    "gaussian_filter",
    "gaussian_filter_2d",
    "global_conv2d",
    "hausdorff_distance",
    "instance_distances",
    "ksac_conv2d",
    "ksac_conv2d_train",
    "lovasz_hinge",
    "lovasz_softmax",
    "masd",
    "permutohedral_filter",
    "prepack_atrous_weight",
    "pyramid_pool",
    "region_statistics",
    "separable_atrous_conv2d",
    "surface_dice",
    "surface_distances",
    "surface_metrics",
    "upsample_argmax",
    "upsample_bilinear",
    "upsample_cross_entropy",
    "upsample_softmax",
    "upsample_threshold",
]
