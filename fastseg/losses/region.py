"""Losses of overlap: closed formulas on the sums of one pass."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor

from fastseg.losses.statistics import Reading, RegionStatistics, power, statistics
from fastseg.ops.arguments import brief, checked_choice, checked_float

AVERAGES = ("class", "sample", "micro")
ABSENT = ("skip", "keep", "zero")
NORMALIZERS = ("weight", "count")
REDUCTIONS = ("mean", "sum", "none")
LEAST_SCORE = 1e-7  # of a logarithm


class Options(Reading, total=False):
    """What every loss of overlap takes by keyword: `Averaging` and `Reading`."""

    average: str
    absent: str
    weight: Tensor | None
    normalizer: str
    include_background: bool
    reduction: str


@dataclass(frozen=True)
class Averaging:
    """Over which sets a score is taken, and how scores become a loss.

    Args:
        average: `class` pools the sums over the batch, one score for each class; `sample` has one for each image and
            class; `micro` pools classes, one for each image.
        absent: what becomes of a class that the target of its set does not have: `skip` leaves it out of the mean,
            `keep` takes the formula as it is, `zero` counts it with loss 0.
        weight: [C], a weight for each class, also of the background where that is left out. In `micro` it weighs the
            sums.
        normalizer: the mean over classes divides by the sum of their `weight` or by their `count`.
        include_background: whether class 0 has a score.
        reduction: `mean` over the classes of a set, then over images; `sum`; or `none`: [C] for `class`, [N, C] for
            `sample`, [N] for `micro`, weighted, 0 for what is left out.
    """

    average: str = "class"
    absent: str = "skip"
    weight: Tensor | None = None
    normalizer: str = "weight"
    include_background: bool = True
    reduction: str = "mean"

    def check(self, name: str, classes: int) -> None:
        checked_choice(name, "average", self.average, AVERAGES)
        checked_choice(name, "absent", self.absent, ABSENT)
        checked_choice(name, "normalizer", self.normalizer, NORMALIZERS)
        checked_choice(name, "reduction", self.reduction, REDUCTIONS)
        check_weight(name, self.weight, classes)
        if not self.include_background and classes < 2:
            raise ValueError(f"fastseg::{name}: include_background must be True for a single class, got False")

    def weights(self, s: RegionStatistics) -> Tensor:
        """[C] of all classes, or of all but the background."""
        first = s.tp.shape[1] if self.weight is None else len(self.weight)
        whole = s.tp.new_ones(first) if self.weight is None else self.weight.to(s.tp)
        return whole[first - s.tp.shape[1] :]

    def sums(self, s: RegionStatistics) -> Callable[[Tensor], Tensor]:
        """What pools sums [N, C] to [sets, classes of a set]."""
        if self.average == "micro":
            w = self.weights(s)
            return lambda x: (x * w).sum(1, keepdim=True)
        return (lambda x: x.sum(0, keepdim=True)) if self.average == "class" else lambda x: x

    def reduce(self, loss: Tensor, present: Tensor, s: RegionStatistics) -> Tensor:
        """Losses [sets, classes of a set] -> the reduction of those that count.

        An image without a pixel that counts is no member of the mean, and a mean of nothing is 0.
        """
        w = loss.new_ones(1) if self.average == "micro" else self.weights(s)
        # Not `> 0`: a label that is no class makes the sums NaN on a GPU; such a set counts, and the loss is NaN.
        some = (s.pixels.sum(0, keepdim=True) if self.average == "class" else s.pixels) != 0
        counted = (present if self.absent == "skip" else torch.ones_like(present)) & some[:, None]
        loss = torch.where(counted & present if self.absent == "zero" else counted, loss, 0.0) * w
        if self.reduction == "none":
            return loss if self.average == "sample" else loss.squeeze(0 if self.average == "class" else 1)
        if self.reduction == "sum":
            return loss.sum()
        share = (counted * w if self.normalizer == "weight" else counted.to(w.dtype)).sum(1)
        return mean_of(quotient(loss.sum(1), share), share > 0)


def check_weight(name: str, weight: Tensor | None, classes: int) -> None:
    if weight is not None and (
        not isinstance(weight, Tensor) or weight.shape != (classes,) or not weight.is_floating_point()
    ):
        raise ValueError(f"fastseg::{name}: weight must be floating [{classes}], got {brief(weight)}")


def quotient(numerator: Tensor, denominator: Tensor, nothing: float = 0.0) -> Tensor:
    """numerator / denominator, and `nothing` with gradient 0 where the denominator is 0."""
    zero = denominator == 0
    return torch.where(zero, nothing, numerator / torch.where(zero, 1.0, denominator))


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values that count, 0 where none does."""
    return quotient(torch.where(counted, values, 0.0).sum(), counted.sum().to(values.dtype))


