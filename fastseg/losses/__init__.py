"""Losses of segmentation: functions of logits and target first, thin modules over them."""

from fastseg.losses.distance import border_weight_map, boundary, hausdorff_dt, hausdorff_erosion
from fastseg.losses.entropy import cross_entropy, focal
from fastseg.losses.lovasz import lovasz_hinge, lovasz_softmax
from fastseg.losses.modules import (
    BoundaryLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    HausdorffDTLoss,
    HausdorffERLoss,
    JaccardLoss,
    LovaszHingeLoss,
    LovaszSoftmaxLoss,
    TverskyLoss,
    WeightedSum,
)
from fastseg.losses.region import Averaging, dice, focal_tversky, generalized_dice, jaccard, tversky
from fastseg.losses.statistics import RegionStatistics, statistics

__all__ = [
    "Averaging",
    "BoundaryLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "HausdorffDTLoss",
    "HausdorffERLoss",
    "JaccardLoss",
    "LovaszHingeLoss",
    "LovaszSoftmaxLoss",
    "RegionStatistics",
    "TverskyLoss",
    "WeightedSum",
    "border_weight_map",
    "boundary",
    "cross_entropy",
    "dice",
    "focal",
    "focal_tversky",
    "generalized_dice",
    "hausdorff_dt",
    "hausdorff_erosion",
    "jaccard",
    "lovasz_hinge",
    "lovasz_softmax",
    "statistics",
    "tversky",
]
