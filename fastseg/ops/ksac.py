"""Kernel-sharing atrous convolution: one 3x3 kernel at several rates, for the price of one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._registry import FLOATS, call, declare
from ..reference import ksac as reference
from ..reference.conv import ACTIVATIONS
from .arguments import (
    brief,
    check_devices,
    check_map,
    check_weight,
    checked_choice,
    empty_images,
    is_whole,
    under_autocast,
)
from .ksac_steps import shared_flops, unfused

FUSIONS = ("sum", "concat")


def ksac_conv2d(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    fusion: str = "sum",
    activation: str = "relu",
) -> Tensor:
    r"""Convolve with one 3x3 kernel at several rates, and fuse the results.

    .. math:: y = \sum_r a(s_r T_r + t_r), \qquad
        T_r(p) = \sum_{d \in \{-1, 0, 1\}^2} W_d \, x(p + r d)

    with zeros around the map, or the terms of the sum one behind the other. The products :math:`W_d x` are computed
    once for all rates; a rate adds nine of them, shifted.

    Args:
        x: [N, Cin, H, W], float32, float64, bfloat16 or float16, NCHW or channels_last.
        weight: [Cout, Cin, 3, 3] in the dtype of `x`.
        rates: dilations, each from 1 to 2^30 - 1; they may repeat, and pass the map.
        scale: [R, Cout], s, a batch norm's for example; None for 1.
        shift: [R, Cout], t; None for 0.
        fusion: "sum" or "concat".
        activation: a, one of "none", "relu", "relu6" and "silu".

    Returns:
        [N, Cout, H, W] in the dtype and memory format of `x`, or with "concat" [N, R * Cout, H, W] in the order of
        `rates`. Half precision is computed in float32 and rounded once.

    Memory: the result and at most 64 MB (half precision: float32 copies besides). Where a gradient is recorded,
    the T_r are kept. Gradient: exact, differentiable again. Devices: CPU compiled, GPU in Triton.
    Errors: `ValueError` naming the argument for a wrong rank, dtype, shape, rate or name.

    Source: Huang et al. 2019, "See More Than Once: Kernel-Sharing Atrous Convolution" (arXiv 1908.09443).

    Example:
        >>> x, weight = torch.randn(1, 64, 33, 33), torch.randn(256, 64, 3, 3)
        >>> ksac_conv2d(x, weight, (6, 12, 18)).shape
        torch.Size([1, 256, 33, 33])
    """
    name = "ksac_conv2d"
    x, weight, chosen = _checked(name, x, weight, rates, fusion, activation)
    _check_vectors(name, weight, len(chosen), scale=scale, shift=shift)
    concat = fusion == "concat"
    recorded = any(t is not None and t.requires_grad for t in (x, weight, scale, shift))
    if not (recorded and torch.is_grad_enabled()):
        return call(name, x, weight, chosen, scale, shift, concat, activation)
    terms = call("ksac_responses", x, weight, chosen)
    return call("ksac_fuse", terms, scale, shift, len(chosen), concat, activation).to(x.dtype)


def ksac_conv2d_train(
    x: Tensor,
    weight: Tensor,
    rates: Sequence[int],
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float = 1e-5,
    fusion: str = "sum",
    activation: str = "relu",
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Convolve with one kernel at several rates, with batch norm for each rate, and fuse the results.

    .. math:: y = \sum_r a\left(\gamma_r \frac{T_r - \mu_r}{\sqrt{v_r + \epsilon}} + \beta_r\right)

    with :math:`T_r` of `ksac_conv2d`, its means :math:`\mu_r` and biased variances :math:`v_r` over batch and map.

    Args:
        x: as in `ksac_conv2d`, more than one pixel in all.
        weight: as in `ksac_conv2d`.
        rates: as in `ksac_conv2d`.
        gamma: [R, Cout].
        beta: [R, Cout].
        eps: added to the variance.
        fusion: as in `ksac_conv2d`.
        activation: as in `ksac_conv2d`.

    Returns:
        The result of `ksac_conv2d`, and mean and variance [R, Cout], float64 for float64 and else float32, without a
        gradient: running statistics are updated from them.

    Memory: the T_r. Gradient: exact, also through the statistics. Devices: CPU compiled, GPU in Triton.
    Errors: as `ksac_conv2d`.

    Example:
        >>> x, weight = torch.randn(2, 64, 33, 33), torch.randn(256, 64, 3, 3)
        >>> y, mean, var = ksac_conv2d_train(x, weight, (6, 12), torch.ones(2, 256), torch.zeros(2, 256))
        >>> y.shape, mean.shape
        (torch.Size([2, 256, 33, 33]), torch.Size([2, 256]))
    """
    name = "ksac_conv2d_train"
    x, weight, chosen = _checked(name, x, weight, rates, fusion, activation)
    for argument, v in (("gamma", gamma), ("beta", beta)):
        if v is None:
            raise ValueError(f"fastseg::{name}: {argument} must be a tensor, got None")
    _check_vectors(name, weight, len(chosen), gamma=gamma, beta=beta)
    if x.shape[0] * x.shape[2] * x.shape[3] < 2:
        raise ValueError(f"fastseg::{name}: x must have more than one pixel to train with, got {brief(x)}")
    terms = call("ksac_responses", x, weight, chosen)
    # Per rate and channel, of the T_r that are there anyway: no second GEMM.
    var, mean = (s.view(gamma.shape) for s in torch.var_mean(terms, (0, 2, 3), correction=0))
    scale = gamma.to(terms.dtype) * (var + eps).rsqrt()
    shift = beta.to(terms.dtype) - mean * scale
    y = call("ksac_fuse", terms, scale, shift, len(chosen), fusion == "concat", activation)
    return y.to(x.dtype), mean.detach(), var.detach()


