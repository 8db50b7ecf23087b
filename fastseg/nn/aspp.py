"""Atrous spatial pyramid pooling, the head of DeepLab v3 and v3+."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastseg.nn.atrous_conv import AtrousConv2d, SeparableAtrousConv2d
from fastseg.nn.conv import folded, fuses, unhooked
from fastseg.ops import aspp_conv2d, atrous_conv2d


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with image-level features.

    ``y = relu(bn(W [b_0(x); b_1(x); ...; pool(x)]))``: a 1x1 branch, one 3x3 branch per rate and the globally averaged
    image, each of ``out_channels``, are stacked and projected by a 1x1 convolution. The stacking order and the
    state-dict keys are torchvision's: ``convs.0`` is the 1x1 branch, ``convs.1..R`` the rates, ``convs.{R+1}.{1,2}``
    the image pool. In evaluation mode nothing is stacked: the projection is split by branches, and the image pool is a
    bias of it; with dense branches all of it is one op, :func:`fastseg.ops.aspp_conv2d`.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        rates: dilation of each 3x3 branch: (6, 12, 18) at output stride 16, twice that at 8.
        out_channels: channels of every branch and of the output.
        separable: make the 3x3 branches depthwise-separable.
        dropout: dropout probability after the projection.

    Source: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation" (arXiv 1706.05587),
        section 3.3.
    """

    def __init__(
        self,
        in_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        out_channels: int = 256,
        *,
        separable: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.separable = separable

        def branch(rate: int) -> nn.Module:
            if separable:
                return SeparableAtrousConv2d(in_channels, out_channels, rate)
            return AtrousConv2d(in_channels, out_channels, dilation=rate)

        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *AtrousConv2d(in_channels, out_channels, 1))
        self.convs = nn.ModuleList([AtrousConv2d(in_channels, out_channels, 1), *map(branch, self.rates), pool])
        self.project = AtrousConv2d((len(self.rates) + 2) * out_channels, out_channels, 1)
        self.project.append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        if not self._fusable():
            *local, pool = self.convs
            # Resizing a 1x1 map gives a constant, so the pooled branch is broadcast rather than interpolated.
            pooled = pool(x).expand(-1, -1, *x.shape[-2:])
            return self.project(torch.cat([*(branch(x) for branch in local), pooled], dim=1))
        y = self._separable(x) if self.separable else self._dense(x)
        for layer in self.project.appended():
            y = layer(y)
        return y

    def _fusable(self) -> bool:
        """Whether every branch is what the constructor made, and in evaluation mode."""
        *local, pool = self.convs
        blocks = (local[0], self.project) if self.separable else (*local, self.project)
        layers = list(cast(nn.Sequential, pool))
        return (
            not self.training
            and all(cast(AtrousConv2d, block).fusable() for block in blocks)
            and not any(cast(AtrousConv2d, block).appended() for block in local if isinstance(block, AtrousConv2d))
            and [type(layer) for layer in layers[:2]] == [nn.AdaptiveAvgPool2d, nn.Conv2d]
            and [type(layer) for layer in layers[3:]] == [nn.ReLU]
            and fuses(layers[2])
            and unhooked(self.convs)
            and unhooked(self.project)
        )

    def _dense(self, x: Tensor) -> Tensor:
        first, *atrous, pool = (cast(nn.Sequential, branch) for branch in self.convs)
        convs = [cast(nn.Conv2d, conv) for conv in (first[0], *(branch[0] for branch in atrous), pool[1])]
        tables = [folded(norm) for norm in (first[1], *(branch[1] for branch in atrous), pool[2])]
        scale, shift = (torch.stack(vectors) for vectors in zip(*tables, strict=True))
        project_scale, project_shift = folded(self.project[1])
        packed = [cast(AtrousConv2d, branch).packed_for(x) for branch in atrous]
        nothing = x.new_empty(0)
        return aspp_conv2d(
            x,
            convs[0].weight,
            [conv.weight for conv in convs[1:-1]],
            self.rates,
            convs[-1].weight,
            self.project.conv.weight,
            branch_scale=scale,
            branch_shift=shift,
            project_scale=project_scale,
            project_shift=project_shift,
            packed=[nothing if p is None else p for p in packed],
        )

    def _separable(self, x: Tensor) -> Tensor:
        *local, pool = self.convs
        weight = self.project.conv.weight
        scale, shift = folded(self.project[1])
        parts = weight.split(weight.shape[1] // len(self.convs), 1)
        # The image pool comes first: what follows is added to a map.
        y = atrous_conv2d(pool(x), parts[-1], scale=scale).expand(-1, -1, *x.shape[-2:])
        for i, (branch, part) in enumerate(zip(local, parts[:-1], strict=True)):
            last = i == len(local) - 1
            y = atrous_conv2d(
                branch(x),
                part,
                scale=scale,
                shift=shift if last else None,
                residual=y,
                activation="relu" if last else "none",
            )
        return y