def check_reading(name: str, reading: Any) -> None:
    if unknown := sorted(reading.keys() - Reading.__annotations__.keys()):
        raise TypeError(f"fastseg::{name}: options must be among those in its documentation, got {', '.join(unknown)}")


def read(
    name: str, logits: Tensor | RegionStatistics, target: Tensor | None, gamma: float | None = None, **reading: Any
) -> RegionStatistics:
    """The statistics that were given, or those of logits and target."""
    if isinstance(logits, RegionStatistics):
        if target is not None or reading:
            rest = ["target"] * (target is not None) + sorted(reading)
            raise ValueError(f"fastseg::{name}: {rest[0]} must be left out where statistics are given, got {rest}")
        if gamma is not None and logits.gamma != gamma:
            raise ValueError(f"fastseg::{name}: gamma must be that of the statistics, {logits.gamma}, got {gamma}")
        return logits
    check_reading(name, reading)
    if target is None:
        raise ValueError(f"fastseg::{name}: target must be given with logits, got None")
    return statistics(logits, target, gamma=gamma, **reading)


def _opened(
    name: str, logits: Tensor | RegionStatistics, target: Tensor | None, options: Options
) -> tuple[RegionStatistics, Averaging]:
    own = {key: value for key, value in options.items() if key in Averaging.__dataclass_fields__}
    reading: dict[str, Any] = {key: value for key, value in options.items() if key not in own}
    s = read(name, logits, target, **reading)
    averaging = Averaging(**own)  # type: ignore[arg-type]
    averaging.check(name, s.tp.shape[1])
    return (s if averaging.include_background else s.without_background()), averaging


Term = Callable[[Tensor], Tensor]
Parts = Callable[[Callable[[Tensor], Tensor], RegionStatistics], tuple[Tensor, Tensor]]


def _term(log: bool) -> Term:
    """What a score costs."""
    return (lambda score: -score.clamp_min(LEAST_SCORE).log()) if log else (lambda score: 1 - score)


def _overlap(
    name: str,
    logits: Tensor | RegionStatistics,
    target: Tensor | None,
    parts: Parts,
    smooth: tuple[float, float],
    term: Term,
    options: Options,
) -> Tensor:
    """The term of the score (a + smooth) / (b + smooth), a and b the parts of pooled sums, averaged."""
    s, averaging = _opened(name, logits, target, options)
    above = checked_float(name, "smooth_numerator", smooth[0])
    below = checked_float(name, "smooth_denominator", smooth[1])
    pooled = averaging.sums(s)
    numerator, denominator = parts(pooled, s)
    # Nothing predicted of nothing is a perfect score.
    score = quotient(numerator + above, denominator + below, nothing=1.0)
    return averaging.reduce(term(score), pooled(s.target) != 0, s)


