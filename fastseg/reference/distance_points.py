"""Directed Hausdorff distance of point sets, in plain PyTorch."""

import torch
from torch import Tensor

PIECE = 1 << 22  # distances at a time


def directed_hausdorff(points_a: Tensor, points_b: Tensor) -> tuple[Tensor, Tensor]:
    """Sets [B, N, d] and [B, M, d] -> distances [B], and the points int64 [B, 2] that have them, first ones."""
    distance = points_a.new_zeros(len(points_a))
    indices = torch.full((len(points_a), 2), -1, device=points_a.device)
    if points_a.shape[1] and not points_b.shape[1]:
        distance.fill_(float("inf"))
    for i, (a, b) in enumerate(zip(points_a, points_b, strict=True)):
        if not len(a) or not len(b):
            continue
        pieces = a.split(max(1, PIECE // b.numel()))
        nearest = [(piece[:, None] - b).square().sum(-1).min(1) for piece in pieces]
        squared, index = (torch.cat(parts) for parts in zip(*nearest, strict=True))
        at = squared.argmax()
        distance[i], indices[i] = squared[at].sqrt(), torch.stack([at, index[at]])
    return distance, indices
