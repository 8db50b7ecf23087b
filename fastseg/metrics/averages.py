"""How classes are averaged, and what a class counts that there is nothing of."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fastseg.ops.arguments import checked_choice

AVERAGES = ("none", "macro", "micro", "weighted")
ABSENT = ("skip", "skip_unseen", "skip_without_truth", "zero", "one")
Average = Literal["none", "macro", "micro", "weighted"]
Absent = Literal["skip", "skip_unseen", "skip_without_truth", "zero", "one"]


def quotient(part: Tensor, whole: Tensor, truth: Tensor, predicted: Tensor, absent: str) -> Tensor:
    """`part / whole` in float64, nan where a class is to be left out, as the rule says."""
    value = part.double() / whole.double()
    if absent == "skip_unseen":
        return value.masked_fill((whole == 0) & (truth + predicted > 0), 0.0)
    if absent == "skip_without_truth":
        return value.masked_fill(truth == 0, torch.nan)
    return value if absent == "skip" else value.masked_fill(whole == 0, float(absent == "one"))


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the last dimension of what is not nan, weighted by the weights of just these; nan of nothing."""
    if weights is None:
        return values.nanmean(-1)
    weights = weights.to(values).expand_as(values).masked_fill(values.isnan(), 0.0)
    return (values.nan_to_num(0.0, torch.inf) * weights).sum(-1) / weights.sum(-1)


def checked_average(op: str, average: Any, absent: Any, class_weights: Any, classes: int) -> Tensor | None:
    """Check how to average; return the weights of the classes, if any."""
    checked_choice(op, "average", average, AVERAGES)
    checked_choice(op, "absent", absent, ABSENT)
    if class_weights is None:
        return None
    if average != "macro":
        raise ValueError(f"fastseg::{op}: class_weights must be None unless average is macro, "
                         f"got {class_weights!r} for {average}")  # fmt: skip
    weights = torch.as_tensor(class_weights).double() if isinstance(class_weights, Sequence | Tensor) else None
    if weights is None or weights.shape != (classes,) or not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(f"fastseg::{op}: class_weights must be {classes} finite numbers of at least 0, "
                         f"got {class_weights!r}")  # fmt: skip
    return weights
