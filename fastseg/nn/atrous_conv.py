"""Atrous convolutions with batch norm and activation: one op in evaluation mode."""

from typing import Any

import torch
from torch import Tensor, nn

from fastseg.nn.conv import folded, fuses, unhooked
from fastseg.ops import atrous_conv2d, prepack_atrous_weight, separable_atrous_conv2d
from fastseg.ops.arguments import is_eager
from fastseg.ops.atrous_conv_algorithms import packed_algorithm

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}


_SAMPLE = 4096  # values of a weight that are looked at to see whether it has changed


class _Source:
    """What a packed weight was made from. Not every change raises a tensor's version: a fused optimizer's does not, and
    neither do those of `.data`. So a sample of the values is kept, too."""

    def __init__(self, algorithm: str, weight: Tensor) -> None:
        self.algorithm, self.weight, self.version = algorithm, weight, weight._version
        self.sample = _sampled(weight).clone()

    def same(self, algorithm: str, weight: Tensor) -> bool:
        """Whether this is that weight, unchanged."""
        if self.algorithm != algorithm or self.weight is not weight or self.version != weight._version:
            return False
        sample = _sampled(weight)
        return sample.device == self.sample.device and torch.equal(sample, self.sample)


def _sampled(weight: Tensor) -> Tensor:
    """Values of all channels and taps, as bits, so that NaN equals itself."""
    flat = (weight if weight.is_contiguous() else weight.permute(0, 2, 3, 1)).detach().reshape(-1)
    step = max(1, flat.numel() // _SAMPLE)
    while step % 2 == 0 or step % 3 == 0:  # in step with neither taps nor channels
        step += 1
    return flat[::step].view(torch.int32)


def _is_plain(conv: nn.Module) -> bool:
    """Whether a convolution pads with zeros so that stride 1 keeps the size, as the op does."""
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    same = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return conv.padding in ("same", same)


class AtrousConv2d(nn.Sequential):
    """Convolution at an atrous rate, batch norm, activation.

    ``y = activation(bn(w *_r x + b))``. In evaluation mode the batch norm is the scale and the shift of one op,
    :func:`fastseg.ops.atrous_conv2d`, and what Winograd needs of the weight is kept, in up to four times the memory of
    the weight: it is made at the first call, and again when the weight has changed. (A change that the weight's version
    does not tell of, as one through ``.data``, is seen if it meets one of 4096 values; ``train()`` forgets it all.)
    It is neither saved nor part of compiled graphs. In training mode the convolution is that op too, and batch norm and
    activation are PyTorch's. Layers that are exchanged, appended or hooked run as they are. The state-dict keys are
    torchvision's: ``0`` is the convolution and ``1`` the batch norm.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        out_channels: channels of the output.
        kernel_size: odd side of the kernel; the zero padding is ``dilation * (kernel_size - 1) / 2`` on every side.
        stride: step of the convolution.
        dilation: atrous rate.
        groups: groups of the convolution; ``in_channels`` makes it depthwise.
        bias: whether the convolution has a bias.
        norm: whether a batch norm follows.
        activation: ``"none"``, ``"relu"``, ``"relu6"`` or ``"silu"``.
        eps: batch norm's epsilon.
        momentum: weight of the newest batch in batch norm's running statistics.

    Example:
        >>> AtrousConv2d(64, 32, dilation=6).eval()(torch.randn(1, 64, 33, 33)).shape
        torch.Size([1, 32, 33, 33])
    """

    packed: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        activation: str = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        if kernel_size % 2 == 0:
            raise ValueError(f"fastseg::AtrousConv2d: kernel_size must be odd, got {kernel_size}")
        padding = dilation * (kernel_size // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=bias)
        ]
        if norm:
            layers.append(nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum))
        if activation != "none":
            if activation not in ACTIVATIONS:
                known = ", ".join(("none", *ACTIVATIONS))
                raise ValueError(f"fastseg::AtrousConv2d: activation must be one of {known}, got {activation!r}")
            layers.append(ACTIVATIONS[activation](inplace=True))
        super().__init__(*layers)
        self.activation = activation
        self.norm = norm
        self.register_buffer("packed", None, persistent=False)
        self._packed_from: _Source | None = None

    @property
    def conv(self) -> nn.Conv2d:
        """The convolution."""
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        conv, layers = self.conv, list(self)
        options: dict[str, Any] = {"stride": conv.stride, "dilation": conv.dilation, "groups": conv.groups}
        if not self.fusable():
            ours = _is_plain(conv) and unhooked(conv)
            y = atrous_conv2d(x, conv.weight, conv.bias, **options) if ours else conv(x)
            rest = layers[1:]
        else:
            if self.norm:
                options["scale"], options["shift"] = folded(layers[1])
            packed = self.packed_for(x)
            y = atrous_conv2d(x, conv.weight, conv.bias, activation=self.activation, packed=packed, **options)
            rest = self.appended()
        for layer in rest:
            y = layer(y)
        return y

    def fusable(self) -> bool:
        """Whether convolution, batch norm and activation are what the constructor made, and in evaluation mode."""
        conv, *rest = self
        wanted = [*([None] if self.norm else []), *([ACTIVATIONS[a]] if (a := self.activation) != "none" else [])]
        found = [None if fuses(layer) else type(layer) for layer in rest[: len(wanted)]]
        return not self.training and found == wanted and _is_plain(conv) and all(map(unhooked, self))

    def appended(self) -> list[nn.Module]:
        """Layers behind those of the constructor."""
        return list(self)[1 + self.norm + (self.activation != "none") :]

    def packed_for(self, x: Tensor) -> Tensor | None:
        """The weight as the fastest algorithm for such an input takes it, if that is to be packed."""
        conv, weight = self.conv, self.conv.weight
        if not is_eager(weight) or self.training or weight.is_inference() or conv.groups > 1 or conv.stride != (1, 1):
            return None
        if torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad):
            return None
        algorithm = packed_algorithm(x, weight, (conv.dilation[0], conv.dilation[1]))
        if algorithm == "direct":
            return None
        if self._packed_from is None or not self._packed_from.same(algorithm, weight):
            with torch.no_grad():
                self.packed = prepack_atrous_weight(weight, algorithm)
            self._packed_from = _Source(algorithm, weight)
        return self.packed

    def __getitem__(self, index: Any) -> Any:
        """A layer, or some of them."""
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)

    def __getstate__(self) -> dict[str, Any]:
        """Without the packed weight, which is made again."""
        state = self.__dict__.copy()
        state["_buffers"] = {**self._buffers, "packed": None}
        state["_packed_from"] = None
        return state

    def _forget(self) -> None:
        self.packed = self._packed_from = None

    def train(self, mode: bool = True) -> "AtrousConv2d":
        """Set the mode; training forgets the packed weight."""
        if mode:
            self._forget()
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> "AtrousConv2d":
        self._forget()
        super()._apply(*args, **kwargs)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)


