"""DeepLab v3+ with a head of plain PyTorch layers: what `fastseg.nn` replaces.

Compare `fastseg profile examples/plain_deeplab.py:lite0` with `fastseg profile deeplab_v3_plus_lite0_ccp7`: the same
weights, the same labels. `:resnet50` and `:dense_resnet50` are such a pair with dense 3x3 convolutions.
"""

import torch
from torch import Tensor, nn

import fastseg
from fastseg.nn import ASPP, AtrousConv2d, SeparableAtrousConv2d


class PlainASPP(nn.Module):
    """All branches, stacked and projected."""

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        self.convs, self.project = aspp.convs, aspp.project

    def forward(self, x: Tensor) -> Tensor:
        *local, pool = self.convs
        pooled = pool(x).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([*(branch(x) for branch in local), pooled], dim=1))


def plain(module: nn.Module) -> nn.Module:
    """The module with every layer of `fastseg.nn` written out."""
    for name, child in module.named_children():
        setattr(module, name, plain(child))
    if isinstance(module, ASPP):
        return PlainASPP(module)
    if isinstance(module, SeparableAtrousConv2d):
        return nn.Sequential(module.depthwise, module.pointwise)
    return nn.Sequential(*module) if isinstance(module, AtrousConv2d) else module


def lite0() -> nn.Module:
    """With the weights that ship."""
    return plain(fastseg.create_model("deeplab_v3_plus_lite0_ccp7"))


def resnet50() -> nn.Module:
    """With random weights, 21 classes and dense 3x3 convolutions."""
    return plain(dense_resnet50())


def dense_resnet50() -> nn.Module:
    """The model before it is written out."""
    torch.manual_seed(0)
    return fastseg.create_model("deeplab_v3_plus", backbone="resnet50", separable=False)


@torch.inference_mode()
def main() -> None:
    image = torch.randn(1, 3, 512, 512)
    ours, theirs = fastseg.create_model("deeplab_v3_plus_lite0_ccp7").eval(), lite0().eval()
    different = (ours(image).argmax(1) != theirs(image).argmax(1)).sum().item()
    print(f"{different} labels differ (float32 rounding, where two classes tie)")


if __name__ == "__main__":
    main()
