"""Kernel-sharing atrous convolution, a head in the place of atrous spatial pyramid pooling."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastseg.nn.conv import conv_bn_act, folded, fuses, unhooked
from fastseg.ops.atrous_conv import atrous_conv2d
from fastseg.ops.ksac import FUSIONS, ksac_conv2d, ksac_conv2d_train


class KSAC(nn.Module):
    """Kernel-sharing atrous convolution with image-level features.

    ``y = relu(bn(W [b(x); s(x); pool(x)]))``: a 1x1 branch, ``s(x) = sum_r relu(bn_r(conv_r(x, K)))`` of one 3x3 kernel
    ``K`` at every rate ``r``, and the globally averaged image, each of ``out_channels``, are stacked and projected by a
    1x1 convolution. With ``fusion="concat"`` the terms of the sum are stacked instead: the dataflow of
    :class:`~fastseg.nn.ASPP`, with tied kernels.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        rates: dilations of the kernel: (6, 12, 18) at output stride 16, twice that at 8.
        out_channels: channels of every branch and of the output.
        fusion: ``sum`` or ``concat``.
        bn_shared: let all rates share one batch norm, which then sees them in their order.
        dropout: dropout probability after the projection.

    In training, statistics are those of this process. In evaluation, the batch norms of the shared kernel are folded
    into scale and shift; the other branches and the projection are PyTorch's.

    Source: Huang et al. 2019, "See More Than Once: Kernel-Sharing Atrous Convolution" (arXiv 1908.09443), algorithm 1
        for the sum, figure 4 for the stack; docs/ops/ksac.md says where the two contradict each other.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        out_channels: int = 256,
        *,
        fusion: str = "sum",
        bn_shared: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fastseg::KSAC: fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        if not rates:
            raise ValueError(f"fastseg::KSAC: rates must name at least one, got {rates!r}")
        self.rates, self.fusion = tuple(rates), fusion
        self.local = conv_bn_act(in_channels, out_channels, 1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_normal_(self.weight)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out_channels) for _ in (self.rates if not bn_shared else (0,)))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn_act(in_channels, out_channels, 1))
        branches = 3 if fusion == "sum" else 2 + len(self.rates)
        self.project = conv_bn_act(branches * out_channels, out_channels, 1)
        self.project.append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        pooled = self.pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([self.local(x), self.shared(x), pooled], dim=1))

    def shared(self, x: Tensor) -> Tensor:
        """The branches of the shared kernel, fused."""
        norms = [self.norms[k % len(self.norms)] for k in range(len(self.rates))]
        if all(fuses(norm) for norm in norms):
            scale, shift = (torch.stack(vectors) for vectors in zip(*map(folded, norms), strict=True))
            return ksac_conv2d(x, self.weight, self.rates, scale=scale, shift=shift, fusion=self.fusion)
        if not _train_alike(norms):
            terms = [
                norm(atrous_conv2d(x, self.weight, dilation=rate)).relu()
                for norm, rate in zip(norms, self.rates, strict=True)
            ]
            return torch.cat(terms, 1) if self.fusion == "concat" else torch.stack(terms).sum(0)
        gamma, beta = (torch.stack([n.get_parameter(name) for n in norms]) for name in ("weight", "bias"))
        eps = cast(nn.BatchNorm2d, norms[0]).eps
        y, mean, var = ksac_conv2d_train(x, self.weight, self.rates, gamma, beta, eps=eps, fusion=self.fusion)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        for norm, m, v in zip(norms, mean, var * (count / (count - 1)), strict=True):
            _track(cast(nn.BatchNorm2d, norm), m, v)
        return y


def _train_alike(norms: Sequence[nn.Module]) -> bool:
    """Whether all rates have plain batch norms that train in one way."""
    return (
        all(
            type(n) is nn.BatchNorm2d and n.training and n.affine and n.track_running_stats and unhooked(n)
            for n in norms
        )
        and len({cast(nn.BatchNorm2d, n).eps for n in norms}) == 1
    )


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    """Update running statistics as a batch norm does; `var` is unbiased."""
    seen = norm.get_buffer("num_batches_tracked").add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / seen.to(mean.dtype)
    for name, value in (("running_mean", mean), ("running_var", var)):
        running = norm.get_buffer(name)
        running += share * (value - running)
