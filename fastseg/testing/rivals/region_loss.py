"""Region losses as compositions of plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .upsample import upsample_bilinear


def region_statistics(
    logits: Tensor,
    target: Tensor,
    *,
    activation: str = "softmax",
    gamma: float | None = None,
    ignore_index: int = 255,
    align_corners: bool = False,
) -> Tensor:
    """Interpolate, log-softmax once, and sums with a one-hot truth: what a Dice and a cross-entropy share."""
    full = upsample_bilinear(logits, (target.shape[1], target.shape[2]), align_corners=align_corners)
    sigmoid, classes = activation == "sigmoid", logits.shape[1]
    log = F.logsigmoid(full) if sigmoid else full.log_softmax(1)
    valid = (target != ignore_index)[:, None]
    labels = target.masked_fill(~valid[:, 0], 0).long()
    y = (labels[:, None] if sigmoid and classes == 1 else F.one_hot(labels, classes).movedim(-1, 1)) * valid
    p = log.exp() * valid

    def entropies(truth: Tensor, log: Tensor) -> list[Tensor]:
        entropy = -truth * log
        return [entropy, torch.zeros_like(entropy) if gamma is None else (1 - log.exp()) ** gamma * entropy]

    sums = [y * p, p, p * p, y.to(p.dtype), *entropies(y, log)]
    if sigmoid:
        sums += entropies(valid.to(p.dtype) - y, F.logsigmoid(-full))
    return torch.stack([s.sum((2, 3)) for s in sums], -1)


def _jaccard_steps(truth: Tensor) -> Tensor:
    """Steps of the Jaccard loss along the sorted truth, as `lovasz_grad` of bermanmaxim/LovaszSoftmax has them."""
    total = truth.sum()
    intersection = total - truth.cumsum(0)
    union = total + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def lovasz_softmax(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """`lovasz_softmax` of bermanmaxim/LovaszSoftmax of the softmax: a sort for each class that is present."""
    classes = logits.shape[1]
    p = logits.softmax(1).movedim(1, -1).reshape(-1, classes)
    labels = target.flatten()
    valid = labels != ignore_index
    p, labels = p[valid], labels[valid]
    losses = []
    for c in range(classes):
        truth = (labels == c).to(p.dtype)
        if truth.sum() == 0:
            continue
        errors, order = (truth - p[:, c]).abs().sort(0, descending=True)
        losses.append(torch.dot(errors, _jaccard_steps(truth[order])))
    return torch.stack(losses).mean()


def lovasz_hinge(logits: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """`lovasz_hinge` of bermanmaxim/LovaszSoftmax: image by image."""
    losses = []
    for scores, labels in zip(logits.flatten(1), target.flatten(1), strict=True):
        valid = labels != ignore_index
        z, truth = scores[valid], labels[valid].to(scores.dtype)
        errors, order = (1 - z * (2 * truth - 1)).sort(0, descending=True)
        losses.append(torch.dot(errors.relu(), _jaccard_steps(truth[order])))
    return torch.stack(losses).mean()


PLAIN: Mapping[str, Callable[..., Any]] = {
    "region_statistics": region_statistics,
    "lovasz_softmax": lovasz_softmax,
    "lovasz_hinge": lovasz_hinge,
}
LIBRARIES: Mapping[str, Mapping[str, Callable[..., Any]]] = {}
# They take the pixels that count and the classes that are there: no graph holds how many.
UNCOMPILED = ("lovasz_softmax", "lovasz_hinge")
# Errors that are equal but for their rounding change places in the order, and with places their gradients.
NEAR: Mapping[str, float] = {"lovasz_softmax": 2e-2}