def _checked(
    op: str, x: Tensor, weight: Tensor, rates: Sequence[int], fusion: str, activation: str
) -> tuple[Tensor, Tensor, list[int]]:
    """Check the arguments; return maps and weight, under autocast in its dtype, and the rates."""
    check_map(op, "x", x)
    if under_autocast(x) and x.dtype != torch.float64 and isinstance(weight, Tensor):
        # Not by the dispatcher: scales and shifts are no vectors here, and have to stay as they are.
        lower = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(lower), weight.to(lower)
    if 0 in x.shape[1:]:
        raise ValueError(f"fastseg::{op}: x must have channels and pixels, got {brief(x)}")
    check_weight(op, "weight", weight, x, (None, x.shape[1], 3, 3))
    check_devices(op, x, weight=weight)
    chosen = list(rates) if isinstance(rates, Sequence) and not isinstance(rates, str) else []
    if not chosen or not all(is_whole(r) and 1 <= r < 2**30 for r in chosen):
        raise ValueError(f"fastseg::{op}: rates must be whole numbers from 1 to 2^30 - 1, got {rates!r}")
    checked_choice(op, "fusion", fusion, FUSIONS)
    checked_choice(op, "activation", activation, ACTIVATIONS)
    return x, weight, chosen


def _check_vectors(op: str, weight: Tensor, rates: int, **vectors: Tensor | None) -> None:
    shape = (rates, weight.shape[0])
    for argument, v in vectors.items():
        if v is not None and (not isinstance(v, Tensor) or v.dtype not in FLOATS or v.shape != shape):
            raise ValueError(f"fastseg::{op}: {argument} must be a floating tensor {list(shape)}, got {brief(v)}")
    check_devices(op, weight, **vectors)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, ctx.rates, scale, shift, ctx.concat, ctx.activation = inputs
    ctx.save_for_backward(x, weight, scale, shift)


def _backward(ops: Any, ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """Of who calls the op itself: the door keeps the responses instead, and computes none twice."""
    x, weight, scale, shift = ctx.saved_tensors
    terms = ops.ksac_responses(x, weight, ctx.rates)
    options = len(ctx.rates), ctx.concat, ctx.activation
    of_terms, *vectors = unfused(ops, grad.to(terms.dtype), terms, scale, shift, *options)
    of_x = ops.ksac_responses_input(of_terms, weight, ctx.rates)
    return of_x, ops.ksac_responses_weight(of_terms, x, ctx.rates), None, *vectors, None, None


declare(
    "ksac_conv2d(Tensor x, Tensor weight, int[] rates, Tensor? scale, Tensor? shift, bool concat, str activation)"
    " -> Tensor",
    reference=reference.ksac_conv2d,
    fake=lambda x, weight, rates, scale, shift, concat, activation: empty_images(
        x, (x.shape[0], weight.shape[0] * (len(rates) if concat else 1), *x.shape[2:]), x.dtype
    ),
    setup_context=_save,
    backward=_backward,
    per_sample=("x",),
    flops=shared_flops,
    triton="ksac",
)
