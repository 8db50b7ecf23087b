"""Losses as modules, and weighted sums of them that read the logits once."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from fastseg.losses import distance, entropy, lovasz, region
from fastseg.losses.statistics import Reading, RegionStatistics, statistics

READING = Reading.__annotations__.keys()


class Loss(nn.Module):
    """A loss that can be weighted and added to others: ``DiceLoss() + 0.5 * CrossEntropyLoss()``."""

    def __add__(self, other: "Loss") -> "WeightedSum":
        return WeightedSum([*_terms(self), *_terms(other)]) if isinstance(other, Loss) else NotImplemented

    def __mul__(self, factor: float) -> "WeightedSum":
        if not isinstance(factor, int | float):
            return NotImplemented
        return WeightedSum([(factor * weight, loss) for weight, loss in _terms(self)])

    __rmul__ = __mul__


class FunctionalLoss(Loss):
    """A function of logits and target with its options.

    Args:
        options: the keyword arguments of the function. A `weight` is a buffer, which moves with the module and is not
            in its `state_dict`.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        known = _options(self.function)
        if unknown := sorted(options.keys() - known):
            raise TypeError(f"fastseg::{type(self).__name__}: options must be among {', '.join(sorted(known))}, got "
                            f"{', '.join(unknown)}")  # fmt: skip
        self.register_buffer("weight", options.pop("weight", None), persistent=False)
        self.options = options

    def keywords(self) -> dict[str, Any]:
        """The options, with the weight where it is now."""
        return self.options if self.weight is None else {**self.options, "weight": self.weight}

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits [N, C, h, w] and a target that sets the full size."""
        return type(self).function(logits, target, **self.keywords())

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items())


class RegionLoss(FunctionalLoss):
    """A loss that is a function of `statistics`."""

    @property
    def gamma(self) -> float | None:
        """The exponent that the statistics need."""
        return None

    def reading(self) -> dict[str, Any] | None:
        """How the statistics are taken; None where they are not enough."""
        return {key: value for key, value in self.options.items() if key in READING}

    def of_statistics(self, s: RegionStatistics) -> Tensor:
        """The loss of statistics that were taken as `reading` says."""
        return type(self).function(s, **{k: v for k, v in self.keywords().items() if k not in READING})


class CrossEntropyLoss(RegionLoss):
    """`cross_entropy` as a module; pixel weights are given with the target."""

    function = staticmethod(entropy.cross_entropy)

    def reading(self) -> dict[str, Any] | None:
        per_pixel = self.options.get("label_smoothing") or self.options.get("ohem") is not None
        return None if per_pixel or self.options.get("reduction") == "none" else super().reading()

    def forward(self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None = None) -> Tensor:
        """The loss of logits [N, C, h, w], a target that sets the full size, and a weight [N, H, W] for each pixel."""
        weights = {} if pixel_weight is None else {"pixel_weight": pixel_weight}
        return entropy.cross_entropy(logits, target, **{**self.keywords(), **weights})


class FocalLoss(RegionLoss):
    """`focal` as a module."""

    function = staticmethod(entropy.focal)

    @property
    def gamma(self) -> float | None:
        return float(self.options.get("gamma", 2.0))


class DiceLoss(RegionLoss):
    """`dice` as a module."""

    function = staticmethod(region.dice)


class JaccardLoss(RegionLoss):
    """`jaccard` as a module."""

    function = staticmethod(region.jaccard)


class TverskyLoss(RegionLoss):
    """`tversky` as a module."""

    function = staticmethod(region.tversky)


class FocalTverskyLoss(RegionLoss):
    """`focal_tversky` as a module."""

    function = staticmethod(region.focal_tversky)


class GeneralizedDiceLoss(RegionLoss):
    """`generalized_dice` as a module."""

    function = staticmethod(region.generalized_dice)


class LovaszSoftmaxLoss(FunctionalLoss):
    """`lovasz_softmax` as a module."""

    function = staticmethod(lovasz.lovasz_softmax)


class LovaszHingeLoss(FunctionalLoss):
    """`lovasz_hinge` as a module."""

    function = staticmethod(lovasz.lovasz_hinge)


class BoundaryLoss(FunctionalLoss):
    """`boundary` as a module."""

    function = staticmethod(distance.boundary)


class HausdorffDTLoss(FunctionalLoss):
    """`hausdorff_dt` as a module."""

    function = staticmethod(distance.hausdorff_dt)


class HausdorffERLoss(FunctionalLoss):
    """`hausdorff_erosion` as a module."""

    function = staticmethod(distance.hausdorff_erosion)


class WeightedSum(Loss):
    """A weighted sum of losses; those that are functions of `statistics` share one pass over the logits.

    Losses share it where they read alike (activation, ignore_index, align_corners, intersection), and where no two want
    different exponents of the focal loss. Cross-entropy with pixel weights, smoothing or hard examples is a pass of its
    own.

    Args:
        terms: pairs of weight and loss.

    Example:
        >>> loss = DiceLoss(ignore_index=3) + 0.5 * CrossEntropyLoss(ignore_index=3)
        >>> value = loss(torch.randn(1, 3, 8, 8), torch.zeros(1, 32, 32, dtype=torch.uint8))
    """

    def __init__(self, terms: Sequence[tuple[float, Loss]]) -> None:
        super().__init__()
        self.weights = [float(weight) for weight, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, logits: Tensor, target: Tensor, pixel_weight: Tensor | None = None) -> Tensor:
        """The sum for logits [N, C, h, w] and a target; weights of pixels [N, H, W] are for cross-entropy alone."""
        if pixel_weight is not None and not any(isinstance(loss, CrossEntropyLoss) for loss in self.losses):
            raise ValueError("fastseg::WeightedSum: pixel_weight must be None without a CrossEntropyLoss, got a tensor")
        taken: list[tuple[dict[str, Any], RegionStatistics]] = []

        def value(loss: nn.Module) -> Tensor:
            weighted = pixel_weight is not None and isinstance(loss, CrossEntropyLoss)
            reading = loss.reading() if isinstance(loss, RegionLoss) and not weighted else None
            if reading is None:
                return loss(logits, target, pixel_weight) if weighted else loss(logits, target)
            assert isinstance(loss, RegionLoss)
            for done, s in taken:
                if done == reading and loss.gamma in (None, s.gamma):
                    return loss.of_statistics(s)
            taken.append((reading, statistics(logits, target, gamma=loss.gamma, **reading)))
            return loss.of_statistics(taken[-1][1])

        # First those that need an exponent: their statistics serve the others too.
        order = sorted(range(len(self.losses)), key=lambda i: getattr(self.losses[i], "gamma", None) is None)
        values = {i: value(self.losses[i]) for i in order}
        parts = [weight * values[i] for i, weight in enumerate(self.weights)]
        return sum(parts[1:], start=parts[0])

    def extra_repr(self) -> str:
        return f"weights={self.weights}"


def _terms(loss: Loss) -> list[tuple[float, Loss]]:
    if isinstance(loss, WeightedSum):
        return list(zip(loss.weights, loss.losses, strict=True))  # type: ignore[arg-type]
    return [(1.0, loss)]


def _options(function: Callable[..., Tensor]) -> set[str]:
    """The names of the keyword arguments of a loss, those behind ``**`` among them."""
    names: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            names |= (region.Options if name == "options" else Reading).__annotations__.keys()
        elif parameter.kind is parameter.KEYWORD_ONLY and name != "pixel_weight":
            names.add(name)
    return names