class SeparableAtrousConv2d(nn.Module):
    """Depthwise 3x3 at a rate, batch norm, ReLU, then pointwise 1x1, batch norm, ReLU.

    ``y = relu(bn(P * relu(bn(D *_r x))))`` with one 3x3 filter of ``D`` per channel and rate ``r``: ``9 C_in + C_in
    C_out`` multiplications per output pixel in place of ``9 C_in C_out``. In evaluation mode it is one op,
    :func:`fastseg.ops.separable_atrous_conv2d`, with the batch norms as its scales and shifts.

    Args:
        in_channels: channels of the input ``[N, in_channels, H, W]``.
        out_channels: channels of the output ``[N, out_channels, H, W]``.
        dilation: rate of the depthwise convolution.

    Source: Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution" (arXiv 1802.02611), section 3.1; the
    batch norm and ReLU between the two halves follow the TensorFlow release, as does the initialisation.
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = AtrousConv2d(in_channels, in_channels, dilation=dilation, groups=in_channels)
        self.pointwise = AtrousConv2d(in_channels, out_channels, 1)
        for block, std in ((self.depthwise, 0.33), (self.pointwise, 0.06)):
            nn.init.trunc_normal_(block.conv.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        if not self.fusable():
            return self.pointwise(self.depthwise(x))
        (depthwise_scale, depthwise_shift), (scale, shift) = folded(self.depthwise[1]), folded(self.pointwise[1])
        rate = self.depthwise.conv.dilation
        return separable_atrous_conv2d(
            x,
            self.depthwise.conv.weight,
            self.pointwise.conv.weight,
            dilation=(rate[0], rate[1]),
            depthwise_scale=depthwise_scale,
            depthwise_shift=depthwise_shift,
            depthwise_activation="relu",
            scale=scale,
            shift=shift,
            activation="relu",
        )

    def fusable(self) -> bool:
        """Whether both halves are what the constructor made, and in evaluation mode."""
        halves = (self.depthwise, self.pointwise)
        return all(half.fusable() and not half.appended() and unhooked(half) for half in halves)