def dice(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    smooth_numerator: float = 0.0,
    smooth_denominator: float = 0.0,
    squared: bool = False,
    log: bool = False,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the soft Dice loss.

    .. math:: 1 - \frac{2\, TP + s_n}{P + T + s_d}

    Args:
        logits: [N, C, h, w] at any resolution, or `statistics` alone.
        target: labels [N, H, W], or masks or soft labels [N, C, H, W].
        smooth_numerator: s_n.
        smooth_denominator: s_d.
        squared: take the sums of p^2 and y^2 in the denominator (Milletari et al.).
        log: minus the logarithm of the score, cut off at 1e-7, instead of 1 minus the score.
        options: of `Averaging` (average, absent, weight, normalizer, include_background, reduction) and of `statistics`
            (activation, ignore_index, align_corners, intersection).

    Returns:
        A scalar, or what `Averaging` says of reduction `none`; float32, or float64 for float64 logits. It is 0 with
        gradient 0 where all pixels are ignored, and where 0 is divided by 0 the score is 1.

    Gradient: of `logits`, once differentiable. Devices and errors: as `statistics`.

    Source: Milletari et al. 2016, "V-Net" (arXiv 1606.04797), equation 3, and Drozdzal et al. 2016 (arXiv 1608.04117)
        without the squares.

    Example:
        >>> logits, target = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(3, (2, 32, 32))
        >>> dice(logits, target, average="sample", smooth_numerator=1e-5, smooth_denominator=1e-5).backward()
    """

    def parts(total: Callable[[Tensor], Tensor], s: RegionStatistics) -> tuple[Tensor, Tensor]:
        p, t = (s.predicted_squared, s.target_squared) if squared else (s.predicted, s.target)
        return 2 * total(s.tp), total(p) + total(t)

    return _overlap("dice", logits, target, parts, (smooth_numerator, smooth_denominator), _term(log), options)


def jaccard(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    smooth_numerator: float = 0.0,
    smooth_denominator: float = 0.0,
    squared: bool = False,
    log: bool = False,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the soft Jaccard (IoU) loss.

    .. math:: 1 - \frac{TP + s_n}{P + T - TP + s_d}

    Arguments, result, gradient, devices and errors are those of `dice`.

    Source: Rahman and Wang 2016, "Optimizing Intersection-Over-Union in Deep Neural Networks".

    Example:
        >>> loss = jaccard(torch.randn(2, 3, 8, 8), torch.randint(3, (2, 32, 32)), absent="keep")
    """

    def parts(total: Callable[[Tensor], Tensor], s: RegionStatistics) -> tuple[Tensor, Tensor]:
        p, t = (s.predicted_squared, s.target_squared) if squared else (s.predicted, s.target)
        return total(s.tp), total(p) + total(t) - total(s.tp)

    return _overlap("jaccard", logits, target, parts, (smooth_numerator, smooth_denominator), _term(log), options)


def tversky(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth_numerator: float = 0.0,
    smooth_denominator: float = 0.0,
    log: bool = False,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the Tversky loss.

    .. math:: 1 - \frac{TP + s_n}{TP + \alpha (P - TP) + \beta (T - TP) + s_d}

    Args:
        logits: as in `dice`.
        target: as in `dice`.
        alpha: weight of false positives.
        beta: weight of false negatives; 0.5 and 0.5 are Dice, 1 and 1 are Jaccard.
        smooth_numerator: s_n.
        smooth_denominator: s_d.
        log: as in `dice`.
        options: as in `dice`.

    Result, gradient, devices and errors are those of `dice`.

    Source: Salehi et al. 2017, "Tversky loss function for image segmentation" (arXiv 1706.05721).

    Example:
        >>> loss = tversky(torch.randn(2, 3, 8, 8), torch.randint(3, (2, 32, 32)), alpha=0.3, beta=0.7)
    """
    parts, smooth = _tversky("tversky", alpha, beta), (smooth_numerator, smooth_denominator)
    return _overlap("tversky", logits, target, parts, smooth, _term(log), options)


def focal_tversky(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    exponent: float = 0.75,
    power_of: str = "class",
    smooth_numerator: float = 0.0,
    smooth_denominator: float = 0.0,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the focal Tversky loss, a power of the Tversky loss.

    .. math:: \Big(1 - \frac{TP + s_n}{TP + \alpha (P - TP) + \beta (T - TP) + s_d}\Big)^{\gamma}

    Args:
        logits: as in `dice`.
        target: as in `dice`.
        alpha: weight of false positives.
        beta: weight of false negatives.
        exponent: gamma, the 3/4 of the paper, which writes 1 / (4/3).
        power_of: `class` raises the loss of each class, as the paper; `mean` raises the reduced loss.
        smooth_numerator: s_n.
        smooth_denominator: s_d.
        options: as in `dice`.

    Result, gradient, devices and errors are those of `dice`; the gradient of a loss of exactly 0 is 0.

    Source: Abraham and Khan 2018, "A novel focal Tversky loss function" (arXiv 1810.07842), equation 4, where
        ``reduction="sum"``.

    Example:
        >>> loss = focal_tversky(torch.randn(2, 3, 8, 8), torch.randint(3, (2, 32, 32)), exponent=0.75)
    """
    name = "focal_tversky"
    if not checked_float(name, "exponent", exponent) > 0:
        raise ValueError(f"fastseg::{name}: exponent must be positive, got {exponent}")
    checked_choice(name, "power_of", power_of, ("class", "mean"))
    parts, smooth = _tversky(name, alpha, beta), (smooth_numerator, smooth_denominator)
    if power_of == "mean":
        return power(_overlap(name, logits, target, parts, smooth, _term(False), options), exponent)
    return _overlap(name, logits, target, parts, smooth, lambda score: power(1 - score, exponent), options)


def _tversky(name: str, alpha: float, beta: float) -> Parts:
    for argument, x in (("alpha", alpha), ("beta", beta)):
        if not checked_float(name, argument, x) >= 0:
            raise ValueError(f"fastseg::{name}: {argument} must be at least 0, got {x}")

    def parts(total: Callable[[Tensor], Tensor], s: RegionStatistics) -> tuple[Tensor, Tensor]:
        tp = total(s.tp)
        return tp, tp + alpha * (total(s.predicted) - tp) + beta * (total(s.target) - tp)

    return parts


CLASS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "square": lambda t: t.square().reciprocal(),
    "simple": torch.reciprocal,
    "uniform": torch.ones_like,
}


def generalized_dice(
    logits: Tensor | RegionStatistics,
    target: Tensor | None = None,
    *,
    class_weight: str = "square",
    smooth_numerator: float = 0.0,
    smooth_denominator: float = 0.0,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the generalized Dice loss: one score of all classes, each weighted by its size in the target.

    .. math:: 1 - \frac{2 \sum_c w_c TP_c + s_n}{\sum_c w_c (P_c + T_c) + s_d}, \qquad w_c = 1 / T_c^2

    Args:
        logits: as in `dice`.
        target: as in `dice`.
        class_weight: `square` is 1 / T^2, `simple` 1 / T, `uniform` 1.
        smooth_numerator: s_n.
        smooth_denominator: s_d.
        options: as in `dice`, where `average` is `class` for one score of the batch or `sample` for one for each image,
            and `absent` is `skip` for a class that weighs nothing where the target does not have it, or `keep` for one
            that weighs as much as the smallest class that is there. `weight` multiplies w; there is no normalizer.

    Returns:
        As `dice`, and [N] or [1] for reduction `none`.

    Gradient, devices and errors are those of `dice`.

    Source: Sudre et al. 2017, "Generalised Dice overlap as a deep learning loss function" (arXiv 1707.03237).

    Example:
        >>> loss = generalized_dice(torch.randn(2, 3, 8, 8), torch.randint(3, (2, 32, 32)), average="sample")
    """
    name = "generalized_dice"
    weigh = CLASS_WEIGHTS[checked_choice(name, "class_weight", class_weight, CLASS_WEIGHTS)]
    s, averaging = _opened(name, logits, target, options)
    for argument, choice, never in (("average", averaging.average, "micro"), ("absent", averaging.absent, "zero"),
                                    ("normalizer", averaging.normalizer, "count")):  # fmt: skip
        if choice == never:
            raise ValueError(
                f"fastseg::{name}: {argument} must not be {never!r}, which it has no use for, got {choice!r}"
            )
    pooled = averaging.sums(s)
    tp, sizes = pooled(s.tp), pooled(s.target)
    there = sizes != 0
    w = torch.where(there, weigh(torch.where(there, sizes, 1.0)), 0.0)
    if averaging.absent == "keep":
        w = torch.where(there, w, w.amax(1, keepdim=True))
    w = w * averaging.weights(s)
    denominator = (w * (pooled(s.predicted) + sizes)).sum(1, keepdim=True) + smooth_denominator
    score = quotient((2 * w * tp).sum(1, keepdim=True) + smooth_numerator, denominator, nothing=1.0)
    present = there.any(1, keepdim=True)
    # One score for each set, weighted already: it is reduced like one of pooled classes.
    each = "micro" if averaging.average == "sample" else "class"
    single = replace(averaging, average=each, weight=None)
    return single.reduce(1 - score, present, replace(s, tp=s.tp[:, :1]))
