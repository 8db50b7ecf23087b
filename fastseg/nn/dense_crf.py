"""Mean field of a dense CRF as a layer whose weights are learned."""

from typing import Any

import torch
from torch import Tensor, nn

from fastseg.ops.dense_crf import dense_crf
from fastseg.ops.dense_crf_arguments import checked_modes
from fastseg.ops.dense_crf_presets import dense_crf_preset

MODES = ("normalization", "include_self", "spatial", "bilateral")
KERNELS = ("spatial_sigma", "bilateral_sigma_xy", "bilateral_sigma_color", *MODES, "recompute")


class DenseCRF(nn.Module):
    """Dense CRF inference behind a network, trained with it: the CRF-RNN layer.

    ``logits' = logits - sum_k mu diag(w_k) K_k Q`` with ``Q = softmax(logits')``, from ``logits`` on, for some
    iterations: :func:`fastseg.ops.dense_crf` with weights ``w_k`` of each label and a compatibility ``mu`` that are
    parameters.

    Args:
        labels: how many.
        iterations: in training.
        eval_iterations: in evaluation, as many as in training if not given.
        spatial_weight: initial weight of the smoothness kernel, for every label.
        bilateral_weight: that of the appearance kernel.
        output: "logits", what a loss takes; "probabilities" or "labels".
        kernels: other arguments of :func:`fastseg.ops.dense_crf`: deviations, normalization, ...

    ``compatibility`` [labels, labels] is -1 on its diagonal to begin with: labels that agree gain. The parameters do
    not depend on the size of images, which may change from call to call.

    Source: Zheng et al. 2015, "Conditional Random Fields as Recurrent Neural Networks" (arXiv 1502.03240).
    """

    def __init__(
        self,
        labels: int,
        *,
        iterations: int = 5,
        eval_iterations: int | None = None,
        spatial_weight: float = 3.0,
        bilateral_weight: float = 10.0,
        output: str = "logits",
        **kernels: Any,
    ) -> None:
        super().__init__()
        unknown = kernels.keys() - KERNELS
        if unknown:
            raise TypeError(f"fastseg::DenseCRF: arguments must be {', '.join(KERNELS)} beside those of the layer, got "
                            f"{', '.join(sorted(unknown))}")  # fmt: skip
        checked_modes("DenseCRF", iterations, output, **{name: kernels[name] for name in MODES if name in kernels})
        if eval_iterations is not None:
            checked_modes("DenseCRF", eval_iterations)
        if labels < 1:
            raise ValueError(f"fastseg::DenseCRF: labels must be at least 1, got {labels}")
        self.iterations = iterations
        self.eval_iterations = iterations if eval_iterations is None else eval_iterations
        self.output, self.kernels = output, kernels
        self.compatibility = nn.Parameter(-torch.eye(labels))
        self.spatial_weight = nn.Parameter(torch.full((labels,), float(spatial_weight)))
        self.bilateral_weight = nn.Parameter(torch.full((labels,), float(bilateral_weight)))

    @classmethod
    def from_preset(cls, name: str, labels: int, **changes: Any) -> "DenseCRF":
        """A layer that begins with a preset of :mod:`fastseg.ops.dense_crf_presets`, but for some changes."""
        return cls(labels, **{**dense_crf_preset(name), **changes})

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """Refine logits ``[N, labels, ...]`` along the edges of an image ``[N, F, ...]`` of the same size."""
        return dense_crf(
            -logits,
            image,
            iterations=self.iterations if self.training else self.eval_iterations,
            spatial_weight=self.spatial_weight,
            bilateral_weight=self.bilateral_weight,
            compatibility=self.compatibility,
            output=self.output,
            **self.kernels,
        )

    def extra_repr(self) -> str:
        """Its arguments, for printing."""
        parts = {"labels": len(self.compatibility), "iterations": self.iterations, **self.kernels}
        return ", ".join(f"{name}={value}" for name, value in parts.items())
